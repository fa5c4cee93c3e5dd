"""Keeps one process of an app running, and outlives the server that asked for it.

    python -I -S shim.py DIRECTORY

Reads `spec.json` in the directory, starts its command, starts it again with growing delays when it ends, keeps what
it prints in `log` within bounds, and writes `status.json` whenever something changes. SIGTERM ends the command and
all that it started. Killed with SIGKILL it takes the command along (PR_SET_PDEATHSIG, prctl(2)).

spec.json: `argv`, `cwd`, `env`, `uid` and `gid` (-1: as they are), `graceS`, `logBytes` (per file, two are kept),
`backoff` {`firstS`, `maxS`, `resetAfterS`}. A lock on `lock` makes sure that a directory has one shim.

A script of the standard library alone: there is one beside every process.
"""

# pathlib would take longer to import than all the rest.
# ruff: noqa: PTH105, PTH118, PTH120, PTH123

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import time
from typing import Any

if not __package__:  # run as a script, with nothing but the standard library in the path
    sys.path.append(os.path.realpath(os.path.join(os.path.dirname(__file__), "../../..")))

from norn.adapters import tether
from norn.adapters.local import files

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CANNOT_START = 127
LEFTOVERS_GRACE_S = 1.0
"""How long what a command left behind gets between SIGTERM and SIGKILL."""
_WRITE_AGAIN_S = 1.0

_libc = ctypes.CDLL(None, use_errno=True)


def _started(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


class Log:
    """A file that is never larger than `limit` bytes; the one before it is kept as `.1`."""

    def __init__(self, path: str, limit: int) -> None:
        self._path, self._limit = path, limit
        self.lost = 0
        """Bytes that could not be written (a full disk)."""
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        try:
            while data:
                if self._size >= self._limit:
                    os.replace(self._path, f"{self._path}.1")
                    os.close(self._fd)
                    self._open()
                written = os.write(self._fd, data[: self._limit - self._size])
                self._size += written
                data = data[written:]
        except OSError:
            self.lost += len(data)


class Shim:
    def __init__(self, directory: str, spec: dict[str, Any]) -> None:
        self._directory, self._spec = directory, spec
        self._backoff = spec["backoff"]
        self._delay: float = self._backoff["firstS"]
        self._log = Log(os.path.join(directory, "log"), spec["logBytes"])
        self._child = 0
        self._child_began = 0.0
        self._start_at = 0.0
        self._stopping = False
        self._unwritten = False
        self._status: dict[str, Any] = {
            "shim": {"pid": os.getpid(), "started": _started(os.getpid()), "bootId": _boot_id()},
            "child": None,
            "state": "starting",
            "restarts": 0,
            "exits": 0,
            "lastExit": None,
            "logLost": 0,
        }
        # One pipe for all starts: it never ends, whoever still holds it.
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._poller = select.poll()
        self._poller.register(self._out, select.POLLIN)
        self._poller.register(self._woken, select.POLLIN)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def note(self, **changes: Any) -> None:
        """Write the status down. A full disk is no reason to end: it is tried again."""
        self._status |= changes
        self._status |= {"since": time.time(), "logLost": self._log.lost}
        self._write()

    def _write(self) -> None:
        try:
            # Not synchronised: after a power cut no process is left that it could describe.
            files.write_json(os.path.join(self._directory, "status.json"), self._status, durable=False)
            self._unwritten = False
        except OSError:
            self._unwritten = True

    def _start(self) -> None:
        if self._status["exits"]:
            self._status["restarts"] += 1
        self._child_began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._become_the_command()
        self._child = pid
        self.note(state="running", child={"pid": pid, "started": _started(pid)})

    def _become_the_command(self) -> None:
        spec = self._spec
        argv, env, shim = spec["argv"], spec["env"], os.getppid()
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            with open(os.devnull, "rb") as null:
                os.dup2(null.fileno(), 0)
            os.dup2(self._in, 1)
            os.dup2(self._in, 2)
            os.umask(0o022)
            if spec["uid"] >= 0:
                os.setgroups([])
                os.setgid(spec["gid"])
                os.setuid(spec["uid"])
            os.chdir(spec["cwd"])
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after setuid(2), which clears it
            if os.getppid() != shim:
                os._exit(_CANNOT_START)  # the shim ended before it could be noticed
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            where = f" in {spec['cwd']}" if error.filename == spec["cwd"] else ""
            os.write(2, f"{argv[0]}: cannot be started{where}: {error.strerror}\n".encode())
        os._exit(_CANNOT_START)

    def _wait(self, timeout_s: float | None) -> None:
        """Until something happens: output is kept, signals are noticed."""
        if self._unwritten:
            timeout_s = min(timeout_s if timeout_s is not None else _WRITE_AGAIN_S, _WRITE_AGAIN_S)
        for fd, _event in self._poller.poll(None if timeout_s is None else max(timeout_s, 0) * 1000):
            if fd == self._out:
                self._pump(1_048_576)
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
        if self._unwritten:
            self._write()

    def _pump(self, limit: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while limit > 0 and (data := os.read(self._out, 65_536)):
                self._log.write(data)
                limit -= len(data)

    def _reap(self) -> None:
        status = tether.reap().get(self._child)
        if not self._child or status is None:
            return
        self._child = 0
        ended = (
            {"status": os.WEXITSTATUS(status)} if os.WIFEXITED(status) else {"signal": os.WTERMSIG(status)}
        )  # fmt: skip
        tether.end_descendants(LEFTOVERS_GRACE_S)  # workers of it may still hold the port
        self._pump(10 * 1_048_576)
        if time.monotonic() - self._child_began >= self._backoff["resetAfterS"]:
            self._delay = self._backoff["firstS"]
        self._start_at = time.monotonic() + self._delay
        self._delay = min(self._delay * 2, self._backoff["maxS"])
        self.note(state="backoff", child=None, lastExit=ended, exits=self._status["exits"] + 1)

    def run(self) -> None:
        """Until SIGTERM; then nothing that was started is left."""
        while not self._stopping:
            if not self._child and time.monotonic() >= self._start_at:
                self._start()
            self._wait(None if self._child else self._start_at - time.monotonic())
            self._reap()
        self.note(state="stopping")
        if self._child:
            os.kill(self._child, signal.SIGTERM)
        deadline = time.monotonic() + self._spec["graceS"]
        while self._child and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
            self._reap()
        if self._child:
            os.kill(self._child, signal.SIGKILL)
        tether.end_descendants(LEFTOVERS_GRACE_S)
        self._pump(10 * 1_048_576)
        self.note(state="stopped", child=None)


def _detach() -> int:
    """Go on as a process that is nobody's child. Returns, there, where to write once it has begun."""
    begun, say = os.pipe()
    if os.fork():
        os.close(say)
        os._exit(0 if os.read(begun, 1) else 1)
    os.close(begun)
    os.setsid()
    return say


def main(directory: str) -> int:
    """The first process ends with 0 once the shim has begun and can be found by its status, with 1 where it cannot."""
    say = _detach()
    lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 1  # the one that is there is as good
    os.chdir("/")
    os.umask(0o077)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shim = Shim(directory, files.read_json(os.path.join(directory, "spec.json")))
    shim.note()
    os.write(say, b".")
    os.close(say)
    shim.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
