"""One request and its response: which replica gets it, and what happens where that one does not answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from norn.adapters.local.proxy.requests import Request
from norn.adapters.local.proxy.routes import Replica
from norn.adapters.local.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from norn.adapters.local.proxy.client import ClientConnection
    from norn.adapters.local.proxy.server import Proxy

CONNECT_TIMEOUT_S = 5.0
REPLICA_HOST = "127.0.0.1"


class Exchange:
    __slots__ = (
        "_client",
        "_client_eof",
        "_connection",
        "_pending",
        "_replica",
        "_retried",
        "_task",
        "_tried",
        "_upstream_eof",
        "answered",
        "closes",
        "ended",
        "proxy",
        "request",
        "request_complete",
    )

    def __init__(self, proxy: Proxy, client: ClientConnection, request: Request) -> None:
        self.proxy = proxy
        self._client = client
        self.request = request
        self.request_complete = False
        self.answered = False
        """Whether the client has got a part of the answer."""
        self.closes = not request.keep_alive
        """Whether the client's connection ends with the answer."""
        self.ended = False
        self._pending: list[bytes] = []
        self._connection: UpstreamConnection | None = None
        self._replica: Replica | None = None
        self._tried: set[Replica] = set()
        self._retried = False
        self._upstream_eof = False
        self._client_eof = False
        self._task: asyncio.Task[None] | None = None

    # ---- finding a replica -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the request to the replica with the fewest in flight."""
        replica = self.proxy.routes.pick(self._tried)
        if replica is None:
            if self._tried:
                self._fail(502, "No process of the app accepts connections.")
            else:
                self._fail(503, "No process of the app is running.")
            return
        self._replica = replica
        replica.in_flight += 1
        # Only what may be sent twice risks a connection that is just being closed.
        connection = replica.take_idle() if self.request.replayable and not self._retried else None
        if connection is not None:
            self._send(connection)
        else:
            self._task = asyncio.get_running_loop().create_task(self._connect(replica))

    async def _connect(self, replica: Replica) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(replica), REPLICA_HOST, replica.port
                )
        except OSError as error:  # TimeoutError is one
            self._task = None
            self.proxy.say(f"{replica.instance} does not accept a connection: {error.strerror or 'time-out'}")
            self._leave_replica()
            self._tried.add(replica)
            self.start()
            return
        self._task = None
        if self.ended:
            connection.close()
            return
        self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        content, self._pending = self._pending, []
        connection.carry(self, content)
        if content:
            self.flow_changed()

    def closed_before_answer(self) -> None:
        """A connection that had been used before closed: nobody knows whether the replica saw the request.

        It was a replayable one, so it is sent again, once, on a fresh connection.
        """
        self._connection = None
        self._leave_replica()
        self._retried = True
        self.start()

    def _leave_replica(self) -> None:
        if self._replica is not None:
            self._replica.in_flight -= 1
            self._replica = None

    # ---- from the client -------------------------------------------------------------------------------------

    @property
    def blocked(self) -> bool:
        """Whether the client has to wait before it sends more of the content."""
        if self._connection is None:
            return bool(self._pending)
        return self._connection.write_paused

    @property
    def client_paused(self) -> bool:
        return self._client.write_paused

    def content(self, data: bytes) -> None:
        """A part of the request's content."""
        if self.request.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._forward(data)

    def content_end(self) -> None:
        self.request_complete = True
        if self.request.chunked:
            self._forward(b"0\r\n\r\n")

    def tunnel_data(self, data: bytes) -> None:
        self._forward(data)

    def tunnel_eof(self) -> None:
        self._client_eof = True
        if self._connection is not None:
            self._connection.write_eof()
        if self._upstream_eof:
            self._client.close()

    def _forward(self, data: bytes) -> None:
        if self.ended:
            return  # answered before it was complete
        if self._connection is None:
            self._pending.append(data)
        else:
            self._connection.write(data)

    def pause_answer(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_answer(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def abandon(self) -> None:
        """The client is gone."""
        if self.ended:
            return
        self.ended = True
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._leave_replica()

    def refuse(self, status: int, why: str) -> None:
        """The rest of the request cannot be read."""
        self.abandon()
        self.ended = True
        self._client.refuse_started(self, status, why)

    # ---- from the replica ------------------------------------------------------------------------------------

    def answer(self, data: bytes) -> None:
        """A part of the response, as the client gets it."""
        self.answered = True
        self._client.write(data)

    def close_after(self) -> None:
        self.closes = True

    def flow_changed(self) -> None:
        self._client.update_reading()

    def begin_tunnel(self) -> None:
        self.closes = True
        self._client.begin_tunnel(self)

    def upstream_eof(self) -> None:
        self._upstream_eof = True
        if self._client_eof:
            self._client.close()
        else:
            self._client.write_eof()

    def over(self, lost: str) -> None:
        """The connection to the replica has done its part; `lost` says why the answer is not complete."""
        instance = self._replica.instance if self._replica else "?"
        self._connection = None
        self._leave_replica()
        if not lost:
            self.ended = True
            self._client.exchange_over(self)
            return
        self.proxy.say(f"{instance} gave no answer: {lost}")
        self._fail(502, "The app closed the connection without an answer.")

    def _fail(self, status: int, why: str) -> None:
        self.ended = True
        self._client.exchange_failed(self, status, why)
