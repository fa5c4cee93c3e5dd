"""A snapshot of an app's database, taken by hand."""

from __future__ import annotations

from norn.domain.audit import Asked
from norn.domain.images import TAG_LENGTH
from norn.domain.operations import Operation, OperationKind
from norn.domain.ports import AppDatabase
from norn.domain.snapshot_names import snapshot_name
from norn.domain.snapshots import Snapshot, SnapshotOrder
from norn.operations.app_databases import database_of, service_of
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.services import Caller, Services, once_operation, take_alone
from norn.operations.versions import live_version

_NO_COMMIT = "0" * TAG_LENGTH


async def request_snapshot(
    services: Services, app_name: str, reason: str, caller: Caller, *, kept: bool = False
) -> Operation:
    """Accept a snapshot; with `kept`, retention leaves it alone. Raises UnknownApp, NotPossible (no database), Busy."""

    async def take() -> str:
        app = await services.source.app(app_name)
        await service_of(services, app)
        return await take_alone(services, app.name, OperationKind.SNAPSHOT, caller, reason, {"kept": kept})

    return await once_operation(services, caller, Asked.request(OperationKind.SNAPSHOT, app_name, reason=reason), take)


async def take_noted(run: Run, services: Services, database: AppDatabase, order: SnapshotOrder) -> Snapshot:
    """Take a snapshot; its name is kept from before it is there, so that no dump is left in no record."""
    await forget_unrecorded(run, services)
    await run.checkpoint(snapshotBegun=snapshot_name(database.name, order.commit_sha, order.at))
    return await services.snapshots.take(database, order, run.output.write)


async def forget_unrecorded(run: Run, services: Services) -> None:
    """Remove what an attempt left that was interrupted between the dump and the record of it."""
    name = run.state.get("snapshotBegun")
    if name is not None and all(row["name"] != name for row in await services.store.snapshots(run.app)):
        await services.snapshots.remove(name)


def snapshot_procedure(services: Services) -> Procedure:
    async def snapshot(run: Run) -> None:
        database = await database_of(services, run.app)
        live = await live_version(services, run.app)
        sha = live.deployment.commit_sha[:TAG_LENGTH] if live and live.deployment else _NO_COMMIT
        reason, kept = run.operation.reason or "by hand", bool(run.operation.params.get("kept"))
        async with services.databases.alone(database, run.output.write):
            order = SnapshotOrder(run.app, sha, run.id, reason, await services.store.now(), kept)
            taken = await take_noted(run, services, database, order)
        run.state["result"] = {"name": taken.name, "sizeBytes": taken.size_bytes}
        async with run.transaction() as transaction:
            await transaction.add_snapshot(taken)
        run.output.line(f"{taken.name}: {taken.size_bytes} bytes")

    async def forget(run: Run) -> None:
        await forget_unrecorded(run, services)

    return Procedure((Step("snapshot", snapshot, undo=forget),))
