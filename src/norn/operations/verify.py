"""Verify: a test restore of a snapshot, by hand and, of each app's newest one, unasked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from norn.domain.audit import Asked
from norn.domain.operations import Operation, OperationKind
from norn.errors import Busy, InfraspecInvalid, NotPossible, SnapshotDamaged, SnapshotMissing, Unavailable
from norn.operations.app_databases import service_of, snapshot_of
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.services import Caller, Services, once_operation, take_alone

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
        row = await newest(services, app.name, service.database) if name is None else {"name": name}
        if row is None:
            raise SnapshotMissing(f"{app.name} has no snapshot.", hint=f"`norn snapshots create {app.name}`")
        snapshot = await snapshot_of(services, app.name, service.database, row["name"])
        return await take_alone(services, app.name, OperationKind.VERIFY, caller, "", {"snapshot": snapshot.name})

    return await once_operation(services, caller, Asked.request(OperationKind.VERIFY, app_name, name or ""), take)


async def newest(services: Services, app: str, database: str) -> Mapping[str, Any] | None:
    """What the store knows of the newest snapshot of the app whose file is here."""
    there = set(await services.snapshots.names())
    rows = await services.store.snapshots(app)
    return next((row for row in rows if row["database"] == database and row["name"] in there), None)


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
    active = await services.store.active_operations()
    if any(operation.kind is OperationKind.VERIFY for operation in active):
        return
    busy, now = {operation.app for operation in active}, await services.store.now()
    for app in await services.source.apps():
        if app.name in busy:
            continue
        try:
            service = await service_of(services, app)
        except (NotPossible, InfraspecInvalid):
            continue
        row = await newest(services, app.name, service.database)
        if row is None or not due(row["verification"], row["verified_at"], now):
            continue
        try:
            if (await services.snapshots.record(row["name"])).database_bytes <= UNASKED_BYTES:
                await request_verification(services, app.name, row["name"], _BY)
                return
        except (Busy, SnapshotMissing, SnapshotDamaged, Unavailable) as error:
            log.info("not_verified", app=app.name, snapshot=row["name"], error=error.message)


def due(last: Mapping[str, Any] | None, succeeded_at: datetime | None, now: datetime) -> bool:
    """Whether a snapshot is to be verified unasked: never tried, or a week ago with success.

    One that failed the last time is not tried again by itself: somebody has to look.
    """
    if last is None:
        return True
    return bool(last["ok"]) and succeeded_at is not None and now - succeeded_at >= _AGAIN_AFTER
