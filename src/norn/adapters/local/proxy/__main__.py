"""Start the proxy of one app: `python -m norn.adapters.local.proxy APP_DIRECTORY ADDRESS PORT UID GID`.

Listens first, then becomes that user (-1: stays who it is). What is live is read from `active.json`, later changes
come over the control socket in `APP_DIRECTORY/proxy/PORT`. SIGTERM: requests in flight come to their end.
"""

from __future__ import annotations

import asyncio
import ctypes
import encodings.idna  # noqa: F401  (nothing is imported once it is another user's)
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from norn.adapters.local import files
from norn.adapters.local.proxy import control
from norn.adapters.local.proxy.server import Proxy

DRAIN_S = 8.0
"""Below the grace that the shim gives."""
_PR_SET_PDEATHSIG = 1


def _listen(address: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((address, port))
    listening.setblocking(False)
    return listening


def _become(uid: int, gid: int) -> None:
    if uid >= 0:
        shim = os.getppid()
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        # setuid(2) clears it, and the proxy must not outlive its shim.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != shim:
            sys.exit("The shim has ended.")


def upstreams_of(active: Mapping[str, Any] | None) -> tuple[int, list[tuple[str, int]]]:
    """Generation and (instance, port) from what `active.json` says."""
    if active is None:
        return 0, []
    return active["generation"], [(item["instance"], item["port"]) for item in active["upstreams"] if item["port"]]


async def _run(proxy: Proxy, listening: socket.socket, controlling: socket.socket) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await proxy.serve(listening)
    server = await control.serve(controlling, proxy.routes)
    await ended.wait()
    await proxy.drain(DRAIN_S)
    server.close()


def main(argv: list[str]) -> None:
    directory, address, port = Path(argv[0]), argv[1], int(argv[2])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        listening = _listen(address, port)
    except OSError as error:
        sys.exit(f"cannot listen on {address}, port {port}: {error.strerror}")
    controlling = control.bind(directory / "proxy" / str(port))
    proxy = Proxy(address, port)
    proxy.routes.switch(*upstreams_of(files.read_json(directory / "active.json")))
    _become(int(argv[3]), int(argv[4]))
    uvloop.run(_run(proxy, listening, controlling))


if __name__ == "__main__":
    main(sys.argv[1:])
