"""Test restores: on a server of their own, so that a snapshot is known to be good before it is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from norn.adapters.accounts import for_database
from norn.adapters.postgres.clients import installations
from norn.adapters.postgres.embedded import EmbeddedPostgres
from norn.adapters.postgres.sessions import Session, in_database, maintenance_url, session
from norn.adapters.snapshots.archives import restore_anew
from norn.adapters.snapshots.dumps import DumpSnapshots
from norn.adapters.snapshots.properties import create
from norn.adapters.snapshots.restores import SESSION_SETTINGS, check_contents
from norn.domain.ports import Output
from norn.domain.snapshots import Snapshot
from norn.errors import NotPossible, ProgramFailed, SnapshotDamaged

_DATABASE = "norn_verification"
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "4GB"}
"""Nothing on it is needed any longer than the test."""


class ScratchVerification:
    """The protocol `Verification`.

    Args:
        url: of a superuser on a server for this alone (NORN_SCRATCH_POSTGRES_URL); None: an embedded one is started
            for the time of the test.
        home: where embedded ones have their files.
    """

    def __init__(self, snapshots: DumpSnapshots, url: str | None, home: Path) -> None:
        self._snapshots = snapshots
        self._url = url
        self._home = home

    async def verify(self, snapshot: Snapshot, output: Output) -> None:
        await self._snapshots.check(snapshot, output)
        output("its hash is right, and it can be read to its end\n")
        async with self._server(snapshot.major) as url, session(maintenance_url(url)) as connection:
            await _make_sure_of_extensions(connection, snapshot)
            await _make_roles(connection, snapshot)
            try:
                await self._try_out(connection, url, snapshot, output)
            except ProgramFailed as failed:
                raise SnapshotDamaged(
                    f"A test restore of {snapshot.name} failed: {failed.message}", **failed.facts
                ) from failed
            finally:
                await _drop(connection)

    async def _try_out(self, connection: Session, url: str, snapshot: Snapshot, output: Output) -> None:
        async def make() -> None:
            await _drop(connection)
            try:
                await create(connection, _DATABASE, snapshot.locale)
            except psycopg.errors.Error as error:
                why = error.diag.message_primary
                raise NotPossible(
                    f"A database like {snapshot.database} cannot be made on the scratch server: {why}.",
                    hint="Set NORN_SCRATCH_POSTGRES_URL to a server that knows its locale.",
                ) from error

        place = in_database(url, _DATABASE)
        output("restoring it on the scratch server\n")
        archive = self._snapshots.path(snapshot.name)
        await restore_anew(make, archive, place, snapshot.major, SESSION_SETTINGS, output, "--no-tablespaces")
        wrong = await check_contents(place, snapshot)
        if wrong:
            raise SnapshotDamaged(f"What came out of {snapshot.name} is not what went in: {wrong}.")
        output(f"{len(snapshot.tables)} tables with {snapshot.rows:,} rows came back\n")

    @asynccontextmanager
    async def _server(self, major: int) -> AsyncIterator[str]:
        """The URL of a superuser on a scratch server of that major version. Raises NotPossible."""
        if self._url is not None:
            async with session(self._url) as connection:
                found = connection.info.server_version // 10_000
            if found != major:
                raise NotPossible(
                    f"NORN_SCRATCH_POSTGRES_URL leads to PostgreSQL {found}, the snapshot is of PostgreSQL {major}.",
                    hint="A test restore wants the same major version.",
                )
            yield self._url
            return
        if major not in installations():
            raise NotPossible(
                f"There is no server of PostgreSQL {major} here for a test restore.",
                hint=f"apt-get install postgresql-{major}, or set NORN_SCRATCH_POSTGRES_URL.",
            )
        server = EmbeddedPostgres(
            self._home / f"scratch-{major}", account=for_database(), major=major, settings=_SETTINGS
        )
        try:
            yield await server.start()
        finally:
            await server.stop()


async def _make_sure_of_extensions(connection: Session, snapshot: Snapshot) -> None:
    cursor = await connection.execute("SELECT name FROM pg_available_extensions")
    there = {row[0] async for row in cursor}
    wanted = {label.removeprefix("extension ") for label in snapshot.catalog if label.startswith("extension ")}
    missing = sorted(name for name in wanted if name.strip('"') not in there)
    if missing:
        raise NotPossible(
            f"The scratch server does not have {', '.join(missing)}, which the snapshot needs.",
            hint="Set NORN_SCRATCH_POSTGRES_URL to a server with the same extensions.",
        )


async def _make_roles(connection: Session, snapshot: Snapshot) -> None:
    """Of the same names, without any right: the dump gives and grants to them."""
    cursor = await connection.execute("SELECT rolname FROM pg_roles")
    there = {row[0] async for row in cursor}
    for role in snapshot.roles:
        if role not in there:
            await connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))


async def _drop(connection: Session) -> None:
    await connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_DATABASE)))
