"""What was done, or refused: who, what, on what, from where, why, and what came of it. Nothing in it is a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from norn.domain.deployments import rfc3339
from norn.domain.operations import OperationKind

SUBJECT_CHARS = 300
REASON_CHARS = 2_000
WINDOW_S = 60.0
MOST_TALLIED = 50
"""How many addresses have an entry of their own for what failed within a minute; all others share one."""
OTHERS = "others"

_SAID = ("force", "template", "resume", "withData", "snapshot", "undo", "into", "kept", "direct", "automatic")
"""What of an operation's parameters its entry says."""


class Outcome(StrEnum):
    ACCEPTED = "accepted"
    """An operation that is to be done; how it ends is an entry of its own."""
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Who:
    actor: str
    """The name that the history shows."""
    token: str = ""
    """The name of the token that was shown; empty where Norn itself acts, or none was."""
    address: str = ""
    """Of the client; empty where Norn itself acts."""


NORN = Who("norn")
"""Who does what nobody asked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    who: Who
    action: str
    """`rollback.request`, `rollback.end`, `operation.cancel`, `secret.set`, `token.create`, `sign-in`, …"""
    subject: str
    """What it was done to: an operation's id, the name of a snapshot, token or secret, a version."""
    outcome: Outcome
    app: str | None = None
    """None: it concerns all."""
    reason: str = ""
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None

    def to_row(self) -> dict[str, Any]:
        """The columns of its row, within bounds; NUL, which PostgreSQL cannot keep, becomes U+FFFD."""
        row = {
            "actor": self.who.actor,
            "token": self.who.token,
            "address": self.who.address,
            "action": self.action,
            "app": self.app,
            "subject": self.subject[:SUBJECT_CHARS],
            "reason": self.reason[:REASON_CHARS],
            "outcome": self.outcome.value,
        }
        texts = {name: value.replace("\x00", "\ufffd") if value else value for name, value in row.items()}
        return texts | {"before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry as it is kept."""

    seq: int
    at: datetime
    entry: Entry

    def to_json(self) -> dict[str, Any]:
        entry = self.entry
        return {
            "seq": self.seq,
            "at": rfc3339(self.at),
            "actor": entry.who.actor,
            "token": entry.who.token,
            "address": entry.who.address,
            "action": entry.action,
            "app": entry.app,
            "subject": entry.subject,
            "reason": entry.reason,
            "outcome": entry.outcome.value,
            "before": dict(entry.before) if entry.before is not None else None,
            "after": dict(entry.after) if entry.after is not None else None,
        }


# ---- operations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for, as its refusal is written down."""

    action: str
    app: str
    subject: str = ""
    reason: str = ""

    @classmethod
    def request(cls, kind: OperationKind, app: str, subject: str = "", reason: str = "") -> Asked:
        """For an operation."""
        return cls(f"{kind.value}.request", app, subject, reason)


def request(
    who: Who, operation_id: str, app: str, kind: str, params: Mapping[str, Any], reason: str, live: str | None
) -> Entry:
    """An operation was accepted; `live` is the image that Norn knew to be live then."""
    after = {name: params[name] for name in _SAID if params.get(name)}
    if kind == "deploy" and after.pop("snapshot", None) is None:
        after["snapshot"] = False
    before = {"imageTag": live} if live and kind == "deploy" else None
    return Entry(who, f"{kind}.request", operation_id, Outcome.ACCEPTED, app, reason, before, after or None)


def with_image(entry: Entry, image_tag: str, from_image_tag: str | None) -> Entry:
    """The entry of a request, once it is known from which image to which."""
    before = {"imageTag": from_image_tag} if from_image_tag else entry.before
    return replace(entry, before=before, after={"imageTag": image_tag} | dict(entry.after or {}))


def end(operation_id: str, app: str, kind: str, outcome: str, requested_by: str, error: Mapping[str, Any] | None,
        image_tag: str | None, from_image_tag: str | None) -> Entry:  # fmt: skip
    """An operation has ended; its reason is the error, where there is one."""
    said = f"{error.get('code', '')}: {error.get('message', '')}" if error else ""
    before = {"imageTag": from_image_tag} if from_image_tag else None
    after = {"imageTag": image_tag} if image_tag and outcome == Outcome.SUCCEEDED else None
    return Entry(Who(requested_by), f"{kind}.end", operation_id, Outcome(outcome), app, said, before, after)


# ---- what fails again and again ----------------------------------------------------------------------------------


@dataclass
class _Window:
    began: float
    count: int = 0


@dataclass
class Tally:
    """Bounds what those can write who are let in by nobody: the first failure of a key counts at once, those after it
    within a minute as one."""

    _windows: dict[str, _Window] = field(default_factory=dict)

    def note(self, key: str, now: float) -> tuple[str, bool]:
        """The key under which it counts (`others` where there are too many), and whether it is to be written now."""
        if key not in self._windows and len(self._windows) >= MOST_TALLIED:
            key = OTHERS
        window = self._windows.get(key)
        if window is None:
            self._windows[key] = _Window(now)
            return key, True
        window.count += 1
        return key, False

    def knows(self, key: str) -> bool:
        return key in self._windows

    def due(self, now: float) -> dict[str, int]:
        """How often each key has failed since it was last written down, for those whose minute is over."""
        over = {key: window.count for key, window in self._windows.items() if now - window.began >= WINDOW_S}
        for key, count in over.items():
            if count:
                self._windows[key] = _Window(now)
            else:
                del self._windows[key]
        return {key: count for key, count in over.items() if count}
