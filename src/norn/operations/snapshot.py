"""A snapshot of an app's database, taken by hand."""

from __future__ import annotations

from norn.domain.images import TAG_LENGTH
from norn.domain.infraspec import PostgresService
from norn.domain.operations import Operation, OperationKind
from norn.domain.ports import AppDirectory
from norn.errors import NotPossible
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.services import Caller, Services, once, take_alone
from norn.operations.versions import live_version

_NO_COMMIT = "0" * TAG_LENGTH


async def request_snapshot(services: Services, app_name: str, reason: str, caller: Caller) -> Operation:
    """Accept a snapshot. Raises UnknownApp, NotPossible (no database), Busy."""

    async def take() -> str:
        app = await services.source.app(app_name)
        await _database_of(services, app)
        return await take_alone(services, app.name, OperationKind.SNAPSHOT, caller, reason)

    operation = await services.store.operation(await once(services, caller, take))
    assert operation is not None
    return operation


async def _database_of(services: Services, app: AppDirectory) -> PostgresService:
    spec = await services.source.infraspec(app)
    if spec.postgres is None:
        raise NotPossible(f"{app.name} has no database.", hint="It would say `services: {postgres: …}`.")
    return spec.postgres


def snapshot_procedure(services: Services) -> Procedure:
    async def snapshot(run: Run) -> None:
        service = await _database_of(services, await services.source.app(run.app))
        database = await services.databases.ensure(run.app, service)
        live = await live_version(services, run.app)
        sha = live.deployment.commit_sha[:TAG_LENGTH] if live and live.deployment else _NO_COMMIT
        async with services.databases.alone(database, run.output.write):
            taken = await services.snapshots.take(database, sha, await services.store.now(), run.output.write)
        run.state["result"] = {"name": taken.name, "sizeBytes": taken.size_bytes}
        async with run.transaction() as transaction:
            await transaction.add_snapshot(taken, run.operation.reason or "by hand")
        run.output.line(f"{taken.name}: {taken.size_bytes} bytes")

    return Procedure((Step("snapshot", snapshot),))
