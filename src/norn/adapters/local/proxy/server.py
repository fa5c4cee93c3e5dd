"""The proxy as a whole: its routes, its clients, its clock."""

from __future__ import annotations

import asyncio
import socket
import sys

from norn.adapters.local.proxy.client import ClientConnection
from norn.adapters.local.proxy.routes import Routes

_TICK_S = 1.0
_IDLE_UPSTREAM_S = 30.0
_BACKLOG = 2048


class Proxy:
    """Serves one listening socket. Everything in it runs in the one loop."""

    def __init__(self, address: str, port: int) -> None:
        self.address = f"[{address}]:{port}".encode() if ":" in address else f"{address}:{port}".encode()
        self.routes = Routes()
        self.clients: set[ClientConnection] = set()
        self.draining = False
        self.now = 0.0
        """The loop's clock as of the last tick; exact enough for time-outs of seconds."""
        self._said = 0.0
        self._unsaid = 0
        self._server: asyncio.Server | None = None
        self._clock: asyncio.Task[None] | None = None

    async def serve(self, listening: socket.socket) -> None:
        """Begin to answer; returns at once."""
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        self._server = await loop.create_server(lambda: ClientConnection(self), sock=listening, backlog=_BACKLOG)
        self._clock = loop.create_task(self._tick())

    async def drain(self, timeout_s: float) -> None:
        """Stop listening, let requests in flight come to their end, and close."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.clients and loop.time() < deadline:
            for client in [client for client in self.clients if client.idle]:
                client.close()
            await asyncio.sleep(0.05)
        for client in list(self.clients):
            client.abort()
        self.routes.switch(self.routes.generation, [])
        if self._clock is not None:
            self._clock.cancel()

    def say(self, text: str) -> None:
        """A line for the log, at most one a second: a replica that is gone fails every request."""
        if self.now - self._said < 1 and self._said:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} lines left out)" if self._unsaid else ""
        self._said, self._unsaid = self.now, 0
        print(f"{text}{more}", file=sys.stderr, flush=True)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            self.now = now = loop.time()
            for client in [client for client in self.clients if client.deadline < now]:
                client.past_deadline()
            for replica in self.routes.replicas():
                for connection in [item for item in replica.idle if item.idle_since < now - _IDLE_UPSTREAM_S]:
                    replica.idle.remove(connection)
                    connection.close()
