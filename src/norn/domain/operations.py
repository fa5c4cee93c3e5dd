"""An operation: the durable execution of a deploy, rollback, restore …; and who has to wait for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from norn.domain.deployments import rfc3339


class OperationKind(StrEnum):
    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    RESTART = "restart"
    SNAPSHOT = "snapshot"
    VERIFY = "verify"
    RESTORE = "restore"
    PRUNE = "prune"
    ADOPT = "adopt"


class OperationStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (OperationStatus.QUEUED, OperationStatus.RUNNING)


class StepStatus(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class StepRecord:
    ordinal: int
    step: str
    status: StepStatus
    started_at: datetime
    finished_at: datetime | None
    output: str

    def to_json(self) -> dict[str, Any]:
        duration = (self.finished_at - self.started_at).total_seconds() if self.finished_at else None
        return {
            "step": self.step,
            "status": self.status.value,
            "startedAt": rfc3339(self.started_at),
            "durationMs": round(duration * 1000) if duration is not None else None,
            "output": self.output,
        }


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    seq: int
    app: str
    kind: OperationKind
    status: OperationStatus
    params: Mapping[str, Any]
    requested_by: str
    reason: str
    requested_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    cancel: Mapping[str, Any] | None = None
    accepted: bool = False
    """The runtime has accepted the change: from here it goes on by itself."""
    committed: bool = False
    """What it was about has happened and stays (a version rolled out); what is left is watching."""
    asks: Mapping[str, Any] | None = None
    """What it wants to have confirmed before it goes on; None where it waits for nobody."""
    confirmed: Mapping[str, Any] | None = None
    """By whom, once somebody has."""
    claims: int = 0
    steps: Sequence[StepRecord] = field(default_factory=tuple)

    @property
    def waits(self) -> bool:
        """Whether somebody's yes would still make it go on."""
        asked = self.asks is not None and self.confirmed is None
        return asked and self.cancel is None and not self.status.ended

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "app": self.app,
            "kind": self.kind.value,
            "status": self.status.value,
            "requestedBy": self.requested_by,
            "reason": self.reason,
            "requestedAt": rfc3339(self.requested_at),
            "startedAt": rfc3339(self.started_at),
            "finishedAt": rfc3339(self.finished_at),
            "accepted": self.accepted,
            "committed": self.committed,
            "cancel": dict(self.cancel) if self.cancel is not None else None,
            "asks": dict(self.asks) if self.asks is not None and self.waits else None,
            "result": dict(self.result) if self.result is not None else None,
            "error": dict(self.error) if self.error is not None else None,
            "steps": [step.to_json() for step in self.steps],
        }


# ---- who has to wait for whom ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    """Go ahead; `stop` are operations in the way that are stopped first."""

    stop: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Somebody has asked for the same already: answer with that operation."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Refuse:
    """Busy with an operation that must not be stopped."""

    operation: Operation
    why: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """The request that an Idempotency-Key came with, and the operation that it was answered with."""

    request_hash: str
    operation_id: str
    unchanged: bool
    """The request did not make it."""


Admission = Accept | Answer | Refuse


def admit(kind: OperationKind, active: Sequence[Operation], *, explicit: bool = False) -> Admission:
    """What a request means while `active` operations (newest first) of the same app are queued or running.

    A rollback stops what is in its way; without a version (`explicit` is False) it joins a rollback that still runs
    or bakes, so that two people pressing at once go back one version, not two; one that is being cancelled is not
    joined. A deploy takes over from one that only bakes. A verification is in nobody's way: whatever else is asked for
    stops it. All else waits for nobody and is refused.
    """
    if kind is not OperationKind.VERIFY:
        aside = tuple(operation for operation in active if operation.kind is OperationKind.VERIFY)
        admission = _admit(kind, [found for found in active if found not in aside], explicit=explicit)
        return Accept((*admission.stop, *aside)) if isinstance(admission, Accept) else admission
    return _admit(kind, active, explicit=explicit)


def _admit(kind: OperationKind, active: Sequence[Operation], *, explicit: bool) -> Admission:
    if not active:
        return Accept()
    newest = active[0]
    if kind is OperationKind.ROLLBACK:
        if newest.kind is OperationKind.ROLLBACK and not explicit and newest.cancel is None:
            return Answer(newest)
        return Accept(tuple(active))
    if kind is OperationKind.DEPLOY and all(
        operation.kind is OperationKind.DEPLOY and operation.committed for operation in active
    ):
        return Accept(tuple(active))
    what = f"a {newest.kind.value} of {newest.app} is {'baking' if newest.committed else newest.status.value}"
    return Refuse(newest, what)
