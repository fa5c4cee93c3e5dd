"""Runs one command and ends everything that it started once whoever asked for it is gone.

    python -I -S tether.py UID GID COMMAND …

Standard input is the tether: a pipe that the server holds. When it closes (the server cancels, stops, or is killed
with SIGKILL) every descendant gets SIGTERM and, after a grace, SIGKILL. The tether is a child subreaper (prctl(2)), so
that daemons a command left behind are descendants too. Exits as the command did (128 + n for signal n).

A script of the standard library alone: it is started for each step that takes long.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

GRACE_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36
_CANNOT_START = 127


def _children(pid: int) -> list[int]:
    """Those of all its threads: the kernel lists a child with the one that began it."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  (pathlib is slow to import)
            path = f"/proc/{pid}/task/{thread}/children"
            with contextlib.suppress(OSError), open(path, encoding="ascii") as file:  # noqa: PTH123
                found.extend(int(word) for word in file.read().split())
    return found


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, nearest first."""
    found, queue = [], _children(pid)
    while queue:
        child = queue.pop(0)
        found.append(child)
        queue.extend(_children(child))
    return found


def reap() -> dict[int, int]:
    """Collect what has ended: process id to wait status."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def end_descendants(grace_s: float) -> None:
    """SIGTERM to all, SIGKILL to what is left after the grace; returns when none is left."""
    deadline = time.monotonic() + grace_s
    number = signal.SIGTERM
    while alive := descendants(os.getpid()):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        while (alive := descendants(os.getpid())) and time.monotonic() < deadline:
            reap()
            time.sleep(0.02)
        reap()
        number = signal.SIGKILL
        deadline = time.monotonic() + 0.2


def _start(uid: int, gid: int, argv: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        with open(os.devnull, "rb") as null:  # noqa: PTH123
            os.dup2(null.fileno(), 0)
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    os._exit(_CANNOT_START)


def main(argv: list[str]) -> int:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the tether decides
    pid = _start(int(argv[0]), int(argv[1]), argv[2:])
    poller = select.poll()
    poller.register(0, select.POLLIN | select.POLLHUP)
    poller.register(woken, select.POLLIN)
    while True:
        ended = reap()
        if pid in ended:
            end_descendants(GRACE_S)
            status = ended[pid]
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        for fd, _event in poller.poll():
            if fd == woken:
                os.read(woken, 4096)
            elif not os.read(0, 4096):
                end_descendants(GRACE_S)
                return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
