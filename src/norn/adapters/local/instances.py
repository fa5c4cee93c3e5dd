"""One process of an app under its shim, as the server sees it: started, found again, stopped.

It is found again by what its shim wrote down: process id, start time and boot, never the id alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from norn.adapters import processes, tether
from norn.adapters.accounts import Account
from norn.adapters.local import files, shim
from norn.errors import RolloutFailed
from norn.waiting import uninterrupted

MARK = "NORN_INSTANCE"
"""In the environment of all that an instance starts, so that it is found even where its shim is gone."""
GRACE_S = 10.0
_BEGIN_S = 20.0
_TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a shim keeps its process."""

    grace_s: float = GRACE_S
    log_bytes: int = 10 * 1024 * 1024
    """Of each of the two files that are kept."""
    backoff_first_s: float = 0.5
    backoff_max_s: float = 30.0
    backoff_reset_after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Status:
    """What a living shim says."""

    state: str
    """`starting`, `running`, `backoff`, `stopping`"""
    shim_pid: int
    child_pid: int | None
    child_started: int | None
    restarts: int
    exits: int
    last_exit: str
    """`exit status 1`, `signal 9`; empty where it never ended."""


def _exit_text(value: Mapping[str, int] | None) -> str:
    if value is None:
        return ""
    if "signal" not in value:
        return f"exit status {value['status']}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(value['signal']).name}"
    return f"signal {value['signal']}"


class Instance:
    """A directory with `spec.json`, `status.json`, `log`, `log.1`: 0700, as secrets are in the spec."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = directory.name

    def spec(self) -> Mapping[str, Any] | None:
        with contextlib.suppress(ValueError):
            value: Mapping[str, Any] | None = files.read_json(self.directory / "spec.json")
            return value
        return None

    @property
    def port(self) -> int | None:
        spec = self.spec()
        return spec.get("port") if spec else None

    def _written(self) -> Mapping[str, Any] | None:
        try:
            value = files.read_json(self.directory / "status.json")
        except ValueError:
            return None  # a status is not synchronised: after a power cut it may be empty
        return value if isinstance(value, dict) else None

    def status(self) -> Status | None:
        """What the shim says, None where no shim lives."""
        value = self._written()
        if value is None:
            return None
        who = value["shim"]
        if who["bootId"] != processes.boot_id() or not processes.is_running(who["pid"], who["started"]):
            return None
        child = value["child"] or {}
        return Status(
            state=value["state"],
            shim_pid=who["pid"],
            child_pid=child.get("pid"),
            child_started=child.get("started"),
            restarts=value["restarts"],
            exits=value["exits"],
            last_exit=_exit_text(value["lastExit"]),
        )

    def pids(self) -> list[int]:
        """The process and all below it."""
        status = self.status()
        return tether.descendants(status.shim_pid) if status else []

    async def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        account: Account | None,
        port: int | None,
        tuning: Tuning,
    ) -> None:
        """Start the process under a new shim. Raises RolloutFailed where not even the shim could be started."""
        files.make_directory(self.directory, 0o700)
        spec = {
            "argv": list(argv),
            "cwd": str(cwd),
            "env": dict(env) | {MARK: str(self.directory)},
            "uid": account.uid if account else -1,
            "gid": account.gid if account else -1,
            "port": port,
            "graceS": tuning.grace_s,
            "logBytes": tuning.log_bytes,
            "backoff": {
                "firstS": tuning.backoff_first_s,
                "maxS": tuning.backoff_max_s,
                "resetAfterS": tuning.backoff_reset_after_s,
            },
        }
        await asyncio.to_thread(files.write_json, self.directory / "spec.json", spec)
        await uninterrupted(self._begin())  # one that is half begun is found by nobody

    async def _begin(self) -> None:
        with (self.directory / "shim.log").open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", shim.__file__, str(self.directory),
                stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said, cwd="/", start_new_session=True,
                env={"LANG": "C.UTF-8"},
            )  # fmt: skip
        try:
            async with asyncio.timeout(_BEGIN_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        # Where another shim holds the directory, it has just been started, and is about to write its status.
        deadline = time.monotonic() + (_BEGIN_S if process.returncode else 0)
        while self.status() is None:
            if time.monotonic() >= deadline or not self._locked():
                why = (self.directory / "shim.log").read_text(encoding="utf-8", errors="replace").strip()
                raise RolloutFailed(
                    f"The process {self.name} could not be started.",
                    reason="not_started",
                    output=why,
                    hint="See the output; a full disk is the usual reason.",
                )
            await asyncio.sleep(0.02)

    def _locked(self) -> bool:
        with contextlib.suppress(FileNotFoundError), (self.directory / "lock").open("r+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """End the process and all that it started; returns when nothing is left."""
        status = self.status()
        clean = False
        if status is not None:
            _signal(status.shim_pid, signal.SIGTERM)
            # The shim itself ends its process after the grace.
            clean = await self._gone(grace_s + shim.LEFTOVERS_GRACE_S + 5)
            if not clean:
                _signal(status.shim_pid, signal.SIGKILL)
                await self._gone(5)
        if not clean and self.directory.exists():
            await asyncio.to_thread(self._end_leftovers)

    async def _gone(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.status() is not None:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    def _end_leftovers(self) -> None:
        mark = f"{MARK}={self.directory}".encode()
        for process in Path("/proc").iterdir():
            if not process.name.isdecimal():
                continue
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)

    async def remove(self) -> None:
        """Stop it and remove its directory."""
        await self.stop()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the process printed."""
        return "\n".join(tail_lines(self.directory / "log", lines))


def tail_lines(log: Path, lines: int, limit: int = _TAIL_BYTES) -> list[str]:
    """The last lines of a log and, where it is shorter, of the one before it; at most about `limit` bytes."""
    data = b""
    for path in (log, log.with_name(f"{log.name}.1")):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (limit - len(data))))
            data = file.read() + data
        if data.count(b"\n") > lines or len(data) >= limit:
            break
    return data.decode("utf-8", "replace").splitlines()[-lines:] if lines > 0 else []


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
