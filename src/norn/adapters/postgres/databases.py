"""The apps' databases: each app gets one, and a role of its own that owns it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from norn.adapters.postgres.passwords import Passwords
from norn.adapters.postgres.sessions import Session, maintenance_url, session
from norn.domain.infraspec import PostgresService
from norn.domain.ports import AppDatabase, Output
from norn.domain.snapshot_names import NAME_BYTES
from norn.errors import NotPossible, Unavailable

_ALONE = 0x6E6F726E  # "norn", for pg_advisory_lock: one operation on a database at a time
_LOCK = 0x6E6F7264  # "nord", for pg_advisory_lock: databases are made one at a time


def role_of(app: str) -> str:
    """The role of an app: apps are DNS labels of at most 50 letters, so that the name fits and says whose it is."""
    return f"app_{app.replace('-', '_')}"[:NAME_BYTES]


class PostgresDatabases:
    """Makes databases on one server.

    Args:
        server_url: the URL of a role there that may make databases and roles; asked for each time, since it may have
            to be started.
        passwords: those of the apps' roles.
        apps_url: a URL of the same server as the apps reach it, where that is another one; only its host and port
            count.
    """

    def __init__(
        self, server_url: Callable[[], Awaitable[str]], passwords: Passwords, apps_url: str | None = None
    ) -> None:
        self._server_url = server_url
        self._passwords = passwords
        self._apps_url = apps_url

    async def ensure(self, app: str, service: PostgresService) -> AppDatabase:
        """The app's database; made, with its role, where it is missing.

        Raises:
            NotPossible: the database is there, and belongs to a role that is not this app's.
            Unavailable: the server does not answer.
        """
        if service.url is not None:
            return await self._given(app, service, service.url)
        server_url, role = await self._server_url(), role_of(app)
        password = await self._passwords.of(app)
        async with session(server_url) as connection:
            await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            await _ensure_role(connection, role, password)
            await _ensure_database(connection, service.database, role)
            version = connection.info.server_version
        url = _url(server_url, self._apps_url, service.database, role, password)
        return AppDatabase(app, service.database, url, make_conninfo(server_url, dbname=service.database), version)

    async def password(self, app: str) -> str:
        return await self._passwords.known(app)

    async def find(self, app: str, service: PostgresService) -> AppDatabase | None:
        """The app's database as it is; None where it was not made yet. Raises Unavailable."""
        if service.url is not None:
            return await self._given(app, service, service.url)
        server_url, role = await self._server_url(), role_of(app)
        async with session(server_url) as connection:
            cursor = await connection.execute("SELECT FROM pg_database WHERE datname = %s", (service.database,))
            if await cursor.fetchone() is None:
                return None
            version = connection.info.server_version
        url = _url(server_url, self._apps_url, service.database, role, await self._passwords.of(app))
        return AppDatabase(app, service.database, url, make_conninfo(server_url, dbname=service.database), version)

    async def _given(self, app: str, service: PostgresService, url: str) -> AppDatabase:
        """A database that somebody else looks after: used as it is."""
        async with session(url) as connection:
            name, version = connection.info.dbname, connection.info.server_version
        if name != service.database:
            raise NotPossible(
                f"services.postgres.url leads to the database {name!r}, services.postgres.database is "
                f"{service.database!r}.",
                hint="Make the two the same.",
            )
        return AppDatabase(app, name, url, url, version)

    async def end_sessions(self, database: AppDatabase, application_name: str) -> int:
        """End the sessions whose application's name begins so in that database; how many there were."""
        async with session(database.admin_url) as connection:
            cursor = await connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = %s AND starts_with(application_name, %s) AND pid <> pg_backend_pid()",
                (database.name, application_name),
            )
            return len(await cursor.fetchall())

    @asynccontextmanager
    async def alone(self, database: AppDatabase, output: Output) -> AsyncIterator[None]:
        """Holds an advisory lock, which ends with the session.

        Not a session in that database itself: it would be in the way of renaming it. Where the role may connect
        nowhere else, it is there all the same, and a restore says what is in its way.
        """
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(session(maintenance_url(database.admin_url)))
            except Unavailable:
                connection = await stack.enter_async_context(session(database.admin_url))
            which = (_ALONE, database.name)
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", which)
            row = await cursor.fetchone()
            if row is None or not row[0]:
                output(f"waiting for another operation on the database {database.name}\n")
                await connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", which)
            yield

    async def identity(self, url: str) -> str | None:
        """System identifier and database name; None where the server cannot be reached or does not say."""
        try:
            async with session(url) as connection:
                cursor = await connection.execute(
                    "SELECT system_identifier, current_database() FROM pg_control_system()"
                )
                row = await cursor.fetchone()
        except (Unavailable, psycopg.Error):
            return None
        return f"{row[0]}/{row[1]}" if row else None


async def _ensure_role(connection: Session, role: str, password: str) -> None:
    cursor = await connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
    verb = sql.SQL("CREATE ROLE") if await cursor.fetchone() is None else sql.SQL("ALTER ROLE")
    await connection.execute(
        sql.SQL("{} {} LOGIN PASSWORD {}").format(verb, sql.Identifier(role), sql.Literal(password))
    )


async def _ensure_database(connection: Session, name: str, role: str) -> None:
    cursor = await connection.execute(
        "SELECT pg_get_userbyid(datdba), has_database_privilege(%s, oid, 'CONNECT'), "
        "pg_has_role(%s, datdba, 'USAGE') FROM pg_database WHERE datname = %s",
        (role, role, name),
    )
    row = await cursor.fetchone()
    if row is None:
        database, owner = sql.Identifier(name), sql.Identifier(role)
        if connection.info.parameter_status("is_superuser") != "on":
            await connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(owner))
        await connection.execute(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(database, owner))
        await connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(database))
        return
    owner_name, may_connect, _is_owner = row
    if not may_connect:
        raise NotPossible(
            f"The database {name!r} is there already, belongs to {owner_name!r}, and {role!r} may not connect to it.",
            hint=f"Give the app another services.postgres.database, or: GRANT {owner_name} TO {role}.",
        )


def _url(server_url: str, apps_url: str | None, database: str, role: str, password: str) -> str:
    """What the app gets as DATABASE_URL, in the form that every driver reads."""
    ours: dict[str, Any] = conninfo_to_dict(server_url)
    theirs: dict[str, Any] = conninfo_to_dict(apps_url) if apps_url else {}
    host = theirs.get("host") or ours.get("host") or "127.0.0.1"
    port = theirs.get("port") or ours.get("port") or os.environ.get("PGPORT") or 5432
    shown = f"[{host}]" if ":" in str(host) else host
    return f"postgresql://{role}:{password}@{shown}:{port}/{quote(database, safe='')}"
