"""How the server talks to a proxy: one line of JSON each way over a UNIX socket in the proxy's 0700 directory.

`{"command": "status"}` and `{"command": "switch", "generation": 3, "upstreams": [{"instance", "port"}]}` are both
answered by `{"generation": 3, "inFlight": {"3-1": 0, …}}`. After the answer to a switch no request begins at a replica
that is not in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from norn.adapters.local.proxy.routes import Routes

SOCKET_NAME = "control.sock"
_LIMIT = 1_048_576


class ControlRefused(Exception):
    """The proxy did not understand."""


@contextlib.contextmanager
def _reachable(directory: Path) -> Iterator[str]:
    """A path to the socket that is never longer than the 107 bytes that unix(7) allows."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def bind(directory: Path) -> socket.socket:
    """The listening end; what an earlier proxy left is replaced (the shim's lock keeps two from running)."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _reachable(directory) as path:
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()
        control.bind(path)
    control.listen(16)
    control.setblocking(False)
    return control


def execute(routes: Routes, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Do what a request says. Raises ControlRefused."""
    try:
        match request["command"]:
            case "status":
                pass
            case "switch":
                pairs = [(str(item["instance"]), int(item["port"])) for item in request["upstreams"]]
                routes.switch(int(request["generation"]), pairs)
            case command:
                raise ControlRefused(f"There is no command {command!r}.")
    except (KeyError, TypeError, ValueError) as error:
        raise ControlRefused(f"The request is not complete: {error!r}.") from error
    return {"generation": routes.generation, "inFlight": dict(routes.in_flight())}


async def serve(control: socket.socket, routes: Routes) -> asyncio.Server:
    """Answer requests for these routes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # whoever asked is gone
            while line := await reader.readline():
                try:
                    reply = execute(routes, json.loads(line))
                except (ControlRefused, ValueError) as error:
                    reply = {"error": str(error)}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(answer, sock=control, limit=_LIMIT)


async def ask(directory: Path, request: Mapping[str, Any], timeout_s: float = 5.0) -> Mapping[str, Any]:
    """Send a request to the proxy of that directory and return its answer.

    Raises OSError where no proxy answers (in time), ControlRefused where it does not understand.
    """
    async with asyncio.timeout(timeout_s):
        with _reachable(directory) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=_LIMIT)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            line = await reader.readline()
        finally:
            writer.close()
    if not line:
        raise ConnectionResetError("The proxy closed the connection.")
    reply: Mapping[str, Any] = json.loads(line)
    if "error" in reply:
        raise ControlRefused(str(reply["error"]))
    return reply


def switch_request(generation: int, upstreams: Sequence[tuple[str, int]]) -> Mapping[str, Any]:
    return {
        "command": "switch",
        "generation": generation,
        "upstreams": [{"instance": instance, "port": port} for instance, port in upstreams],
    }
