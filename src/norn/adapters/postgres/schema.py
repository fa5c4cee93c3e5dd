"""Norn's own database: made where it is missing, and brought to the schema of this version, once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from norn.errors import DatabaseUnavailable, ServerNotStarted

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6E6F726E  # "norn", for pg_advisory_lock


def newest_revision() -> str:
    """The revision that this version of Norn works with: the files are numbered."""
    return max(path.name for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def _present_revision(connection: psycopg.Connection) -> str | None:
    exists = connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone()
    if exists is None or not exists[0]:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def migrate(url: str) -> str:
    """Apply what is missing, under an advisory lock; returns the revision that is there now. Blocks: call in a thread.

    Raises:
        DatabaseUnavailable: the database does not answer.
        ServerNotStarted: a newer Norn has been at this database.
    """
    newest = newest_revision()
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            if _present_revision(connection) == newest:
                return newest
            connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            present = _present_revision(connection)  # another server may have done it while we waited
            if present is not None and present > newest:
                raise ServerNotStarted(
                    f"Norn's database has schema {present}, this version works with {newest}.",
                    hint="Run the newer Norn that has been at this database.",
                )
            if present != newest:
                _upgrade(url)
            return newest
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"Norn's database does not answer: {error}".strip()) from error


def _upgrade(url: str) -> None:
    # Imported here: nearly every start finds the schema as it should be, and these take a quarter of a second.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, pool

    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(url, connect_timeout=10), poolclass=pool.NullPool
    )
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        connection.exec_driver_sql("SET lock_timeout = '30s'")
        connection.commit()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    engine.dispose()


async def ensure_database(server_url: str, name: str) -> str:
    """The URL of a database on an embedded server; made where it is missing."""
    async with await psycopg.AsyncConnection.connect(server_url, autocommit=True, connect_timeout=10) as connection:
        cursor = await connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        if await cursor.fetchone() is None:
            with contextlib.suppress(psycopg.errors.DuplicateDatabase):
                await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return make_conninfo(server_url, dbname=name)
