"""Snapshots as plain files of pg_dump's custom format: dumped, read in full, and only then given their name."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import platform
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg

from norn.adapters.postgres.clients import find_client
from norn.adapters.postgres.sessions import Session, session, unnoticed
from norn.adapters.snapshots.archives import dump, read_all, sha256_of, sync
from norn.adapters.snapshots.catalog import read_catalog, table_states
from norn.adapters.snapshots.loss import take_anchor
from norn.adapters.snapshots.properties import locale_of, properties_of
from norn.adapters.together import together
from norn.domain.catalog import Catalog
from norn.domain.ports import AppDatabase, Output, Room
from norn.domain.snapshot_names import SIDECAR, parse_snapshot_name, sidecar_name, snapshot_name
from norn.domain.snapshots import SPARE, Anchor, Snapshot, SnapshotOrder, TableState
from norn.errors import NoRoom, ProgramFailed, SnapshotDamaged, SnapshotFailed, SnapshotMissing, StepFailed
from norn.threads import to_its_end

_PROGRESS_S = 1.0
_PART = ".part"
_SHRINKS_TO = 0.5
"""What a dump takes of its tables' size, where there is no earlier one to go by: they are compressed."""
_TABLES_BYTES: LiteralString = """
SELECT coalesce(sum(pg_table_size(c.oid)), 0)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


@dataclass(frozen=True, slots=True)
class _Held:
    """What the database held at the moment of the dump."""

    tables: dict[str, TableState]
    catalog: Catalog
    locale: dict[str, str]
    roles: tuple[str, ...]


class DumpSnapshots:
    """Files in one directory, which only their owner reads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    # ---- taking --------------------------------------------------------------------------------------------------

    async def take(self, database: AppDatabase, order: SnapshotOrder, output: Output) -> Snapshot:
        """Dump a database with the client of its server's major version, and write down what the dump holds.

        Rows are counted and the catalog is read in the very moment that the dump shows (an exported snapshot).

        Raises:
            NoRoom: before anything is written.
            SnapshotFailed: the dump, its verification, or the disk.
            ProgramMissing: no client of that version.
        """
        for program in ("pg_dump", "pg_restore"):
            find_client(program, database.major)
        name = snapshot_name(database.name, order.commit_sha, order.at)
        part = self._directory / f"{name}{_PART}"
        with self._failing(part):
            await asyncio.to_thread(self._prepare, database.name, order.commit_sha)
            async with session(database.admin_url) as holder:
                size = await self._make_sure_of_room(holder, database)
                await holder.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                await holder.set_read_only(True)
                async with holder.transaction(), _progress(part, size, output):
                    exported = await _one(holder, "SELECT pg_export_snapshot()")
                    anchor = await take_anchor(holder)
                    dumping = dump(database.admin_url, database.major, exported, unnoticed(holder), part, output)
                    held, _ = await together(_held(holder), dumping)
            await asyncio.to_thread(sync, part)
            output("reading all of it\n")
            digest, _ = await together(sha256_of(part), read_all(part, database.major, output))
            snapshot = _described(name, database, order, anchor, held, digest, part.stat().st_size, size)
            await to_its_end(self._publish, part, snapshot)
        return snapshot

    @contextmanager
    def _failing(self, part: Path) -> Iterator[None]:
        try:
            yield
        except ProgramFailed as failed:
            raise SnapshotFailed(f"The snapshot failed: {failed.message}", **failed.facts) from failed
        except psycopg.Error as error:
            words = " ".join(str(error).split())
            raise SnapshotFailed(
                f"The snapshot failed: {words}.", hint="Norn has to be able to read all of the database."
            ) from error
        except OSError as error:
            full = "make room, or set NORN_SNAPSHOTS_DIR." if error.errno == errno.ENOSPC else "look at the directory."
            hint = f"Nothing was migrated and what was live is live: {full}"
            raise SnapshotFailed(f"The snapshot failed: {error.strerror} ({self._directory}).", hint=hint) from error
        finally:
            part.unlink(missing_ok=True)
            part.with_name(f"{sidecar_name(part.name.removesuffix(_PART))}{_PART}").unlink(missing_ok=True)

    async def _make_sure_of_room(self, holder: Session, database: AppDatabase) -> int:
        """The database's size in bytes. Raises NoRoom."""
        size = int(await _one(holder, "SELECT pg_database_size(current_database())"))
        expected = await asyncio.to_thread(self._as_the_newest, database.name, size)
        if expected is None:
            expected = round(int(await _one(holder, _TABLES_BYTES)) * _SHRINKS_TO)
        room = await self.room()
        if room.free_bytes < expected * SPARE:
            raise NoRoom(
                f"A snapshot of {database.name} takes about {_mb(expected)}, and {self._directory} has "
                f"{_mb(room.free_bytes)} left.",
                hint="Make room there (`norn prune`, fewer `artifacts.retain`), or set NORN_SNAPSHOTS_DIR. "
                "`norn deploy --no-snapshot --reason WHY` goes on without.",
                neededBytes=round(expected * SPARE),
                freeBytes=room.free_bytes,
            )
        return size

    def _as_the_newest(self, database: str, database_bytes: int) -> int | None:
        """What the next dump will take: as much as the newest one, grown as the database has since."""
        for name in self._names():
            parsed = parse_snapshot_name(name)
            if parsed is not None and parsed[0] == database:
                with contextlib.suppress(SnapshotMissing, SnapshotDamaged):
                    newest = self._record(name)
                    return round(newest.size_bytes * max(1.0, database_bytes / max(newest.database_bytes, 1)))
        return None

    def _prepare(self, database: str, commit_sha: str) -> None:
        """The directory, without what an interrupted attempt at the same snapshot left behind."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._directory.glob(f"*{_PART}"):
            name = path.name.removesuffix(_PART)
            parsed = parse_snapshot_name(name if name.endswith(".dump") else f"{name.removesuffix(SIDECAR)}.dump")
            if parsed is not None and parsed[:2] == (database, commit_sha[:12]):
                path.unlink(missing_ok=True)

    def _publish(self, part: Path, snapshot: Snapshot) -> None:
        """Give the dump its name, never over an existing file; before that, what is written down of it."""
        described = self._directory / sidecar_name(snapshot.name)
        beside = described.with_name(f"{described.name}{_PART}")
        beside.write_text(json.dumps(snapshot.to_json(), indent=1, ensure_ascii=False), encoding="utf-8")
        sync(beside)
        os.link(beside, described)
        try:
            os.link(part, self._directory / snapshot.name)
        except OSError:
            described.unlink()
            raise
        sync(self._directory)

    # ---- reading -------------------------------------------------------------------------------------------------

    async def names(self) -> Sequence[str]:
        return await asyncio.to_thread(self._names)

    def _names(self) -> list[str]:
        found = []
        if self._directory.exists():
            for path in self._directory.iterdir():
                parsed = parse_snapshot_name(path.name)
                if parsed is not None:
                    found.append((parsed[2], path.name))
        return [name for _, name in sorted(found, reverse=True)]

    async def record(self, name: str) -> Snapshot:
        return await asyncio.to_thread(self._record, name)

    def _record(self, name: str) -> Snapshot:
        path = self.path(name)
        try:
            value = json.loads(path.with_name(sidecar_name(path.name)).read_text(encoding="utf-8"))
            snapshot = Snapshot.from_json(value)
        except FileNotFoundError as error:
            raise SnapshotDamaged(
                f"What was written down of {name} ({sidecar_name(name)}) is missing: what it holds cannot be checked.",
                hint="Restore it by hand into a new database with pg_restore, and look.",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SnapshotDamaged(f"{sidecar_name(name)} cannot be read: {error}.") from error
        if snapshot.name != name:
            raise SnapshotDamaged(f"{sidecar_name(name)} belongs to {snapshot.name}.")
        return snapshot

    def path(self, name: str) -> Path:
        """Where the dump lies. Raises SnapshotMissing."""
        path = self._directory / name
        if parse_snapshot_name(name) is None or path.name != name or not path.is_file():
            raise SnapshotMissing(
                f"There is no snapshot {name!r} in the snapshots' directory.",
                hint="`norn snapshots list APP` lists them; it may lie on another server.",
            )
        return path

    async def check(self, snapshot: Snapshot, output: Output) -> None:
        path = self.path(snapshot.name)
        try:
            digest, _ = await together(sha256_of(path), read_all(path, snapshot.major, output))
        except ProgramFailed as failed:
            raise SnapshotDamaged(f"{snapshot.name} cannot be read to its end.", **failed.facts) from failed
        except OSError as error:
            raise SnapshotDamaged(f"{snapshot.name} cannot be read: {error.strerror}.") from error
        make_sure(snapshot, digest)

    async def remove(self, name: str) -> None:
        def unlink() -> None:
            with contextlib.suppress(SnapshotMissing):
                self.path(name).unlink(missing_ok=True)
            if parse_snapshot_name(name) is not None and Path(name).name == name:
                (self._directory / sidecar_name(name)).unlink(missing_ok=True)

        try:
            await asyncio.to_thread(unlink)
        except OSError as error:
            raise StepFailed(f"{name} cannot be removed: {error.strerror}.") from error

    async def room(self) -> Room:
        def look() -> Room:
            used = 0
            for name in self._names():
                with contextlib.suppress(FileNotFoundError):
                    used += (self._directory / name).stat().st_size
            place = self._directory
            while not place.exists():
                place = place.parent
            return Room(used, shutil.disk_usage(place).free)

        return await asyncio.to_thread(look)


def make_sure(snapshot: Snapshot, digest: str) -> None:
    """Raises SnapshotDamaged where the dump's hash is not what it was."""
    if digest != snapshot.sha256:
        raise SnapshotDamaged(
            f"{snapshot.name} is not what it was when it was taken (sha256 {digest[:12]}…, not "
            f"{snapshot.sha256[:12]}…).",
            hint="Its disk, or somebody, has changed it. Use another snapshot.",
        )


def _described(
    name: str,
    database: AppDatabase,
    order: SnapshotOrder,
    anchor: Anchor,
    held: _Held,
    digest: str,
    size_bytes: int,
    database_bytes: int,
) -> Snapshot:
    return Snapshot(
        name=name,
        app=order.app,
        database=database.name,
        commit_sha=order.commit_sha[:12],
        operation_id=order.operation_id,
        reason=order.reason,
        kept=order.kept,
        taken_at=order.at,
        anchor=anchor,
        server_version=database.server_version,
        host=platform.node(),
        size_bytes=size_bytes,
        database_bytes=database_bytes,
        sha256=digest,
        locale=held.locale,
        roles=held.roles,
        tables=held.tables,
        fingerprint=held.catalog.fingerprint,
        catalog=held.catalog.digests(),
    )


async def _held(holder: Session) -> _Held:
    properties = await properties_of(holder, holder.info.dbname)
    assert properties is not None
    cursor = await holder.execute("SELECT rolname FROM pg_roles WHERE NOT starts_with(rolname, 'pg_')")
    roles = tuple(sorted([str(row[0]) async for row in cursor]))
    return _Held(await table_states(holder), await read_catalog(holder), locale_of(properties), roles)


async def _one(connection: Session, query: LiteralString) -> str:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return str(row[0])


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


@asynccontextmanager
async def _progress(part: Path, database_bytes: int, output: Output) -> AsyncIterator[None]:
    """Say now and then how much is written."""

    async def say() -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            with contextlib.suppress(FileNotFoundError):
                output(f"{part.stat().st_size:,} bytes written of a database of {database_bytes:,}\n")

    task = asyncio.create_task(say())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
