"""PostgreSQL's own programs on one archive: pg_dump writes it, pg_restore reads it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from norn.adapters import programs
from norn.adapters.postgres.clients import find_client
from norn.adapters.postgres.sessions import client_environment
from norn.domain.ports import Output
from norn.errors import ProgramFailed

DUMP_APPLICATION = "norn-snapshot"
RESTORE_APPLICATION = "norn-restore"
JOBS = 2
_DEADLOCK = "deadlock detected"


async def dump(url: str, major: int, moment: str, settings: Mapping[str, str], into: Path, output: Output) -> None:
    """Write what a database held at an exported moment. Raises ProgramFailed, ProgramMissing.

    Args:
        settings: of the dumping session.
    """
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    argv = ["--format=custom", f"--snapshot={moment}", f"--file={into}"]
    environment = client_environment(url) | {"PGAPPNAME": DUMP_APPLICATION, "PGOPTIONS": options}
    await _run("pg_dump", major, argv, output, environment)


async def read_all(archive: Path, major: int, output: Output) -> None:
    """Read an archive to its end: `pg_restore --list` passes on truncated ones, only this shows that it is whole.

    Raises ProgramFailed, ProgramMissing.
    """
    await _run("pg_restore", major, ["--file=/dev/null", str(archive)], output, {})


async def restore(
    archive: Path, url: str, major: int, jobs: int, settings: Sequence[str], output: Output, *more: str
) -> None:
    """Restore all of an archive into an empty database; the first error ends it. Raises ProgramFailed, ProgramMissing.

    Args:
        settings: `name=value` of the restoring sessions.
        more: options of pg_restore.
    """
    environment = client_environment(url)
    argv = ["--exit-on-error", "--no-password", f"--jobs={jobs}", *more]
    argv.append(f"--dbname={environment.pop('PGDATABASE')}")
    options = " ".join(f"-c {setting}" for setting in settings)
    environment |= {"PGAPPNAME": RESTORE_APPLICATION, "PGOPTIONS": options}
    await _run("pg_restore", major, [*argv, str(archive)], output, environment)


async def restore_anew(
    make: Callable[[], Awaitable[None]],
    archive: Path,
    url: str,
    major: int,
    settings: Sequence[str],
    output: Output,
    *more: str,
) -> None:
    """As `restore`, into a database that `make` makes empty, with several jobs.

    Those can lock each other out where an archive has partitions, keys and views over them; PostgreSQL ends one of them
    then, and the restore begins anew with one job, which nothing can be in the way of.
    """
    for jobs in (JOBS, 1):
        await make()
        try:
            await restore(archive, url, major, jobs, settings, output, *more)
            return
        except ProgramFailed as failed:
            if jobs == 1 or _DEADLOCK not in str(failed.facts.get("output", "")):
                raise
            output("two jobs of pg_restore have locked each other out: once more, with one\n")


async def _run(name: str, major: int, argv: Sequence[str], output: Output, env: dict[str, str]) -> None:
    environment = programs.environment(PGCONNECT_TIMEOUT="10", **env)
    await programs.run([str(find_client(name, major)), *argv], env=environment, output=output, tethered=True)


async def sha256_of(path: Path) -> str:
    """In hexadecimal. Raises OSError."""

    def read() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return await asyncio.to_thread(read)


def sync(path: Path) -> None:
    """Have it on the disk; a file is its owner's alone from now on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if path.is_file():
            os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
