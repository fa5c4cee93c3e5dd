"""A client's connection: requests come in, one after another or several at once, and are answered in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from norn.adapters.local.proxy.exchange import Exchange
from norn.adapters.local.proxy.requests import MAX_HEAD_BYTES, Header, RequestRefused, own_answer, read_request

if TYPE_CHECKING:
    from norn.adapters.local.proxy.server import Proxy

IDLE_S = 75.0
HEAD_S = 10.0
"""For all of a request's head, from its first byte."""
CONTENT_S = 60.0
"""Without a byte of a request's content, or without the client taking a byte of the answer."""
LINGER_S = 2.0
MAX_DISCARDED_BYTES = 1_048_576
"""Of a request's content that comes after its answer."""
_FOREVER = float("inf")


class ClientConnection(asyncio.Protocol):
    """Parses requests with httptools (llhttp, strict) and keeps their exchanges in order."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._transport: asyncio.Transport | None = None
        self._address = b""
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()
        self._newest: Exchange | None = None
        """The exchange of the request that was parsed last; it may be answered before it is complete."""
        self._discarded = 0
        self._url = b""
        self._headers: list[Header] = []
        self._in_head = False
        self._head_bytes = 0
        self._rest: bytes | None = None
        """What came behind a request that wants another protocol, until it is clear whether it gets it."""
        self._refusal: tuple[int, str] | None = None
        """The answer to what could not be read, once all before it is answered."""
        self._last = False
        """Nothing that comes from now on is read."""
        self._tunnel: Exchange | None = None
        self._reading = True
        self.write_paused = False
        self.deadline = proxy.now + HEAD_S
        """When the connection ends unless something happens, in seconds of the loop's clock."""

    # ---- the protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]).encode() if peer else b"unknown"
        self._proxy.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._proxy.clients.discard(self)
        while self._queue:
            self._queue.popleft().abandon()

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.tunnel_data(data)
            return
        if self._last:
            return
        if self._rest is not None:
            self._rest += data
            return
        was_in_head = self._in_head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self._unreadable(error)
        else:
            if was_in_head and self._in_head:
                self._count(len(data))
        self.update_reading()

    def eof_received(self) -> bool:
        if self._tunnel is not None:
            self._tunnel.tunnel_eof()
            return True
        return False  # the client is gone: nobody waits for the answer

    def pause_writing(self) -> None:
        self.write_paused = True
        self.deadline = self._proxy.now + CONTENT_S
        if self._queue:
            self._queue[0].pause_answer()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.deadline = _FOREVER
        if self._queue:
            self._queue[0].resume_answer()

    # ---- what the parser finds -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._in_head = True
        self._head_bytes = 0
        if not self._queue:
            self.deadline = self._proxy.now + HEAD_S

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MAX_HEAD_BYTES:
            raise RequestRefused(431, "The request's header is larger than 64 KiB.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEAD_BYTES:
            raise RequestRefused(431, "The request's header is larger than 64 KiB.")
        if self._in_head:  # else it is a trailer, which is not passed on
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        request = read_request(
            self._parser.get_method(),
            self._url,
            self._parser.get_http_version(),
            self._headers,
            keep_alive=self._parser.should_keep_alive(),
            client=self._address,
            address=self._proxy.address,
        )
        self._head_bytes = 0
        self.deadline = self._proxy.now + CONTENT_S
        self._newest = exchange = Exchange(self._proxy, self, request)
        self._discarded = 0
        self._queue.append(exchange)
        if len(self._queue) == 1:
            exchange.start()

    def on_body(self, data: bytes) -> None:
        self.deadline = self._proxy.now + CONTENT_S
        exchange = self._newest
        assert exchange is not None
        exchange.content(data)
        if exchange.ended:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED_BYTES and not self._last:
                self._linger()

    def on_message_complete(self) -> None:
        exchange = self._newest
        assert exchange is not None
        exchange.content_end()
        if not self.write_paused:
            self.deadline = _FOREVER
        if not exchange.request.keep_alive:
            self._last = True
        if exchange.ended and not self._queue:
            self._next(exchange)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > 2 * MAX_HEAD_BYTES:
            self._refuse(431, "The request's header is larger than 64 KiB.")

    def _unreadable(self, error: Exception) -> None:
        if self._last:
            return  # what comes after the last request of a connection
        cause = error.__context__
        if isinstance(cause, RequestRefused):
            self._refuse(cause.status, cause.why)
        elif isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
            raise cause  # a defect
        else:
            self._refuse(400, f"The request cannot be read: {error}.")

    def _refuse(self, status: int, why: str) -> None:
        self._last = True
        newest = self._newest
        if newest is not None and not newest.request_complete:
            if newest.ended:
                self._linger()  # it has its answer
            else:
                newest.refuse(status, why)
        elif self._queue:
            self._refusal = (status, why)
        else:
            self._say_and_linger(status, why)

    # ---- what exchanges tell ---------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def write_eof(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """What is written is still sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def begin_tunnel(self, exchange: Exchange) -> None:
        self._tunnel = exchange
        self.deadline = _FOREVER
        if self._rest:
            exchange.tunnel_data(self._rest)
        self._rest = None
        self.update_reading()

    def exchange_over(self, exchange: Exchange) -> None:
        """Answered. The next one begins, or the connection ends."""
        self._queue.remove(exchange)
        if self._transport is None or self._transport.is_closing():
            return
        if exchange.request_complete:
            self._next(exchange)
        elif exchange.closes:
            self._linger()
        else:
            self.update_reading()  # what is still coming of its content is read and dropped

    def _next(self, exchange: Exchange) -> None:
        if exchange.closes or (self._proxy.draining and not self._queue) or (self._last and not self._queue):
            if self._refusal is not None and not exchange.closes:
                self._say_and_linger(*self._refusal)
            else:
                self.close()
            return
        if self._queue:
            self._queue[0].start()
        else:
            self.deadline = self._proxy.now + IDLE_S
        self._read_rest()
        self.update_reading()

    def exchange_failed(self, exchange: Exchange, status: int, why: str) -> None:
        """No replica has answered, or not to the end."""
        if exchange.answered:
            self._queue.clear()
            self.abort()  # the only way to tell a client that an answer is not complete
            return
        head_only = exchange.request.method == b"HEAD"
        self.write(own_answer(status, why, close=exchange.closes, head_only=head_only))
        exchange.answered = True
        self.exchange_over(exchange)

    def refuse_started(self, exchange: Exchange, status: int, why: str) -> None:
        """The content of a request that has begun cannot be read."""
        if exchange is not self._queue[0]:
            self._queue.pop()  # those before it are answered first
            self._refusal = (status, why)
        elif exchange.answered:
            self._queue.clear()
            self.abort()
        else:
            self._queue.clear()
            self._say_and_linger(status, why)

    # ---- inside ----------------------------------------------------------------------------------------------

    def _read_rest(self) -> None:
        if self._rest is not None and not self._queue:
            rest, self._rest = self._rest, None
            self._parser = httptools.HttpRequestParser(self)
            if rest:
                self.data_received(rest)

    def _say_and_linger(self, status: int, why: str) -> None:
        self.write(own_answer(status, why, close=True))
        self._linger()

    def _linger(self) -> None:
        """End the connection so that the client can read the answer: a close with unread data would reset it."""
        self._last = True
        self.deadline = self._proxy.now + LINGER_S
        self.write_eof()
        self.update_reading()

    def update_reading(self) -> None:
        """Read from the client as long as what it sends can be passed on."""
        transport, queue = self._transport, self._queue
        if transport is None or transport.is_closing():
            return
        waiting = len(queue) > 1 or (self._rest is not None) or (bool(queue) and queue[-1].blocked)
        if waiting and self._reading:
            self._reading = False
            transport.pause_reading()
        elif not waiting and not self._reading:
            self._reading = True
            transport.resume_reading()

    def past_deadline(self) -> None:
        """Called by the server's clock."""
        if self._in_head and not self._queue and not self._last:
            self._refuse(408, "The request's header did not come in time.")
        else:
            self.abort()

    @property
    def idle(self) -> bool:
        return not self._queue and not self._in_head
