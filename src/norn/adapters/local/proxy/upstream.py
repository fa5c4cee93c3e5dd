"""A connection to a replica: sends one request at a time and passes the response on as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from norn.adapters.local.proxy.responses import MAX_HEAD_BYTES, BadResponse, Chunks, Framing, Response, read_response
from norn.adapters.local.proxy.routes import Replica

if TYPE_CHECKING:
    from norn.adapters.local.proxy.exchange import Exchange


class UpstreamConnection(asyncio.Protocol):
    __slots__ = (
        "_buffer",
        "_chunks",
        "_left",
        "_replica",
        "_response",
        "_transport",
        "_write_paused",
        "exchange",
        "idle_since",
        "reused",
        "tunnel",
    )

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._response: Response | None = None
        self._chunks = Chunks()
        self._left = 0
        self._write_paused = False
        self.exchange: Exchange | None = None
        self.reused = False
        self.tunnel = False
        self.idle_since = 0.0

    # ---- what an exchange asks for ---------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def write_paused(self) -> bool:
        """Whether the replica takes the request's content more slowly than it comes."""
        return self._write_paused

    def carry(self, exchange: Exchange, content: list[bytes]) -> None:
        """Send the request, and from now on its response to the exchange."""
        self.exchange = exchange
        self._response = None
        self._buffer = b""
        if exchange.client_paused:
            self.pause_reading()
        head = exchange.request.head
        self.write(head + b"".join(content) if content else head)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def write_eof(self) -> None:
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        self.exchange = None
        if self._transport is not None:
            self._transport.abort()

    # ---- the protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        self._write_paused = True
        if self.exchange is not None:
            self.exchange.flow_changed()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self.exchange is not None:
            self.exchange.flow_changed()

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()  # an answer to nothing
            return
        if self.tunnel:
            exchange.answer(data)
            return
        try:
            if self._response is None:
                self._take_head(exchange, data)
            else:
                self._take_content(exchange, self._response, data, b"")
        except BadResponse as error:
            self._end(lost=f"it does not speak HTTP: {error}")

    def eof_received(self) -> bool:
        if self.tunnel and self.exchange is not None:
            self.exchange.upstream_eof()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        exchange = self.exchange
        if exchange is None:
            if self in self._replica.idle:
                self._replica.idle.remove(self)
            return
        response = self._response
        if self.tunnel:
            self._end()
        elif response is not None and response.framing is Framing.CLOSE and exc is None:
            if exchange.request.http11:
                exchange.answer(b"0\r\n\r\n")
            self._end()
        elif response is None and not self._buffer and self.reused and not exchange.answered:
            self.exchange = None
            exchange.closed_before_answer()
        else:
            self._end(lost="it closed the connection before its answer was complete")

    # ---- inside ----------------------------------------------------------------------------------------------

    def _take_head(self, exchange: Exchange, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD_BYTES:
                    raise BadResponse("its header is larger than 64 KiB")
                self._buffer = data
                return
            response = read_response(data[:end], exchange.request.method)
            data = data[end + 4 :]
            if response.status == 101:
                self._begin_tunnel(exchange, response, data)
                return
            if response.status >= 200:
                break
            if exchange.request.http11:
                exchange.answer(response.head + b"\r\n\r\n")
        self._response = response
        self._left = response.length
        head = self._client_head(exchange, response)
        if response.framing is Framing.NONE or (response.framing is Framing.LENGTH and not response.length):
            exchange.answer(head)
            self._end(more=bool(data))
            return
        if response.framing is Framing.CHUNKED:
            self._chunks = Chunks()
        self._take_content(exchange, response, data, head)

    def _client_head(self, exchange: Exchange, response: Response) -> bytes:
        head = response.head
        request = exchange.request
        if exchange.proxy.draining:
            exchange.close_after()
        if response.framing in (Framing.CHUNKED, Framing.CLOSE):
            if request.http11:
                head += b"\r\nTransfer-Encoding: chunked"
            else:
                exchange.close_after()
        if exchange.closes:
            return head + b"\r\nConnection: close\r\n\r\n"
        return head + (b"\r\n\r\n" if request.http11 else b"\r\nConnection: keep-alive\r\n\r\n")

    def _take_content(self, exchange: Exchange, response: Response, data: bytes, head: bytes) -> None:
        """Pass on what came of the content, behind what is still unsent of the head."""
        match response.framing:
            case Framing.LENGTH:
                if len(data) < self._left:
                    self._left -= len(data)
                    exchange.answer(head + data)
                    return
                exchange.answer(head + data[: self._left])
                self._end(more=len(data) > self._left)
            case Framing.CHUNKED:
                taken, payload = self._chunks.feed(data)
                exchange.answer(head + (data[:taken] if exchange.request.http11 else b"".join(payload)))
                if self._chunks.done:
                    self._end(more=taken < len(data))
            case _:
                framed = b"%x\r\n%b\r\n" % (len(data), data) if data and exchange.request.http11 else data
                exchange.answer(head + framed)

    def _begin_tunnel(self, exchange: Exchange, response: Response, data: bytes) -> None:
        if not exchange.request.upgrade:
            raise BadResponse("it switches protocols without being asked")
        self.tunnel = True
        switched = b"\r\nConnection: Upgrade\r\nUpgrade: " + response.upgrade + b"\r\n\r\n"
        exchange.answer(response.head + switched + data)
        exchange.begin_tunnel()

    def _end(self, *, more: bool = False, lost: str = "") -> None:
        """The exchange is over; the connection is kept where that is sound."""
        exchange, self.exchange = self.exchange, None
        assert exchange is not None
        response = self._response
        keep = not lost and not more and response is not None and response.keep_alive and exchange.request_complete
        self._response = None
        if keep and self.usable:
            self.resume_reading()
            self.reused = True
            self.idle_since = exchange.proxy.now
            keep = self._replica.keep(self)
        if not keep:
            self.close()
        exchange.over(lost)
