"""Runs the programs of others (git, pg_dump, an app's build) from argument lists, never through a shell."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from norn.adapters import tether
from norn.adapters.accounts import Account
from norn.domain.ports import Output
from norn.errors import ProgramFailed, ProgramMissing

TAIL_BYTES = 16_384
"""How much of what a program printed is kept for its error."""
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


def ignore(_text: str) -> None:
    """An Output for what nobody reads."""


@dataclass(frozen=True, slots=True)
class Finished:
    exit_status: int
    """128 + n where signal n ended it."""
    output: str
    """The end of what it printed on both streams (all of it, with `keep_all`)."""


def environment(**more: str) -> dict[str, str]:
    """The server's environment reduced to what a program may know, and `more` over it; never Norn's own settings."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": os.defpath, "LANG": "C.UTF-8"} | kept | more


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    account: Account | None = None,
    output: Output = ignore,
    tethered: bool = False,
    keep_all: bool = False,
    check: bool = True,
    stdout: BinaryIO | None = None,
) -> Finished:
    """Run a program to its end; both its streams go to `output` as they come (standard output to a file instead
    where `stdout` is one).

    With `tethered` all that it starts ends with this call: on cancellation, and when this server is killed. Without,
    only the program itself is killed on cancellation (for what takes milliseconds).

    Raises:
        ProgramMissing: there is no such program.
        ProgramFailed: it ended with another exit status than 0 (unless `check` is off).
    """
    command = list(argv)
    popen: dict[str, object] = {}
    if tethered:
        uid, gid = (account.uid, account.gid) if account else (-1, -1)
        command = [sys.executable, "-I", "-S", tether.__file__, str(uid), str(gid), *argv]
    elif account:
        popen = account.as_popen()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if tethered else asyncio.subprocess.DEVNULL,
            stdout=stdout or asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if stdout else asyncio.subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            **popen,  # type: ignore[arg-type]
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.exists():
            raise ProgramFailed(f"{cwd} does not exist.") from error
        raise ProgramMissing(f"{argv[0]} is not installed.", program=argv[0]) from error
    except OSError as error:
        raise ProgramFailed(f"{argv[0]} could not be started: {error.strerror}.") from error
    kept = bytearray()
    try:
        printed = process.stderr if stdout else process.stdout
        assert printed is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while chunk := await printed.read(65_536):
            kept += chunk
            if not keep_all:
                del kept[:-TAIL_BYTES]
            output(decoder.decode(chunk))
        exit_status = await process.wait()
    finally:
        if process.returncode is None:
            await asyncio.shield(_end(process))
    if exit_status < 0:
        exit_status = 128 - exit_status
    text = kept.decode("utf-8", "replace")
    if check and exit_status != 0:
        what = (
            f"was ended by signal {exit_status - 128}" if exit_status > 128 else f"ended with exit status {exit_status}"
        )
        raise ProgramFailed(
            f"{Path(argv[0]).name} {what}.", program=str(argv[0]), exitStatus=exit_status, output=text[-TAIL_BYTES:]
        )
    return Finished(exit_status, text)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()  # the tether ends all of it
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # What is still printed would fill the pipe and keep it from ending.
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(65_536):
            pass
    await process.wait()
