"""Retention, applied: after each deploy, daily, and when somebody asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog

from norn.domain.audit import Asked
from norn.domain.operations import Operation, OperationKind
from norn.domain.ports import Bounds
from norn.domain.retention import Fate, FormerDatabase, InUse, StoredImage, going, plan_retention
from norn.domain.targets import Target
from norn.errors import Busy, InfraspecInvalid, NornError, Stale, Unavailable
from norn.operations.app_databases import database_of
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.services import Caller, Services, once_operation, take_alone
from norn.operations.versions import find_target, live_version
from norn.operations.way_back import for_retention, stored_snapshots

log = structlog.get_logger(__name__)

_HISTORY = 5_000
_BY = Caller("norn")


async def plan_of(services: Services, app_name: str, except_operation: str = "") -> list[Fate]:
    """What would stay and what would go now, and why. Raises UnknownApp, InfraspecInvalid, Unavailable."""
    app = await services.source.app(app_name)
    spec = await services.source.infraspec(app)
    store, now = services.store, await services.store.now()
    history = await store.deployments(app=app.name, limit=_HISTORY)
    restores, active = await store.restores(app.name), await store.active_operations(app.name)
    live = await live_version(services, app.name)
    target = await find_target(services, app.name, live, now)
    used = [operation for operation in active if operation.id != except_operation]
    formers = [
        FormerDatabase(found.id, found.former, found.restored_at)
        for found in restores
        if found.dropped_at is None and found.undone_by is None  # an undo has made it what is live
    ]
    in_use = InUse(
        live.digest if live else None,
        target.deployment.digest if isinstance(target, Target) else None,
        frozenset(await _used(services, used)) | {former.name for former in formers if used},
    )
    snapshots = for_retention(await stored_snapshots(services, app.name))
    images = await services.images.stored(app.name, await store.built_images(app.name))
    return plan_retention(
        history,
        images,
        snapshots,
        formers,
        in_use,
        retain=spec.artifacts.retain,
        keep_replaced=timedelta(seconds=spec.snapshots.keep_replaced_s),
        now=now,
    )


async def _used(services: Services, operations: Sequence[Operation]) -> set[str]:
    """Digests, tags and snapshots that operations work with, by their own records."""
    found: set[str] = set()
    for operation in operations:
        found |= {str(value) for value in operation.params.values() if isinstance(value, str)}
        ids = [operation.id, operation.params.get("targetId")]
        for id_ in filter(None, ids):
            deployment = await services.store.deployment(id_)
            if deployment is not None:
                found |= {deployment.image_tag, deployment.digest or "", deployment.snapshot or ""}
    return found - {""}


async def request_prune(services: Services, app_name: str, caller: Caller, *, seen: str | None = None) -> Operation:
    """Accept a run of retention; `seen`: what the caller saw that goes, as `going` names it.

    Raises UnknownApp, InfraspecInvalid, Busy; with `seen` also Stale, Unavailable.
    """

    async def take() -> str:
        app = await services.source.app(app_name)
        await services.source.infraspec(app)
        if seen is not None and seen != going(await plan_of(services, app.name)):
            raise Stale("What is to go has changed since. Nothing was removed.", hint="Look again, then decide.")
        return await take_alone(services, app.name, OperationKind.PRUNE, caller, "")

    return await once_operation(services, caller, Asked.request(OperationKind.PRUNE, app_name), take)


def prune_procedure(services: Services) -> Procedure:
    async def prune(run: Run) -> None:
        run.state["result"] = await apply_retention(run, services)

    return Procedure((Step("prune", prune),))


async def apply_retention(run: Run, services: Services) -> Mapping[str, Any]:
    """Remove what is to go, one after the other; what cannot be removed now is said, and tried again the next time."""
    app = await services.source.app(run.app)
    spec = await services.source.infraspec(app)
    fates = await plan_of(services, app.name, run.id)
    staying = frozenset(fate.name for fate in fates if fate.kind == "image" and fate.stays)
    bounds = Bounds(staying, (await services.store.built_images(app.name)).tags, spec.artifacts.registry)
    said: list[str] = []
    for fate in fates:
        if fate.stays:
            continue
        try:
            why_not = await _remove(run, services, fate, bounds)
        except NornError as error:
            why_not = error.message
        if not why_not:
            run.output.line(f"{fate.kind} {fate.name} is removed: {fate.why}")
        elif why_not not in said:  # a registry that forbids it does so for each image
            said.append(why_not)
            run.output.line(f"{fate.kind} {fate.name} stays for now: {why_not}")
    gone = [fate for fate in fates if not fate.stays]
    run.output.line(f"{len(fates) - len(gone)} kept, {len(gone)} to go" if gone else "nothing is to go")
    return {"fates": [fate.to_json() for fate in fates], "problems": said}


async def _remove(run: Run, services: Services, fate: Fate, bounds: Bounds) -> str:
    """Empty where it is gone now, else why it stays."""
    match fate.kind:
        case "image":
            why_not = await services.images.remove(run.app, StoredImage(fate.name, fate.key), bounds)
            if why_not:
                return why_not
            async with run.transaction() as transaction:
                await transaction.image_removed(fate.name, fate.key)
        case "snapshot":
            await services.snapshots.remove(fate.name)
            async with run.transaction() as transaction:
                await transaction.snapshot_removed(fate.name, fate.why)
        case _:
            await services.restores.drop(await database_of(services, run.app), fate.name)
            async with run.transaction() as transaction:
                await transaction.former_dropped(fate.key)
    return ""


async def prune_all(services: Services) -> None:
    """Begin a run of retention for each app that has something to go."""
    for app in await services.source.apps():
        try:
            if any(not fate.stays for fate in await plan_of(services, app.name)):
                await request_prune(services, app.name, _BY)
        except (Busy, InfraspecInvalid, Unavailable) as error:
            log.info("not_pruned", app=app.name, error=error.message)
