"""Snapshots as plain files of pg_dump's custom format: dumped, read in full, and only then given their name."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from norn.adapters import programs
from norn.adapters.postgres.clients import find_client
from norn.domain.ports import AppDatabase, Output, SnapshotFile
from norn.domain.snapshot_names import parse_snapshot_name, snapshot_name
from norn.errors import ProgramFailed, SnapshotFailed

_PROGRESS_S = 1.0


class DumpSnapshots:
    """Files in one directory, which only their owner reads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def take(self, database: AppDatabase, commit_sha: str, taken_at: datetime, output: Output) -> SnapshotFile:
        """Dump a database with the client of its server's major version.

        `pg_restore --list` passes on truncated dumps: only reading all of it shows that all of it is there.

        Raises SnapshotFailed (the dump, its verification or the disk), ProgramMissing (no client of that version).
        """
        dump, restore = find_client("pg_dump", database.major), find_client("pg_restore", database.major)
        name = snapshot_name(database.name, commit_sha, taken_at)
        part = self._directory / f"{name}.part"
        try:
            await asyncio.to_thread(self._prepare, database.name, commit_sha)
            async with _progress(part, output):
                await self._run([str(dump), "--format=custom", f"--file={part}"], database, output)
            await asyncio.to_thread(_sync, part)
            output("reading all of it\n")
            await self._run([str(restore), "--file=/dev/null", str(part)], database, output)
            size = await asyncio.to_thread(self._publish, part, name)
        except ProgramFailed as failed:
            raise SnapshotFailed(f"The snapshot failed: {failed.message}", **failed.facts) from failed
        except OSError as error:
            full = "make room, or set NORN_SNAPSHOTS_DIR." if error.errno == errno.ENOSPC else "look at the directory."
            hint = f"Nothing was migrated and what was live is live: {full}"
            raise SnapshotFailed(f"The snapshot failed: {error.strerror} ({self._directory}).", hint=hint) from error
        finally:
            part.unlink(missing_ok=True)
        return SnapshotFile(name, database.name, commit_sha[:12], taken_at, size)

    async def files(self) -> Sequence[SnapshotFile]:
        return await asyncio.to_thread(self._files)

    def _files(self) -> list[SnapshotFile]:
        found = []
        if self._directory.exists():
            for path in self._directory.iterdir():
                parsed = parse_snapshot_name(path.name)
                if parsed is not None:
                    with contextlib.suppress(FileNotFoundError):
                        found.append(SnapshotFile(path.name, *parsed, path.stat().st_size))
        return sorted(found, key=lambda file: file.taken_at, reverse=True)

    def _prepare(self, database: str, commit_sha: str) -> None:
        """The directory, without what an interrupted attempt at the same snapshot left behind."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._directory.glob("*.dump.part"):
            parsed = parse_snapshot_name(path.name.removesuffix(".part"))
            if parsed is not None and parsed[:2] == (database, commit_sha[:12]):
                path.unlink(missing_ok=True)

    async def _run(self, argv: list[str], database: AppDatabase, output: Output) -> None:
        """Run a client; how to connect goes through the environment, which other users cannot see, unlike arguments."""
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE",
                 "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "hostaddr": "PGHOSTADDR"}  # fmt: skip
        info = conninfo_to_dict(database.admin_url)
        connection = {names[key]: str(value) for key, value in info.items() if key in names and value is not None}
        env = programs.environment(**connection, PGAPPNAME="norn-snapshot", PGCONNECT_TIMEOUT="10")
        await programs.run(argv, env=env, output=output, tethered=True)

    def _publish(self, part: Path, name: str) -> int:
        """Give the dump its name, never over an existing file; its size in bytes."""
        size = part.stat().st_size
        os.link(part, self._directory / name)
        _sync(self._directory)
        return size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if path.is_file():
            os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _progress(part: Path, output: Output) -> AsyncIterator[None]:
    """Say now and then how much is written."""

    async def say() -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            with contextlib.suppress(FileNotFoundError):
                output(f"{part.stat().st_size:,} bytes written\n")

    task = asyncio.create_task(say())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
