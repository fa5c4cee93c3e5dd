"""The audit on PostgreSQL (the protocol is `norn.domain.ports.audit.Audit`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import LiteralString

from psycopg.types.json import Jsonb

from norn.adapters.postgres.connections import Connection, Connections
from norn.adapters.postgres.rows import Row
from norn.domain.audit import Entry, Outcome, Recorded, Who

_NEWEST = 2**63 - 1
_PAGE = 500

_ADD: LiteralString = """
INSERT INTO audit (actor, token, address, action, app, subject, reason, outcome, before, after)
SELECT actor, token, address, action, app, subject, reason, outcome, before, after
FROM jsonb_to_recordset(%(entries)s) AS given (actor text, token text, address text, action text, app text,
                                               subject text, reason text, outcome text, before jsonb, after jsonb)
"""
_NEWEST_FIRST: LiteralString = """
SELECT * FROM audit WHERE seq < %(before)s AND (%(apps)s::text[] IS NULL OR app = ANY (%(apps)s))
ORDER BY seq DESC LIMIT %(limit)s
"""
_OF_APP_NEWEST_FIRST: LiteralString = """
SELECT * FROM audit WHERE app = %(app)s AND seq < %(before)s ORDER BY seq DESC LIMIT %(limit)s
"""
_OLDEST_FIRST: LiteralString = """
SELECT * FROM audit WHERE seq > %(after)s AND (%(apps)s::text[] IS NULL OR app = ANY (%(apps)s))
ORDER BY seq LIMIT %(limit)s
"""


async def add_entries(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write them in the transaction that does what they tell of; nothing is waited for."""
    if entries:
        await connection.execute(_ADD, {"entries": Jsonb([entry.to_row() for entry in entries])})


def _to_recorded(row: Row) -> Recorded:
    entry = Entry(
        who=Who(row["actor"], row["token"], row["address"]),
        action=row["action"],
        subject=row["subject"],
        outcome=Outcome(row["outcome"]),
        app=row["app"],
        reason=row["reason"],
        before=row["before"],
        after=row["after"],
    )
    return Recorded(row["seq"], row["at"], entry)


class PostgresAudit:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def record(self, entry: Entry) -> None:
        async with self._connections.connection() as connection:
            await add_entries(connection, [entry])

    async def entries(self, apps: Collection[str] | None, before: int | None, limit: int) -> Sequence[Recorded]:
        below = _NEWEST if before is None else before
        if apps is not None and len(apps) == 1:  # by its index
            (app,) = apps
            rows = await self._connections.all(_OF_APP_NEWEST_FIRST, app=app, before=below, limit=limit)
        else:
            names = None if apps is None else list(apps)
            rows = await self._connections.all(_NEWEST_FIRST, apps=names, before=below, limit=limit)
        return [_to_recorded(row) for row in rows]

    async def all(self, apps: Collection[str] | None) -> AsyncIterator[Recorded]:
        after, names = 0, None if apps is None else list(apps)
        while True:
            rows = await self._connections.all(_OLDEST_FIRST, apps=names, after=after, limit=_PAGE)
            for row in rows:
                yield _to_recorded(row)
                after = row["seq"]
            if len(rows) < _PAGE:
                return
