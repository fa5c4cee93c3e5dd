"""Read-only looks into a database: every statement has an end, no lock is kept, and values have one text form."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.rows import TupleRow

from norn.adapters.postgres.sessions import CONNECT_TIMEOUT_S, Session, unavailable, unnoticed
from norn.adapters.snapshots.text_form import TEXT_FORM

_CATALOG_TIMEOUT_S = 60.0
_LOCK_TIMEOUT = "2s"
_A = TypeVar("_A")
_B = TypeVar("_B")
Query = sql.SQL | sql.Composed

_SETTINGS = TEXT_FORM | {
    "search_path": "",
    "lock_timeout": _LOCK_TIMEOUT,
    # The snapshot is kept while the other side is read.
    "idle_in_transaction_session_timeout": "0",
}


class TookTooLong(Exception):
    """A table's time is over."""


class Deadline:
    """The time that one table may take, over all its statements."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left_ms(self) -> int:
        """At least 1. Raises TookTooLong when it is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TookTooLong
        return max(1, int(left * 1000))


class Reader:
    """A connection with one REPEATABLE READ, READ ONLY transaction."""

    def __init__(self, connection: Session) -> None:
        self._connection = connection

    @asynccontextmanager
    async def part(self) -> AsyncIterator[None]:
        """What fails in it leaves the transaction usable, and the locks taken in it end with it.

        So a migration never waits for more than the table that is being read.
        """
        async with self._connection.transaction(force_rollback=True):
            yield

    async def rows(self, query: Query, deadline: Deadline | None = None) -> list[TupleRow]:
        """All rows. Raises psycopg.Error, TookTooLong."""
        if deadline is not None:
            await self._limit(deadline)
        # No parameters: with some, a `%` in the name of a table would be taken for another.
        cursor = await self._connection.execute(query)
        return await cursor.fetchall()

    async def one(self, query: Query, deadline: Deadline | None = None) -> TupleRow:
        """The only row. Raises psycopg.Error, TookTooLong."""
        (row,) = await self.rows(query, deadline)
        return row

    async def batches(self, query: Query, size_bytes: int, deadline: Deadline) -> AsyncGenerator[list[TupleRow], None]:
        """Rows, at least one at a time and otherwise so many that their `bytes` values are about as long as that.

        Raises psycopg.Error, TookTooLong.
        """
        await self._limit(deadline)
        async with self._connection.cursor(name="norn_batches") as cursor:
            await cursor.execute(query, binary=True)
            size = 16
            while rows := await cursor.fetchmany(size):
                yield rows
                deadline.left_ms()
                length = sum(len(value) for row in rows for value in row if isinstance(value, bytes))
                size = max(1, min(4 * size, len(rows) * size_bytes // max(1, length)))

    async def set(self, name: str, value: str) -> None:
        """A setting, until the `part` ends."""
        await self._connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, value))

    async def _limit(self, deadline: Deadline) -> None:
        await self.set("statement_timeout", str(deadline.left_ms()))


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Reader]:
    """A reader of that database, in a snapshot of its own.

    Raises Unavailable: the database cannot be reached, or the connection broke.
    """
    try:
        async with await psycopg.AsyncConnection.connect(
            url,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="norn",
            client_encoding="utf8",
            prepare_threshold=None,  # a pooler may be in between
        ) as connection:
            await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            await connection.set_read_only(True)
            reader = Reader(connection)
            # Within the transaction, since a pooler may hand the session to somebody else after it.
            for name, value in (_settings(connection.info.server_version) | unnoticed(connection)).items():
                await reader.set(name, value)
            yield reader
            await connection.rollback()
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise unavailable(error, url) from None


def _settings(server_version: int) -> dict[str, str]:
    more = {"statement_timeout": f"{_CATALOG_TIMEOUT_S:g}s"}
    if server_version >= 170000:
        more["transaction_timeout"] = "0"
    return _SETTINGS | more


async def both(first: Awaitable[_A], second: Awaitable[_B]) -> tuple[_A, _B]:
    """Both beside each other; where one fails the other is waited for, so that no connection is left in use."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(other, BaseException):
        raise other
    return one, other
