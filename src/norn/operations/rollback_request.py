"""What somebody asks of a rollback, and why it is refused when the world or their token is another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from norn.domain.access import to_steer
from norn.domain.deployments import Deployment
from norn.domain.operations import Operation
from norn.domain.targets import LiveVersion, Target
from norn.domain.verdict import Level, Verdict
from norn.errors import NotAllowed, Stale, Unsafe
from norn.operations.services import Caller
from norn.operations.way_back import WayBack


@dataclass(frozen=True, slots=True)
class Seen:
    """What was on the screen when somebody pressed; no more than that is done."""

    digest: str
    """Of what was live; empty: nothing was."""
    stops: tuple[str, ...] = ()
    """The operations that it would have stopped."""
    in_spite_of: str = ""
    """The findings that it is forced for, as `in_spite_of` names them; empty: not forced."""


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    app: str
    version: str | None = None
    """An image tag, a unique prefix of a commit, a deployment id; None: the newest known-good one before."""
    from_deployment_id: str | None = None
    """What the caller saw live; anything else by now is Stale."""
    target_id: str | None = None
    """The target as the caller saw it; anything else by now is Stale."""
    further: bool = False
    template: bool = False
    reason: str = ""
    force: bool = False
    resume: bool = False
    """Let rollouts that somebody has paused go on."""
    dry_run: bool = False
    restore_snapshot: bool = False
    """Bring the data back as well, as the version left it."""
    data: WayBack | None = None
    """Data that is known already: what an undo takes back."""
    affects: tuple[str, ...] = ()
    """With data: the other apps that use the database, as the caller knows them."""
    confirm: bool = False
    """With data: yes to what would be lost, beforehand."""

    seen: Seen | None = None
    """What a person had on the screen; None: nobody says."""

    @property
    def explicit(self) -> bool:
        return self.version is not None or self.further

    @property
    def with_data(self) -> bool:
        return self.restore_snapshot or self.data is not None

    def insists(self, verdict: Verdict) -> bool:
        """Whether it goes on although this is unsafe."""
        named = in_spite_of(verdict)
        return self.force or (self.seen is not None and named != "" and self.seen.in_spite_of == named)

    def joins(self, active: Sequence[Operation]) -> bool:
        """Whether a rollback under way is what is asked for, too."""
        same = any(operation.params.get("withData") for operation in active)
        return not self.explicit and (same or not self.with_data)


def refused(target: Deployment, verdict: Verdict, target_json: Mapping[str, Any] | None = None) -> Unsafe:
    """The error for a rollback that is not enough."""
    return Unsafe(
        f"Going back to {target.image_tag} is not enough, or would do harm.",
        hint="See the findings for what helps; --force goes on all the same.",
        verdict=verdict.to_json(),
        target=target_json,
    )


def stale(request: RollbackRequest, live: LiveVersion | None) -> Stale:
    """The error where something else is live than the caller saw."""
    now = live.deployment if live else None
    return Stale(
        f"What is live has changed: it is not {request.from_deployment_id or 'what it was'} any more"
        + (f", but {now.image_tag} ({now.id})." if now else "."),
        hint="Look again (`norn status`), then decide.",
        live=now.id if now else None,
    )


def refuse_stale(request: RollbackRequest, live: LiveVersion | None) -> None:
    """Raises Stale."""
    if request.seen is not None and request.seen.digest != (live.digest if live else ""):
        raise stale(request, live)
    if request.from_deployment_id is None:
        return
    if live is None or live.deployment is None or live.deployment.id != request.from_deployment_id:
        raise stale(request, live)


def refuse_other_target(request: RollbackRequest, target: Target) -> None:
    """Raises Stale."""
    now = target.deployment
    if request.target_id not in (None, now.id):
        raise Stale(
            f"What a rollback goes to has changed: it is not {request.target_id} any more, but {now.image_tag} "
            f"({now.id}).",
            hint=f"Because: {target.why}. Look again, then decide.",
            target=now.id,
        )


def refuse_other_stops(request: RollbackRequest, stop: Sequence[Operation]) -> None:
    """Raises Stale where something would be stopped that was not on the screen; that some of it has ended is fine."""
    others = [found for found in stop if request.seen is not None and found.id not in request.seen.stops]
    if others:
        raise Stale(
            f"Something else is at work by now, which this would stop: the {others[0].kind.value} {others[0].id}.",
            hint="Look again, then decide.",
            stops=[found.id for found in stop],
        )


def in_spite_of(verdict: Verdict) -> str:
    """A short name of the findings that make it unsafe, these and no others; empty where there are none."""
    found = [finding.to_json() for finding in verdict.findings if finding.level is Level.UNSAFE]
    named = sorted(f"{finding['code']} {finding.get('subject', '')}" for finding in found)
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16] if named else ""


def refuse_stopping(caller: Caller, stop: Sequence[Operation]) -> None:
    """Raises NotAllowed where the caller may not stop each of them: a restore is left to who may begin one.

    What Norn begins itself stops what is in its way.
    """
    if caller.grant is None:
        return
    for operation in stop:
        permission = to_steer(operation)
        for app in (operation.app, *operation.params.get("affects", ())):
            if refusal := caller.grant.refusal(permission, app):
                raise NotAllowed(
                    f"This would stop the {operation.kind.value} {operation.id}. {refusal}.",
                    hint="Wait until it has ended, or ask somebody who may stop it.",
                    permission=permission.value,
                    operation=operation.id,
                )
