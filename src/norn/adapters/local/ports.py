"""TCP ports: which are free, and whose a listening socket is (proc(5), /proc/net/tcp)."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

from norn.errors import PortInUse, RolloutFailed

_FIRST, _LAST = 10_000, 19_999
"""Where instances listen: below the usual ephemeral range, and beside the embedded PostgreSQL servers."""
_LISTEN = "0A"


def _ephemeral() -> range:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return range(32_768, 61_000)
    return range(int(first), int(last) + 1)


def try_bind(address: str, port: int) -> OSError | None:
    """Why nothing could listen there now, None where something could."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def choose(taken: Collection[int]) -> int:
    """A port that nothing listens on, outside the range that outgoing connections get theirs from.

    Raises RolloutFailed where there is none.
    """
    ephemeral = _ephemeral()
    candidates = [port for port in range(_FIRST, _LAST + 1) if port not in ephemeral and port not in taken]
    random.shuffle(candidates)
    for port in candidates:
        # The wildcard address conflicts with a listener on any address.
        if try_bind("0.0.0.0", port) is None:
            return port
    raise RolloutFailed(
        f"No port between {_FIRST} and {_LAST} is free.", reason="no_port", hint="Stop something that listens there."
    )


def _listening_inodes(port: int) -> set[str]:
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _holds(pid: int, links: set[str]) -> bool:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                try:
                    if os.readlink(entry.path) in links:  # noqa: PTH115  (a thousand of them)
                        return True
                except OSError:
                    continue  # closed meanwhile
    except OSError:
        return False  # ended meanwhile, or another user's
    return False


def listens(port: int, pids: Iterable[int]) -> bool:
    """Whether one of these processes holds a socket that listens on the port."""
    links = _listening_inodes(port)
    return bool(links) and any(_holds(pid, links) for pid in pids)


def listener(port: int) -> int | None:
    """The id of a process that listens on the port; None where there is none, or it belongs to another user."""
    links = _listening_inodes(port)
    if not links:
        return None
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return next((pid for pid in pids if _holds(pid, links)), None)


def name_of(pid: int) -> str:
    """What to call a process in a message: `name (process 123)`."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        name = "a program that has just ended"
    return f"{name} (process {pid})"


def refuse(address: str, port: int, error: OSError, app_that_has_it: str | None) -> RolloutFailed:
    """The error for a port that an app cannot have."""
    if error.errno == errno.EADDRINUSE:
        pid = listener(port)
        if app_that_has_it is not None:
            who, hint = f"the app {app_that_has_it}", "Give one of the two another port."
        else:
            who = name_of(pid) if pid is not None else "another program"
            hint = "Stop it, or change `port` in the infraspec."
        return PortInUse(
            f"Port {port} is in use by {who}.", hint=hint, reason="port_in_use", port=port, process=pid or 0
        )
    if error.errno == errno.EACCES:
        return RolloutFailed(
            f"Norn may not listen on port {port}: ports below 1024 are the superuser's.",
            reason="port_forbidden",
            hint="Choose a port above 1023, or set net.ipv4.ip_unprivileged_port_start (ip(7)).",
            port=port,
        )
    return RolloutFailed(
        f"Norn cannot listen on {address}, port {port}: {error.strerror}.",
        reason="port_unusable",
        hint="Check NORN_APPS_ADDRESS: it must be an address of this machine.",
        port=port,
    )
