"""Connections to Norn's own database: a pool, and one that listens."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from norn.errors import DatabaseUnavailable

_OUTDATED = "RevalidateCachedQuery"
"""Where PostgreSQL refuses a prepared `SELECT *` whose table has got another column since, in whatever language."""
_TRUSTED_S = 1.0
"""A connection that was in use so recently is handed out unchecked."""


class Connection(psycopg.AsyncConnection[dict[str, Any]]):
    used_at = -math.inf


Cursor = psycopg.AsyncCursor[dict[str, Any]]


async def _note_use(connection: Connection) -> None:
    """Raises OperationalError, and the pool closes it, where it was left in pipeline mode.

    So it is after a cancellation that came as psycopg was leaving that mode. The next statement in it would be carried
    out and answered, but never committed, and would keep its locks.
    """
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise psycopg.OperationalError("a transaction was cancelled, and has left the connection in pipeline mode")
    connection.used_at = time.monotonic()


async def _check(connection: Connection) -> None:
    if time.monotonic() - connection.used_at > _TRUSTED_S:
        await AsyncConnectionPool.check_connection(connection)


_OPTIONS = "-c timezone=UTC -c idle_in_transaction_session_timeout=60s -c lock_timeout=20s"
_CONNECT_TIMEOUT_S = 5
_CHECKOUT_TIMEOUT_S = 6.0


class Connections:
    """A pool whose every failure to reach the database is DatabaseUnavailable."""

    def __init__(self, url: str, *, size: int = 10) -> None:
        self._url = url
        self._kwargs: dict[str, Any] = {
            "autocommit": True,
            "row_factory": dict_row,
            "options": _OPTIONS,
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "tcp_user_timeout": 10_000,
            "application_name": "norn",
        }
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=2,
            max_size=size,
            open=False,
            timeout=_CHECKOUT_TIMEOUT_S,
            reconnect_timeout=2.0,
            connection_class=Connection,
            kwargs=self._kwargs,
            check=_check,
            reset=_note_use,
        )

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close(timeout=2)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit mode. Raises DatabaseUnavailable where there is none, or it breaks in between."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise DatabaseUnavailable(f"Norn's database does not answer: {error}".strip()) from error
        except psycopg.errors.FeatureNotSupported as error:
            if error.diag.source_function != _OUTDATED:
                raise
            await self._pool.drain()
            raise DatabaseUnavailable("A newer Norn has just changed the schema of Norn's database.") from error

    async def all(self, query: LiteralString, **values: Any) -> list[dict[str, Any]]:
        """The rows of one statement, which commits by itself."""
        async with self.connection() as connection:
            cursor = await connection.execute(query, values)
            return await cursor.fetchall()

    async def do(self, query: LiteralString, **values: Any) -> None:
        """One statement without an answer."""
        async with self.connection() as connection:
            await connection.execute(query, values)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Statements are sent without waiting for the answers to those before, until one is asked for (libpq's pipeline
        mode): a statement that fails may raise where a later one is fetched, or at the end.
        """
        async with self.connection() as connection, connection.pipeline(), connection.transaction():
            yield connection

    async def dedicated(self) -> Connection:
        """A connection outside the pool, to listen on; the caller closes it."""
        try:
            return await Connection.connect(self._url, **self._kwargs)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(f"Norn's database does not answer: {error}".strip()) from error
