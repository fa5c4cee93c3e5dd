"""Sessions with the apps' databases, and how PostgreSQL's own programs are told where to connect."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from norn.errors import Unavailable

CONNECT_TIMEOUT_S = 10
_MAINTENANCE = "postgres"
_ENVIRONMENT = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "user": "PGUSER",
                "password": "PGPASSWORD", "dbname": "PGDATABASE", "sslmode": "PGSSLMODE",
                "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip

Session = psycopg.AsyncConnection[TupleRow]


@asynccontextmanager
async def session(url: str, name: str = "norn") -> AsyncIterator[Session]:
    """A session in autocommit mode, without the time-outs and the search path that database or role may set.

    Raises Unavailable where the server does not answer, or no longer does.
    """
    try:
        async with await psycopg.AsyncConnection.connect(
            url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name=name
        ) as connection:
            await connection.execute(
                "SELECT pg_catalog.set_config('search_path', '', false), pg_catalog.set_config(name, '0', false) "
                "FROM pg_catalog.pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout', "
                "'idle_in_transaction_session_timeout', 'idle_session_timeout')"
            )
            yield connection
    except psycopg.OperationalError as error:
        raise unavailable(error, url) from None


def unnoticed(connection: psycopg.AsyncConnection[TupleRow]) -> dict[str, str]:
    """Settings with which reading a table does not count as use of it; only superusers may say so."""
    return {"track_counts": "off"} if connection.info.parameter_status("is_superuser") == "on" else {}


def unavailable(error: psycopg.Error, url: str) -> Unavailable:
    """For a server that cannot be reached, or whose connection broke."""
    return Unavailable(
        f"The apps' PostgreSQL does not answer: {_without_password(str(error), url)}",
        hint="Look at NORN_POSTGRES_URL, or at services.postgres.url of the app.",
    )


def maintenance_url(url: str) -> str:
    """The same server and role, in the database where sessions are in nobody's way."""
    return make_conninfo(url, dbname=_MAINTENANCE)


def in_database(url: str, name: str) -> str:
    return make_conninfo(url, dbname=name)


def client_environment(url: str) -> dict[str, str]:
    """For pg_dump and pg_restore: other users see a program's arguments, but not its environment."""
    info = conninfo_to_dict(url)
    return {_ENVIRONMENT[key]: str(value) for key, value in info.items() if key in _ENVIRONMENT and value is not None}


def _without_password(text: str, url: str) -> str:
    """What libpq says, on one line and without the password."""
    with contextlib.suppress(psycopg.ProgrammingError):
        password = conninfo_to_dict(url).get("password")
        if password:
            text = text.replace(str(password), "***")
    return " ".join(text.split())
