"""The outbox of notifications on PostgreSQL (the protocol is `norn.domain.ports.notifications.Outbox`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from psycopg.types.json import Json

from norn.adapters.postgres import notification_queries as queries
from norn.adapters.postgres.connections import Connection, Connections
from norn.adapters.postgres.rows import Row
from norn.domain.notifications import Ending, Judgement, Result, event_of, notification_id, payload_of
from norn.domain.operations import OperationKind, OperationStatus
from norn.domain.ports.notifications import Delivery, Unaddressed


async def ending_of(connection: Connection, operation_id: str) -> Ending:
    """How an operation has ended, as the transaction sees it that ends it."""
    cursor = await connection.execute(queries.ENDED, {"id": operation_id})
    row = await cursor.fetchone()
    assert row is not None
    return _to_ending(row)


async def note_end(connection: Connection, ending: Ending) -> None:
    """Put the notification of an operation's end into the outbox, in the transaction that ends it."""
    event = event_of(ending)
    if event is None:
        return
    values = {
        "id": notification_id(ending),
        "operation_id": ending.operation_id,
        "app": ending.app,
        "event": event.value,
        "at": ending.at,
        "payload": Json(payload_of(event, ending)),
    }
    await connection.execute(queries.ADD, values)


def _to_ending(row: Row) -> Ending:
    return Ending(
        operation_id=row["id"],
        app=row["app"],
        kind=OperationKind(row["kind"]),
        status=OperationStatus(row["status"]),
        committed=row["committed"],
        automatic=row["params"].get("automatic") is True,
        at=row["finished_at"],
        requested_by=row["requested_by"],
        reason=row["reason"],
        error=row["error"],
        image_tag=row["image_tag"],
        from_image_tag=row["from_image_tag"],
        verdict=row["verdict"],
    )


class PostgresOutbox:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def unaddressed(self, limit: int) -> Sequence[Unaddressed]:
        return [Unaddressed(**row) for row in await self._connections.all(queries.UNADDRESSED, limit=limit)]

    async def address(self, id_: str, urls: Sequence[str]) -> None:
        await self._connections.do(queries.ADDRESS, id=id_, urls=list(urls), pause_s=None, why="")

    async def address_later(self, id_: str, urls: Sequence[str], pause_s: float | None, why: str) -> None:
        await self._connections.do(queries.ADDRESS, id=id_, urls=list(urls), pause_s=pause_s, why=why)

    async def claim(self, claim_s: float, limit: int) -> Sequence[Delivery]:
        return [Delivery(**row) for row in await self._connections.all(queries.CLAIM, claim_s=claim_s, limit=limit)]

    async def settle(self, delivery: Delivery, judgement: Judgement) -> None:
        await self._connections.do(
            queries.SETTLE,
            id=delivery.notification_id,
            url=delivery.url,
            attempt=delivery.attempt,
            delivered=judgement.result is Result.DELIVERED,
            pause_s=judgement.pause_s,
            error=judgement.error,
        )

    async def next_due_s(self) -> float | None:
        (row,) = await self._connections.all(queries.NEXT_DUE)
        seconds: float | None = row["seconds"]
        return seconds

    async def recent(self, limit: int, apps: Collection[str] | None = None) -> Sequence[Mapping[str, Any]]:
        named = None if apps is None else list(apps)
        return await self._connections.all(queries.RECENT, limit=limit, apps=named)
