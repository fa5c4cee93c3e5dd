"""Restores beside the live database, and the swap: two renames in one transaction, old sessions ended meanwhile.

Nothing here writes to the live database. What fails before the swap's commit leaves it as it was; what comes after has
its former contents beside it, under another name.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from norn.adapters.postgres.clients import find_client
from norn.adapters.postgres.sessions import Session, in_database, maintenance_url, session
from norn.adapters.snapshots.archives import RESTORE_APPLICATION, restore_anew, sha256_of
from norn.adapters.snapshots.catalog import read_catalog, table_states
from norn.adapters.snapshots.dumps import DumpSnapshots, make_sure
from norn.adapters.snapshots.loss import loss_of, take_anchor
from norn.adapters.snapshots.loss_since import loss_since
from norn.adapters.snapshots.properties import create_like, properties_of, take_over
from norn.adapters.together import together
from norn.domain.catalog import Catalog, Difference, compare
from norn.domain.loss import Loss
from norn.domain.ports import AppDatabase, Moment, Output
from norn.domain.snapshots import Snapshot, TableState
from norn.errors import ProgramFailed, RestoreFailed, Unavailable

SESSION_SETTINGS = ("maintenance_work_mem=128MB", "synchronous_commit=off", "statement_timeout=0", "lock_timeout=0")
"""Of restoring sessions. Nothing is lost by the asynchronous commits: the swap's own commit waits for all before it."""
_END_SESSIONS_EVERY_S = 0.02
_HANGING = "5s"
"""After which PostgreSQL itself ends a swap that its own client has left alone."""
_SWAP_S = 20.0
_LOCAL = ("", "localhost", "127.0.0.1", "::1")


class PostgresRestores:
    """The protocol `Restores`, on the server that a database is on."""

    def __init__(self, snapshots: DumpSnapshots) -> None:
        self._snapshots = snapshots

    # ---- looking -------------------------------------------------------------------------------------------------

    async def obstacles(self, database: AppDatabase) -> Sequence[str]:
        """Prepared transactions hold their database's name; without certain rights nothing can be made or renamed."""
        found = []
        async with _maintenance(database) as connection:
            prepared = await _column(connection, "SELECT gid FROM pg_prepared_xacts WHERE database = %s", database.name)
            if prepared:
                found.append(f"the prepared transaction {prepared[0]!r} is open (COMMIT PREPARED or ROLLBACK PREPARED)")
            labels = await _column(
                connection,
                "SELECT provider FROM pg_shseclabel l JOIN pg_database d ON d.oid = l.objoid "
                "WHERE l.classoid = 'pg_database'::regclass AND d.datname = %s",
                database.name,
            )
            if labels:
                found.append(f"it has a security label of {labels[0]}, which would be lost")
            able = await _column(
                connection,
                "SELECT rolsuper OR (rolcreatedb AND pg_has_role(d.datdba, 'USAGE')) FROM pg_roles, pg_database d "
                "WHERE rolname = current_user AND d.datname = %s",
                database.name,
            )
            if able != [True]:
                found.append("Norn's role there may not make databases, or is no member of the owner's role")
            slots = await _column(
                connection, "SELECT slot_name FROM pg_replication_slots WHERE database = %s", database.name
            )
            if slots:
                found.append(f"the logical slot {slots[0]!r} would stay with the former database: drop it first")
        return found

    async def free_bytes(self, database: AppDatabase) -> int | None:
        if str(conninfo_to_dict(database.admin_url).get("host") or "") not in _LOCAL:
            return None
        async with _maintenance(database) as connection:
            try:
                directory = Path(str((await _column(connection, "SELECT current_setting('data_directory')"))[0]))
            except psycopg.errors.InsufficientPrivilege:
                return None
        try:
            return shutil.disk_usage(directory).free
        except OSError:
            return None  # a server in a container, say: it has another view of the disk

    async def differences(self, database: AppDatabase, other: Snapshot | str) -> Difference:
        if isinstance(other, str):
            async with session(in_database(database.admin_url, other)) as connection:
                theirs: Catalog | Mapping[str, str] = await read_catalog(connection)
        else:
            theirs = other.catalog
        async with session(database.admin_url) as connection:
            return compare(theirs, await read_catalog(connection), without=("large objects",))

    async def exists(self, database: AppDatabase, name: str) -> bool:
        async with _maintenance(database) as connection:
            return await properties_of(connection, name) is not None

    async def loss(self, database: AppDatabase, copy: str, snapshot: Snapshot) -> Loss:
        url = in_database(database.admin_url, copy)
        return await loss_of(database.admin_url, url, snapshot.anchor, snapshot.tables)

    async def loss_since(
        self, database: AppDatabase, moment: Moment, name: str = "", budget_s: float | None = None
    ) -> Loss:
        url = in_database(database.admin_url, name or database.name)
        return await loss_since(url, moment.anchor, moment.tables, budget_s=budget_s)

    async def moment(self, database: AppDatabase, name: str) -> Moment:
        async with session(in_database(database.admin_url, name)) as connection:
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            await connection.set_read_only(True)
            async with connection.transaction():
                return Moment(await take_anchor(connection), await table_states(connection))

    # ---- beside the live one -------------------------------------------------------------------------------------

    async def make_copy(self, database: AppDatabase, snapshot: Snapshot, copy: str, output: Output) -> None:
        """Its hash is computed while it is restored, and counts: a restore of a damaged dump is thrown away."""
        archive = self._snapshots.path(snapshot.name)
        find_client("pg_restore", database.major)
        url = in_database(database.admin_url, copy)

        async def make() -> None:
            await self.drop(database, copy)
            async with _maintenance(database) as connection:
                await create_like(connection, copy, database.name)

        try:
            output(f"restoring {snapshot.name} into {copy}\n")
            _, digest = await together(
                restore_anew(make, archive, url, database.major, SESSION_SETTINGS, output), sha256_of(archive)
            )
            make_sure(snapshot, digest)
            wrong = await check_contents(url, snapshot)
            if wrong:
                raise RestoreFailed(f"What came out of {snapshot.name} is not what went in: {wrong}.", hint=_AS_IT_WAS)
            output(f"{len(snapshot.tables)} tables with {snapshot.rows:,} rows are there; the schema is as it was\n")
        except ProgramFailed as failed:
            raise RestoreFailed(
                f"{snapshot.name} could not be restored: {failed.message}{_said(failed)}",
                hint=_AS_IT_WAS,
                **failed.facts,
            ) from failed
        except psycopg.Error as error:
            raise RestoreFailed(
                f"{snapshot.name} could not be restored: {' '.join(str(error).split())}", hint=_AS_IT_WAS
            ) from error
        except OSError as error:
            raise RestoreFailed(f"{snapshot.name} cannot be read: {error.strerror}.", hint=_AS_IT_WAS) from error

    async def drop(self, database: AppDatabase, name: str) -> None:
        if name == database.name:
            raise ValueError(f"{name} is live")
        async with _maintenance(database) as connection:
            if await properties_of(connection, name) is not None:
                await connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name)))
            await connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    # ---- the swap ------------------------------------------------------------------------------------------------

    async def swap(self, database: AppDatabase, copy: str, former: str, output: Output) -> None:
        if await self._swapped(database, copy, former):
            output(f"{copy} has become {database.name} already\n")
            return
        try:
            async with _maintenance(database) as connection, _maintenance(database) as other:
                if await properties_of(connection, copy) is None:
                    raise RestoreFailed(f"the database {copy} has gone", hint=_AS_IT_WAS)
                await take_over(connection, database.name, copy)
                async with asyncio.timeout(_SWAP_S):
                    gap_s = await _rename(connection, other, database.name, copy, former)
        except (psycopg.Error, TimeoutError, RestoreFailed) as error:
            if await self._swapped(database, copy, former):  # the answer to the commit was lost, not the commit
                return
            words = " ".join(str(error).split()) or f"it took longer than {_SWAP_S:g} s"
            raise RestoreFailed(
                f"{copy} could not take the place of {database.name}: {words}", hint=_AS_IT_WAS
            ) from error
        output(f"{database.name} is {former} now, and {copy} is {database.name} ({gap_s:.2f} s)\n")

    async def _swapped(self, database: AppDatabase, copy: str, former: str) -> bool:
        async with _maintenance(database) as connection:
            there = [await properties_of(connection, name) is not None for name in (copy, former)]
        return there == [False, True]


_AS_IT_WAS = "The live database is as it was."


async def _rename(connection: Session, other: Session, live: str, copy: str, former: str) -> float:
    """Seconds from the first session's end to the commit. The commit itself cannot be cut short by a cancellation."""
    loop = asyncio.get_running_loop()
    names = [sql.Identifier(name) for name in (live, former, copy, live)]
    ending = asyncio.create_task(_end_sessions(other, [live, copy]))
    began = loop.time()
    try:
        async with connection.transaction():
            await connection.execute(sql.SQL("SET LOCAL idle_in_transaction_session_timeout = {}").format(_HANGING))
            await connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names[:2]))
            await connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names[2:]))
    finally:
        ending.cancel()
        with contextlib.suppress(asyncio.CancelledError, psycopg.Error):
            await ending
    return loop.time() - began


async def _end_sessions(connection: Session, databases: list[str]) -> None:
    """New ones wait for the rename; those that are in keep it from happening."""
    while True:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = ANY (%s) AND pid <> pg_backend_pid()",
            (databases,),
        )
        await asyncio.sleep(_END_SESSIONS_EVERY_S)


def _said(failed: ProgramFailed) -> str:
    """The first error that pg_restore has printed."""
    lines = (line.strip() for line in str(failed.facts.get("output", "")).splitlines())
    return next((f" ({line})" for line in lines if "error:" in line), "")


async def check_contents(url: str, snapshot: Snapshot) -> str:
    """What a restored database has not as the snapshot's record says; empty where all is there. It is analysed, too."""
    (catalog, tables), _ = await together(_contents(url), _analyze(url))
    wrong = [
        f"{name} has {tables[name].rows if name in tables else 'no'} rows, not {state.rows}"
        for name, state in sorted(snapshot.tables.items())
        if name not in tables or tables[name].rows != state.rows
    ]
    return "; ".join(wrong[:5]) or compare(snapshot.catalog, catalog).summary()


async def _contents(url: str) -> tuple[Catalog, dict[str, TableState]]:
    async with session(url, RESTORE_APPLICATION) as connection:
        return await read_catalog(connection), await table_states(connection)


async def _analyze(url: str) -> None:
    """A restored database has no statistics: without them its first queries would be slow."""
    async with session(url, RESTORE_APPLICATION) as connection:
        await connection.execute("ANALYZE")


@asynccontextmanager
async def _maintenance(database: AppDatabase) -> AsyncIterator[Session]:
    """Raises RestoreFailed where Norn's role may not connect there."""
    try:
        async with session(maintenance_url(database.admin_url), RESTORE_APPLICATION) as connection:
            yield connection
    except Unavailable as error:
        raise RestoreFailed(
            f"A restore works from the database `postgres` of the same server: {error.message}", hint=error.hint
        ) from error


async def _column(connection: Session, query: LiteralString, *values: str) -> list[object]:
    return [row[0] for row in await (await connection.execute(query, values)).fetchall()]
