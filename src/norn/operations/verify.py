"""Verify: a test restore of a snapshot, by hand and, of each app's newest one, unasked."""

from __future__ import annotations

from datetime import timedelta

import structlog

from norn.domain.operations import Operation, OperationKind, Refuse, admit
from norn.errors import Busy, InfraspecInvalid, NotPossible, SnapshotDamaged, SnapshotMissing, Unavailable
from norn.operations.app_databases import service_of
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.services import Caller, Services, once, take_alone

log = structlog.get_logger(__name__)

UNASKED_BYTES = 5_000_000_000
"""Larger databases are verified only when somebody asks."""
_AGAIN_AFTER = timedelta(days=7)
_BY = Caller("norn")


async def request_verification(services: Services, app_name: str, name: str | None, caller: Caller) -> Operation:
    """Accept a verification, of the newest snapshot where none is named.

    Raises UnknownApp, SnapshotMissing, NotPossible (no database), Busy.
    """

    async def take() -> str:
        app = await services.source.app(app_name)
        service = await service_of(services, app)
        chosen = name or await newest(services, app.name, service.database)
        if chosen is None:
            raise SnapshotMissing(f"{app.name} has no snapshot.", hint=f"`norn snapshots create {app.name}`")
        snapshot = await services.snapshots.record(chosen)
        if snapshot.database != service.database:
            raise SnapshotMissing(f"{chosen} is no snapshot of {service.database!r}.")
        return await take_alone(services, app.name, OperationKind.VERIFY, caller, "", {"snapshot": chosen})

    operation = await services.store.operation(await once(services, caller, take))
    assert operation is not None
    return operation


async def newest(services: Services, app: str, database: str) -> str | None:
    """The newest snapshot of the app whose file is here."""
    there = set(await services.snapshots.names())
    return next(
        (
            str(row["name"])
            for row in await services.store.snapshots(app)
            if row["database"] == database and row["name"] in there
        ),
        None,
    )


def verify_procedure(services: Services) -> Procedure:
    async def verify(run: Run) -> None:
        name = run.operation.params["snapshot"]
        snapshot = await services.snapshots.record(name)
        try:
            await services.verification.verify(snapshot, run.output.write)
        except (SnapshotDamaged, SnapshotMissing, NotPossible) as error:
            async with run.transaction() as transaction:
                await transaction.verified(name, {"ok": False, "code": error.code, "message": error.message})
            raise
        async with run.transaction() as transaction:
            await transaction.verified(name, {"ok": True, "code": "verified", "message": ""})
        run.state["result"] = {"name": name, "rows": snapshot.rows}

    return Procedure((Step("verify", verify),))


async def verify_unasked(services: Services) -> None:
    """Begin the verification of one app's newest snapshot that has none yet, where nothing else is going on there.

    One at a time on all servers: none begins while another one runs.
    """
    if any(operation.kind is OperationKind.VERIFY for operation in await services.store.active_operations()):
        return
    now = await services.store.now()
    for app in await services.source.apps():
        try:
            service = await service_of(services, app)
        except (NotPossible, InfraspecInvalid):
            continue
        name = await newest(services, app.name, service.database)
        if name is None or isinstance(
            admit(OperationKind.VERIFY, await services.store.active_operations(app.name)), Refuse
        ):
            continue
        row = next(row for row in await services.store.snapshots(app.name) if row["name"] == name)
        tried = row["verification"] is not None
        if tried and (row["verified_at"] is None or now - row["verified_at"] < _AGAIN_AFTER):
            continue  # a failed one is not tried again by itself: somebody has to look
        try:
            if (await services.snapshots.record(name)).database_bytes <= UNASKED_BYTES:
                await request_verification(services, app.name, name, _BY)
                return
        except (Busy, SnapshotMissing, SnapshotDamaged, Unavailable) as error:
            log.info("not_verified", app=app.name, snapshot=name, error=error.message)
