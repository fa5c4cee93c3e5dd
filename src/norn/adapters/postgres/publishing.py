"""What a transaction publishes with its commit: events, notifications, and what goes into the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from norn.adapters.postgres import queries
from norn.adapters.postgres.audit import add_entries
from norn.adapters.postgres.connections import Connection, Cursor
from norn.adapters.postgres.rows import DEPLOYMENT_COLUMNS
from norn.domain import audit
from norn.domain.audit import Entry, Outcome, Who
from norn.domain.operations import OperationKind

_JSON_COLUMNS = {"template", "target", "verdict", "error", "workload"}


def to_json(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(value)


def to_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    unknown = values.keys() - set(DEPLOYMENT_COLUMNS)
    if unknown:
        raise ValueError(f"deployments have no column {', '.join(sorted(unknown))}")
    return {name: to_json(value) if name in _JSON_COLUMNS else value for name, value in values.items()}


class Publishing:
    """Collects the events of a transaction; they get their numbers last, so that the lock on them is held briefly.

    What it does is written into the audit with the same commit.
    """

    _live_tag: str | None = None
    _added: Cursor | None = None

    def __init__(self, connection: Connection, app: str, who: Who | None = None) -> None:
        self._connection = connection
        self._app = app
        self._who = who
        self._entries: dict[str, Entry] = {}
        """By what they are about."""
        self._events: list[dict[str, Any]] = []
        self._payloads: list[str] = []

    def _publish(self, type_: str, operation_id: str | None, data: Mapping[str, Any]) -> None:
        self._events.append({"operation_id": operation_id, "type": type_, "data": data})

    def _notify(self, payload: str) -> None:
        self._payloads.append(payload)

    def _did(self, by: str, action: str, subject: str, reason: str = "", **facts: Any) -> None:
        """Something for the audit, besides requests and ends."""
        who = self._who or Who(by)
        self._entries[f"{action} {subject}"] = Entry(who, action, subject, Outcome.DONE, self._app, reason, **facts)

    def _requested(
        self, operation_id: str, kind: OperationKind, params: Mapping[str, Any], requested_by: str, reason: str
    ) -> None:
        who = self._who or Who(requested_by)
        entry = audit.request(who, operation_id, self._app, kind.value, params, reason, self._live_tag)
        self._entries[operation_id] = entry

    async def flush(self) -> None:
        """Number and insert the events; the last thing before the commit."""
        await add_entries(self._connection, list(self._entries.values()))
        if self._events:
            values = {"app": self._app, "events": Jsonb(self._events), "payloads": [*self._payloads, "events"]}
            await self._connection.execute(queries.PUBLISH, values)
        elif self._payloads:
            await self._connection.execute(queries.NOTIFY, {"payloads": self._payloads})

    async def _publish_deployment(self, deployment_id: str) -> None:
        cursor = await self._connection.execute(queries.DEPLOYMENT_EVENT, {"id": deployment_id})
        row = await cursor.fetchone()
        if row is not None:
            self._publish_columns(row)

    def _publish_columns(self, columns: Mapping[str, Any]) -> None:
        data = {name: columns[name] for name in ("id", "kind", "status")} | {"imageTag": columns["image_tag"]}
        self._publish("deployment", columns["id"], data)

    async def lift_quarantine(self, image_tag: str, digest: str | None, by: str) -> None:
        values = {"app": self._app, "image_tag": image_tag, "digest": digest}
        cursor = await self._connection.execute(queries.LIFT_QUARANTINE, values)
        if await cursor.fetchone() is not None:
            self._publish("quarantine", None, {"imageTag": image_tag, "lifted": True, "by": by})
            self._did(by, "quarantine.lift", image_tag)

    def _publish_queued(self, operation_id: str, kind: OperationKind) -> None:
        self._publish("operation", operation_id, {"id": operation_id, "kind": kind.value, "status": "queued"})
        self._notify("operations")

    async def add_deployment(self, deployment_id: str, **columns: Any) -> None:
        values = to_columns({"id": deployment_id, "app": self._app} | columns)
        if (entry := self._entries.get(deployment_id)) is not None:
            self._entries[deployment_id] = audit.with_image(entry, columns["image_tag"], columns.get("from_image_tag"))
        # A deploy is its own origin: its number is only known here.
        names = [*values, "origin_seq"] if "origin_seq" not in values else list(values)
        own = sql.SQL("currval(pg_get_serial_sequence('deployments', 'seq'))")
        self._added = await self._connection.execute(
            sql.SQL("INSERT INTO deployments ({}) VALUES ({}) RETURNING *").format(
                sql.SQL(", ").join(map(sql.Identifier, ["seq", *names])),
                sql.SQL(", ").join(
                    [sql.SQL("DEFAULT"), *(sql.Placeholder(name) if name in values else own for name in names)]
                ),
            ),
            values,
        )
        self._publish_columns(values)
