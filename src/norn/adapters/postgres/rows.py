"""Rows of the store as the domain's values."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from norn.domain.claims import Claim
from norn.domain.contents import Rewritten
from norn.domain.deployments import Deployment, Kind, Status
from norn.domain.operations import Operation, OperationKind, OperationStatus, StepRecord, StepStatus
from norn.domain.schema import StepLoss
from norn.domain.store import Event, Quarantine, Restore
from norn.domain.surroundings import DatabaseState, Noted, Surroundings

Row = Mapping[str, Any]
DEPLOYMENT_COLUMNS = tuple(field.name for field in fields(Deployment))


def to_deployment(row: Row) -> Deployment:
    values = {name: row[name] for name in DEPLOYMENT_COLUMNS}
    return Deployment(**values | {"kind": Kind(row["kind"]), "status": Status(row["status"])})


def to_step(row: Row) -> StepRecord:
    return StepRecord(
        row["ordinal"], row["step"], StepStatus(row["status"]), row["started_at"], row["finished_at"], row["output"]
    )


def to_operation(row: Row, steps: Sequence[Row] = ()) -> Operation:
    return Operation(
        id=row["id"],
        seq=row["seq"],
        app=row["app"],
        kind=OperationKind(row["kind"]),
        status=OperationStatus(row["status"]),
        params=row["params"],
        requested_by=row["requested_by"],
        reason=row["reason"],
        requested_at=row["requested_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        error=row["error"],
        result=row["result"] or (row["state"].get("result") if row["committed"] else None),
        cancel=row["cancel"],
        accepted=row["accepted"],
        committed=row["committed"],
        asks=row["asks"],
        confirmed=row["confirmed"],
        claims=row["claims"],
        steps=tuple(to_step(step) for step in steps),
    )


def to_claim(row: Row, steps: Sequence[Row]) -> Claim:
    return Claim(to_operation(row, steps), row["fence"], dict(row["state"]), row["undoing"])


def to_event(row: Row) -> Event:
    return Event(row["seq"], row["at"], row["app"], row["operation_id"], row["type"], row["data"])


def to_quarantine(row: Row) -> Quarantine:
    return Quarantine(
        row["image_tag"], row["digest"], row["commit_sha"], row["deployment_id"], row["why"], row["since"]
    )


def pack(value: Mapping[str, Any]) -> bytes:
    """Large JSON as the store keeps it: compressed."""
    return zlib.compress(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), 1)


def unpack(value: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(value))
    return found


def to_noted(row: Row) -> Noted:
    return Noted(
        row["deployment_id"],
        row["moment"],
        row["at"],
        row["database_id"],
        tuple(StepLoss.from_json(loss) for loss in row["losses"]),
        tuple(Rewritten.from_json(one) for one in row["rewritten"]),
        row["looked"],
    )


def to_surroundings(row: Row) -> Surroundings:
    database = DatabaseState.from_json(unpack(row["database"])) if row["database"] is not None else None
    return Surroundings(row["deployment_id"], row["moment"], row["at"], database, row["configuration"])


def to_restore(row: Row) -> Restore:
    return Restore(**{field.name: row[field.name] for field in fields(Restore)})


def to_change(row: Row) -> tuple[str, bool]:
    """As `Store.newest_change`."""
    return f"{row['newest']} ({row['under_way']})", row["under_way"] != ""
