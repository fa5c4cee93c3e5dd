"""The data that belongs to a version: the snapshot to be restored with it, and what restoring takes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog

from norn.domain.deployments import Deployment, Kind, Status, rfc3339
from norn.domain.loss import Loss
from norn.domain.operations import Operation, OperationKind, StepStatus
from norn.domain.ports import AppDatabase, Moment
from norn.domain.retention import StoredSnapshot, way_back
from norn.domain.snapshots import Snapshot
from norn.domain.store import Restore
from norn.domain.targets import LiveVersion
from norn.errors import NotPossible, SnapshotMissing, Unavailable
from norn.operations.app_databases import database_of, snapshot_of
from norn.operations.restore import make_sure_of_room, make_sure_of_swap
from norn.operations.services import Services

log = structlog.get_logger(__name__)

_HISTORY = 1_000
_USUAL_START_S = 10.0
"""Of a version of which no rollout is on record."""
_COUNT_S, _LOOK_S = 2.0, 5.0
"""For counting what would be lost; with what comes before it."""
_STOP_S = 2.0
"""For the app to end, and for the swap."""


@dataclass(frozen=True, slots=True)
class WayBack:
    """What is put in the live database's place together with a version."""

    snapshot: str | None
    """None: the database that a restore has put aside."""
    undoes: str | None
    """The restore that is taken back."""
    taken_at: datetime
    downtime_s: float
    """As far as it can be known beforehand."""
    size_bytes: int | None = None
    verified_at: datetime | None = None
    loss: Loss | None = None
    """What it would lose, counted without a copy; only where somebody wants to know no more than that."""

    def params(self, *, confirm: bool) -> dict[str, Any]:
        """Of the operation that carries it out."""
        return {
            "withData": True,
            "snapshot": self.snapshot,
            "undo": self.undoes,
            "into": None,
            "confirm": confirm,
            "downtimeS": round(self.downtime_s, 1),
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "snapshot": self.snapshot,
            "undoes": self.undoes,
            "takenAt": rfc3339(self.taken_at),
            "sizeBytes": self.size_bytes,
            "verifiedAt": rfc3339(self.verified_at),
            "expectedDowntimeS": round(self.downtime_s, 1),
        } | ({"loss": self.loss.to_json(), "lossText": self.loss.text()} if self.loss is not None else {})


async def stored_snapshots(services: Services, app: str) -> dict[str, Mapping[str, Any]]:
    """What the store says of the app's snapshots whose files are there, by name."""
    names = set(await services.snapshots.names())
    return {row["name"]: row for row in await services.store.snapshots(app) if row["name"] in names}


def for_retention(rows: Mapping[str, Mapping[str, Any]]) -> list[StoredSnapshot]:
    """The same, as retention looks at them."""
    return [StoredSnapshot(name, row["taken_at"], row["operation_id"], row["kept"]) for name, row in rows.items()]


async def data_of(services: Services, app: str, version: Deployment) -> str | None:
    """The snapshot that a rollback with data to that version would restore now."""
    history = await services.store.deployments(app=app, limit=_HISTORY)
    return way_back(version.digest or "", history, for_retention(await stored_snapshots(services, app)))


async def find_way_back(
    services: Services,
    app_name: str,
    target: Deployment,
    affects: Sequence[str],
    *,
    stopped: Operation | None = None,
    before: datetime | None = None,
    count: bool = False,
) -> WayBack:
    """The snapshot with the data as the target left it, all checked that can be checked before it is restored.

    `stopped` is the deploy in the way that has not rolled out: then it is the one that this deploy took. `before`:
    only one that was taken before that moment. `count`: what would be lost, too, in a few seconds. Raises
    SnapshotMissing, SnapshotDamaged, NotPossible, SharedDatabase, NoRoom.
    """
    app = await services.source.app(app_name)
    database = await database_of(services, app.name)
    await make_sure_of_swap(services, app, database, affects)
    rows = await stored_snapshots(services, app.name)
    if stopped is not None:
        name = next((name for name, row in rows.items() if row["operation_id"] == stopped.id), None)
        if name is None:
            raise NotPossible(
                f"The deploy in the way ({stopped.id}) has taken no snapshot, so there is nothing to restore.",
                hint=f"`norn rollback {app.name}` stops it. Unless it was told to take none, no data is changed yet.",
            )
    else:
        history = await services.store.deployments(app=app.name, limit=_HISTORY)
        name = way_back(target.digest or "", history, for_retention(rows), before=before)
        if name is None:
            raise SnapshotMissing(
                f"There is no snapshot with the data as {target.image_tag} left it: no deploy has taken one while it "
                "was live, or retention has removed it.",
                hint=f"`norn rollback {app.name}` brings the code back alone; `norn snapshots list {app.name}` shows "
                "what there is.",
            )
    snapshot = await snapshot_of(services, app.name, database.name, name)
    await make_sure_of_room(services, database, snapshot)
    row = rows[name]
    downtime_s = await _downtime_s(services, target)
    back = WayBack(name, None, row["taken_at"], downtime_s, row["size_bytes"], row["verified_at"])
    if not count:
        return back
    return replace(back, loss=await _lost(services, database, snapshot))


async def _lost(services: Services, database: AppDatabase, snapshot: Snapshot) -> Loss | None:
    """What going back to a snapshot would lose, as far as it is known in a few seconds; None where nothing is known."""
    try:
        async with asyncio.timeout(_LOOK_S):
            moment = Moment(snapshot.anchor, snapshot.own_tables)
            return await services.restores.loss_since(database, moment, budget_s=_COUNT_S)
    except (TimeoutError, Unavailable) as error:
        log.info("loss_not_counted", snapshot=snapshot.name, error=str(error))
        return None  # it only informs: the plan is one all the same


async def taken_back(services: Services, app_name: str, restore: Restore, affects: Sequence[str]) -> WayBack:
    """What was live before a restore. Raises SharedDatabase, NotPossible."""
    app = await services.source.app(app_name)
    database = await database_of(services, app.name)
    await make_sure_of_swap(services, app, database, affects)
    before = await services.store.deployment(restore.id)
    downtime_s = await _downtime_s(services, before) if before is not None else _USUAL_START_S + _STOP_S
    return WayBack(None, restore.id, restore.restored_at, downtime_s)


async def _downtime_s(services: Services, deployment: Deployment) -> float:
    """As long as it took to start when it was rolled out, and what the stop before it takes."""
    operation = await services.store.operation(deployment.id)
    for step in reversed(operation.steps if operation is not None else ()):
        if (
            step.step in ("deploy", "rollout", "start")
            and step.status is StepStatus.DONE
            and step.finished_at is not None
        ):
            return (step.finished_at - step.started_at).total_seconds() + _STOP_S
    return _USUAL_START_S + _STOP_S


async def back_without_data(
    services: Services, live: LiveVersion | None, active: Sequence[Operation]
) -> Deployment | None:
    """The version that a rollback of the code alone has gone to, or is about to: what is missing is its data."""
    for operation in active:
        if operation.kind is OperationKind.ROLLBACK and not operation.params.get("withData"):
            going = await services.store.deployment(operation.id)
            return await services.store.deployment((going.target_deployment_id if going else None) or "")
    now = live.deployment if live is not None else None
    if now is None or now.kind is not Kind.ROLLBACK or now.from_deployment_id is None:
        return None
    replaced = await services.store.deployment(now.from_deployment_id)
    if replaced is None or replaced.status is not Status.ROLLED_BACK:
        return None  # it has gone forward
    since = now.live_from or now.requested_at
    restored = any(
        restore.restored_at >= since and restore.undoes is None and restore.undone_by is None
        for restore in await services.store.restores(now.app)
    )
    return None if restored else now
