"""What has to hold before a Kubernetes Deployment is changed, and what is said where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from norn.adapters.kubernetes.client import MANAGER, Conflict
from norn.adapters.kubernetes.workload import FENCE, PREFIX, Workload, live_of, reference_of
from norn.domain.ports import Release, Switch, Turn
from norn.errors import Busy, ForeignFields, LeaseLost, NornError, Paused, RolloutFailed, Stale

_TIDYING_S = 10.0


@asynccontextmanager
async def confirming(turn: Turn, tidy: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Within, something is made, the claim is confirmed, and what was made is begun. Raises LeaseLost.

    Where the claim is lost, `tidy` takes away what was made; also where that is noticed first by others of this server,
    who cancel it.
    """

    async def unless_kept() -> None:
        try:
            await turn.confirm()
        except LeaseLost:
            await tidy()

    try:
        yield
    except LeaseLost:
        with suppress(NornError):
            await tidy()
        raise
    except asyncio.CancelledError:
        with suppress(NornError, TimeoutError):
            await asyncio.shield(asyncio.wait_for(unless_kept(), _TIDYING_S))
        raise


def refuse_late(workload: Workload, turn: Turn | None) -> None:
    """Raises RolloutFailed, reason `superseded`, where an operation of a later turn has changed something already."""
    if turn is not None and workload.fence > turn.fence:
        raise RolloutFailed(
            f"{workload.name} was changed by a later operation already ({FENCE} is {workload.fence}, this one has "
            f"{turn.fence}).",
            reason="superseded",
            hint=f"`norn status {workload.name}` shows what is live. Where nobody else has changed it, Norn's database "
            f"has a clock that is behind: set it, or `kubectl annotate deployment/{workload.name} {FENCE}-`.",
        )


class Order:
    """Whether a change is still the next one: nobody has had a later turn, and no other one was accepted since its
    first look, by a rollback without a server, say."""

    def __init__(self, change_id: str, turn: Turn) -> None:
        self._change_id = change_id
        self._turn = turn
        self._first: Workload | None = None

    def refuse_others(self, workload: Workload) -> None:
        """Raises RolloutFailed, reason `superseded`."""
        refuse_late(workload, self._turn)
        first = self._first = self._first or workload
        if workload.change_id not in (self._change_id, first.change_id):
            raise superseded(workload)


def refuse_unseen(change: Switch | Release, workload: Workload) -> None:
    """Raises Paused, and Stale where what is live is not what the caller saw."""
    if workload.paused and not change.resume:
        raise paused(change.app)
    if change.expected_digest is None:
        return
    live = live_of(workload, "")
    for found in (live, live.coming if live is not None else None):
        # What a tag stood for when the caller looked, nobody has written down: it has to be the same tag.
        if found is not None and (
            found.digest == change.expected_digest if found.digest else found.image_tag == change.expected_tag
        ):
            return
    raise Stale(
        f"{change.app} was to be changed from {change.expected_tag or change.expected_digest}, "
        f"but {live.image_tag if live else 'nothing'} is live.",
        hint="Look again at what is live, and decide anew.",
        expected=change.expected_digest,
        live=live.digest if live else None,
    )


def images_for(workload: Workload, switch: Switch) -> dict[str, str]:
    """Which containers get which image: those recorded for the target, by name; else those that are Norn's now.

    Raises RolloutFailed where a recorded container is no longer there.
    """
    recorded = dict((switch.workload or {}).get("containers") or {})
    if not recorded:
        return dict.fromkeys(workload.managed, reference_of(switch.image))
    missing = sorted(key for key in recorded if key not in workload.containers)
    if missing:
        raise RolloutFailed(
            f"{switch.image.tag} ran in {', '.join(missing)}, which the pod template no longer has.",
            reason="template_incompatible",
            hint=f"`norn rollback {switch.app} --to {switch.image.tag} --template` brings its whole template back.",
        )
    return recorded


def refuse_foreign(release: Release, conflict: Conflict) -> None:
    """Norn's own image, notes and earlier patches are Norn's to set; all else that others own is theirs."""
    foreign = [
        {"manager": manager, "field": field}
        for manager, field in conflict.causes
        if manager != MANAGER and not _own_field(field, release.app)
    ]
    if foreign and not release.force:
        named = "; ".join(f"{item['field']} ({item['manager']})" for item in foreign)
        raise ForeignFields(
            f"Others have set what the infraspec of {release.app} sets, too: {named}.",
            hint=f"Take it out of the infraspec, or `norn deploy {release.app} --force` sets it as the infraspec says.",
            fields=foreign,
        )


def _own_field(field: str, app: str) -> bool:
    image = field == f'.spec.template.spec.containers[name="{app}"].image'
    return image or field.startswith((f".metadata.annotations.{PREFIX}", ".metadata.annotations.kubernetes.io/change"))


def paused(app: str) -> Paused:
    return Paused(
        f"The rollouts of the Kubernetes Deployment {app} are paused: it would take the change, and nothing would run.",
        hint=f"`norn rollback {app} --resume` lets them go on with the rollback; "
        f"`kubectl rollout resume deployment/{app}` as they are.",
    )


def always_changed(app: str) -> Busy:
    return Busy(f"Somebody else changes {app} all the time.", hint="Look for another deploy tool.")


def superseded(workload: Workload) -> RolloutFailed:
    return RolloutFailed(
        f"Another change of {workload.name} was accepted since ({workload.change_id}).",
        reason="superseded",
        hint=f"`norn status {workload.name}` shows what is live.",
    )


def nothing_there(app: str) -> RolloutFailed:
    return RolloutFailed(
        f"There is no Kubernetes Deployment {app}.", reason="deleted", hint=f"`norn deploy {app}` makes it."
    )


def nothing_live(app: str) -> RolloutFailed:
    return RolloutFailed(f"Nothing of {app} is live.", reason="nothing_live", hint=f"Deploy it: `norn deploy {app}`.")
