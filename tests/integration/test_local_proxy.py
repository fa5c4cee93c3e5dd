"""The front proxy between raw sockets: what a client sends, what the app gets, and back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from norn.adapters.local.proxy import client as client_module
from norn.adapters.local.proxy.server import Proxy

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIMIT_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Bench:
    """A proxy, apps that answer as a test wants, and clients; all of it ends with the test."""

    def __init__(self) -> None:
        self.proxy = Proxy("127.0.0.1", 0)
        self.port = 0
        self.seen: list[bytes] = []
        """Each request as an app got it, head and content."""
        self.connections = 0
        """How many the apps were opened."""
        self._servers: list[asyncio.Server] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        await self.proxy.serve(listening)

    async def stop(self) -> None:
        for writer in self._writers:
            with suppress(AttributeError):  # what asyncio says of one that has closed in good order
                writer.transport.abort()
        await self.proxy.drain(0)
        for server in self._servers:
            server.close()

    async def app(self, handler: Handler) -> int:
        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            self._writers.append(writer)
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(counted, "127.0.0.1", 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def route(self, *handlers: Handler, generation: int = 1) -> None:
        """All requests go to new apps with these handlers from now on."""
        ports = [await self.app(handler) for handler in handlers]
        self.proxy.routes.switch(generation, [(f"{generation}-{n}", port) for n, port in enumerate(ports)])

    def answering(self, *answers: bytes, close: bool = False) -> Handler:
        """An app that answers each request with the next of these, the last one again and again."""

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for number in range(1_000_000):
                self.seen.append(await read_message(reader))
                writer.write(answers[min(number, len(answers) - 1)])
                await writer.drain()
                if close:
                    return

        return handler

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        self._writers.append(writer)
        return reader, writer

    async def exchange(self, raw: bytes) -> bytes:
        """Send this, and read until the connection ends."""
        reader, writer = await self.client()
        writer.write(raw)
        return await reader.read()


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """A request or response with its content, as the bytes that came."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await reader.readuntil(b"\r\n")
        return head + body
    if b"content-length: " in lower:
        length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
        return head + await reader.readexactly(length)
    return head


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            yield made
    finally:
        await made.stop()


def get(path: bytes = b"/", more: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"GET %b HTTP/%b\r\nHost: shop\r\n%b\r\n" % (path, version, more)


CLOSE = b"Connection: close\r\n"


# ---- requests and answers ------------------------------------------------------------------------------------------


async def test_an_answer_reaches_the_client_whole(bench: Bench) -> None:
    await bench.route(bench.answering(b"HTTP/1.1 201 Made\r\nETag: x\r\nContent-Length: 5\r\n\r\nhello"))
    answer = await bench.exchange(get(more=CLOSE))
    assert answer == b"HTTP/1.1 201 Made\r\nETag: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


async def test_a_connection_serves_one_request_after_another(bench: Bench) -> None:
    await bench.route(bench.answering(OK))
    reader, writer = await bench.client()
    for _ in range(3):
        writer.write(get())
        assert (await read_message(reader)).endswith(b"ok")
    assert bench.connections == 1


async def test_requests_sent_at_once_are_answered_in_order(bench: Bench) -> None:
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number for number in range(5)]
    await bench.route(bench.answering(*answers))
    reader, writer = await bench.client()
    writer.write(b"".join(get(b"/%d" % number) for number in range(5)))
    assert [(await read_message(reader))[-1:] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_http_1_0_ends_the_connection_after_the_answer(bench: Bench) -> None:
    await bench.route(bench.answering(OK))
    assert (await bench.exchange(get(version=b"1.0"))).endswith(b"ok")


async def test_http_1_0_may_keep_the_connection(bench: Bench) -> None:
    await bench.route(bench.answering(OK))
    reader, writer = await bench.client()
    for _ in range(2):
        writer.write(get(more=b"Connection: keep-alive\r\n", version=b"1.0"))
        assert b"Connection: keep-alive" in await read_message(reader)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 7\r\n\r\n'),
    ],
)
async def test_an_answer_without_content_does_not_hold_the_next_one_up(
    bench: Bench, method: bytes, answer: bytes
) -> None:
    await bench.route(bench.answering(answer, OK))
    reader, writer = await bench.client()
    writer.write(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == answer
    writer.write(get())
    assert await read_message(reader) == OK


async def test_the_content_of_a_post_reaches_the_app(bench: Bench) -> None:
    await bench.route(bench.answering(OK))
    content = b"x" * 300_000
    reader, writer = await bench.client()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
    await read_message(reader)
    assert bench.seen[0].endswith(b"\r\n\r\n" + content)


async def test_chunks_reach_the_app_as_chunks(bench: Bench) -> None:
    await bench.route(bench.answering(OK))
    reader, writer = await bench.client()
    writer.write(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    await read_message(reader)
    assert bench.seen[0].endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


CHUNKED_ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


async def test_a_chunked_answer_reaches_the_client_as_chunks(bench: Bench) -> None:
    await bench.route(bench.answering(CHUNKED_ANSWER))
    reader, writer = await bench.client()
    for _ in range(2):
        writer.write(get())
        assert await read_message(reader) == CHUNKED_ANSWER


async def test_a_chunked_answer_to_http_1_0_is_plain(bench: Bench) -> None:
    await bench.route(bench.answering(CHUNKED_ANSWER))
    head, _, body = (await bench.exchange(get(version=b"1.0"))).partition(b"\r\n\r\n")
    assert body == b"abcde"
    assert b"chunked" not in head


async def test_an_answer_up_to_the_end_of_the_connection_keeps_the_clients_open(bench: Bench) -> None:
    await bench.route(bench.answering(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True))
    reader, writer = await bench.client()
    for _ in range(2):
        writer.write(get())
        assert (await read_message(reader)).endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


async def test_an_answer_comes_while_it_is_written(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await go_on.wait()
        writer.write(b"def")

    await bench.route(slowly)
    reader, writer = await bench.client()
    writer.write(get())
    await reader.readuntil(b"abc")
    go_on.set()
    assert await reader.readexactly(3) == b"def"


async def test_interim_answers_reach_the_client(bench: Bench) -> None:
    async def careful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"100-continue" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(3) == b"abc"
        writer.write(OK)

    await bench.route(careful)
    reader, writer = await bench.client()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abc")
    assert await read_message(reader) == OK


async def refuse_content(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await reader.read()  # closing with data unread would reset the connection, and take the answer along


async def test_content_that_comes_after_its_answer_is_dropped(bench: Bench) -> None:
    await bench.route(refuse_content)
    reader, writer = await bench.client()
    for _ in range(2):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n" + b"x" * 100)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        writer.write(b"x" * 100)


async def test_much_content_after_its_answer_ends_the_connection(bench: Bench) -> None:
    await bench.route(refuse_content)
    reader, writer = await bench.client()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 2_000_000)
    assert (await reader.read()).startswith(b"HTTP/1.1 413")


# ---- other protocols -----------------------------------------------------------------------------------------------

UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


async def test_a_connection_that_is_upgraded_becomes_a_tunnel(bench: Bench) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bench.seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        while data := await reader.read(100):
            writer.write(data.upper())

    await bench.route(echo)
    reader, writer = await bench.client()
    writer.write(get(more=UPGRADE) + b"early")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"Upgrade: websocket" in head
    assert await reader.readexactly(7) == b"hiEARLY"
    writer.write(b"more")
    assert await reader.readexactly(4) == b"MORE"
    writer.write_eof()
    assert await reader.read() == b""


async def test_an_upgrade_that_the_app_declines_is_a_request_like_others(bench: Bench) -> None:
    await bench.route(bench.answering(OK))
    reader, writer = await bench.client()
    writer.write(get(more=UPGRADE) + get(b"/next"))
    assert await read_message(reader) == OK
    assert await read_message(reader) == OK
    assert bench.seen[1].startswith(b"GET /next")


async def test_a_tunnel_counts_as_a_request_in_flight(bench: Bench) -> None:
    async def open_ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.read()

    await bench.route(open_ended)
    reader, writer = await bench.client()
    writer.write(get(more=UPGRADE))
    await reader.readuntil(b"\r\n\r\n")
    assert bench.proxy.routes.in_flight() == {"1-0": 1}
    writer.transport.abort()
    while bench.proxy.routes.in_flight()["1-0"]:
        await asyncio.sleep(0.01)


async def test_a_switch_of_protocols_nobody_asked_for_is_a_bad_answer(bench: Bench) -> None:
    await bench.route(bench.answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"))
    assert (await bench.exchange(get(more=CLOSE))).startswith(b"HTTP/1.1 502 ")


# ---- what is refused -----------------------------------------------------------------------------------------------

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: +3\r\n\r\nabc", 400),
        (POST + b"Content-Length : 3\r\n\r\nabc", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 12_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 400_000, 431),
    ],
)
async def test_what_could_be_read_in_two_ways_never_reaches_the_app(bench: Bench, raw: bytes, status: int) -> None:
    await bench.route(bench.answering(OK))
    reader, writer = await bench.client()
    writer.write(raw)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"Connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert bench.seen == []


async def test_requests_before_a_bad_one_are_answered(bench: Bench) -> None:
    await bench.route(bench.answering(OK))
    answer = await bench.exchange(get() + get() + b"GET / HTTP/1.1\r\nbroken\r\n\r\n")
    assert answer.startswith(OK + OK + b"HTTP/1.1 400 ")


async def test_nothing_behind_the_last_request_of_a_connection_is_read(bench: Bench) -> None:
    await bench.route(bench.answering(OK))
    await bench.exchange(get(more=CLOSE) + get(b"/smuggled"))
    assert len(bench.seen) == 1


async def test_a_header_that_does_not_come_ends_the_connection(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = await bench.client()
    while not bench.proxy.clients:
        await asyncio.sleep(0.01)
    monkeypatch.setattr(client_module, "HEAD_S", 0.1)  # from the first byte of the head on
    writer.write(b"GET / HTTP/1.1\r\nHo")
    assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_a_connection_on_which_nothing_comes_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "IDLE_S", 0.1)
    await bench.route(bench.answering(OK))
    assert await bench.exchange(get()) == OK


# ---- apps that fail ------------------------------------------------------------------------------------------------


async def test_without_a_process_the_answer_is_503(bench: Bench) -> None:
    reader, writer = await bench.client()
    for _ in range(2):  # and the connection stays
        writer.write(get())
        assert (await read_message(reader)).startswith(b"HTTP/1.1 503 ")


async def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


async def test_where_nothing_accepts_the_answer_is_502(bench: Bench) -> None:
    bench.proxy.routes.switch(1, [("1-1", await unused_port()), ("1-2", await unused_port())])
    assert (await bench.exchange(get(more=CLOSE))).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_request_goes_to_the_next_process_where_one_does_not_accept(bench: Bench, method: bytes) -> None:
    port = await bench.app(bench.answering(OK))
    bench.proxy.routes.switch(1, [("1-1", await unused_port()), ("1-2", port)])
    reader, writer = await bench.client()
    for _ in range(4):
        writer.write(method + b" / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert await read_message(reader) == OK


async def test_a_request_is_sent_again_where_its_reused_connection_was_closing(bench: Bench) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bench.seen.append(await read_message(reader))
        writer.write(OK)
        if bench.connections == 1:
            await reader.readuntil(b"\r\n\r\n")  # the next request dies with the connection

    await bench.route(once)
    reader, writer = await bench.client()
    for _ in range(2):
        writer.write(get())
        assert await read_message(reader) == OK
    assert bench.connections == 2


async def test_a_post_never_uses_a_connection_again(bench: Bench) -> None:
    await bench.route(bench.answering(OK))
    reader, writer = await bench.client()
    for _ in range(3):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        await read_message(reader)
    assert bench.connections == 3


async def test_a_request_that_a_process_dies_of_is_not_sent_again(bench: Bench) -> None:
    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bench.seen.append(await read_message(reader))

    await bench.route(dying)
    assert (await bench.exchange(get(more=CLOSE))).startswith(b"HTTP/1.1 502 ")
    assert len(bench.seen) == 1


async def test_an_answer_that_breaks_off_breaks_off_at_the_client_too(bench: Bench) -> None:
    await bench.route(bench.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", close=True))
    reader, writer = await bench.client()
    writer.write(get())
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await read_message(reader)


@pytest.mark.parametrize(
    "answer",
    [b"HELLO\r\n\r\n", b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000],
)
async def test_an_answer_that_is_not_http_is_502(bench: Bench, answer: bytes) -> None:
    await bench.route(bench.answering(answer))
    assert (await bench.exchange(get(more=CLOSE))).startswith(b"HTTP/1.1 502 ")


async def test_what_a_process_says_after_its_answer_reaches_nobody(bench: Bench) -> None:
    await bench.route(bench.answering(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
    reader, writer = await bench.client()
    for _ in range(2):
        writer.write(get())
        assert await read_message(reader) == OK
    assert bench.connections == 2


async def test_a_client_that_leaves_takes_its_request_along(bench: Bench) -> None:
    left = asyncio.Event()

    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        bench.seen.append(b"begun")
        await reader.read()
        left.set()

    await bench.route(patient)
    _, writer = await bench.client()
    writer.write(get())
    while not bench.seen:
        await asyncio.sleep(0.01)
    writer.transport.abort()
    await left.wait()
    assert bench.proxy.routes.in_flight() == {"1-0": 0}


# ---- memory --------------------------------------------------------------------------------------------------------

HUGE = 64 * 1024 * 1024


async def test_an_answer_is_not_collected_for_a_client_that_does_not_read(bench: Bench) -> None:
    sent = 0

    async def pouring(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % HUGE)
        while sent < HUGE:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    await bench.route(pouring)
    reader, writer = await bench.client()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(get())
    await stands_still(lambda: sent)
    assert sent < HUGE / 2
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    left = HUGE
    while left:
        left -= len(await reader.read(1 << 20))


async def test_content_is_not_collected_for_an_app_that_does_not_read(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        left = HUGE
        while left:
            left -= len(await reader.read(1 << 20))
        writer.write(OK)

    await bench.route(busy)
    reader, writer = await bench.client()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % HUGE)
    sent = 0

    async def pour() -> None:
        nonlocal sent
        while sent < HUGE:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    pouring = asyncio.create_task(pour())
    await stands_still(lambda: sent)
    assert 0 < sent < HUGE / 2
    go_on.set()
    assert await read_message(reader) == OK
    await pouring


async def stands_still(figure: Callable[[], int]) -> None:
    """Until the figure has begun to grow, and has stopped."""
    before, same = -1, 0
    while same < 15:
        same = same + 1 if figure() == before and before > 0 else 0
        before = figure()
        await asyncio.sleep(0.02)


# ---- switching -----------------------------------------------------------------------------------------------------


async def test_after_a_switch_a_kept_connection_gets_the_new_version(bench: Bench) -> None:
    await bench.route(bench.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold"))
    reader, writer = await bench.client()
    writer.write(get())
    assert (await read_message(reader)).endswith(b"old")
    await bench.route(bench.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew"), generation=2)
    writer.write(get())
    assert (await read_message(reader)).endswith(b"new")


async def test_a_request_that_began_before_a_switch_is_answered_by_the_old_version(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        bench.seen.append(b"begun")
        await go_on.wait()
        writer.write(OK)

    await bench.route(slow)
    reader, writer = await bench.client()
    writer.write(get())
    while not bench.seen:
        await asyncio.sleep(0.01)
    await bench.route(bench.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew"), generation=2)
    assert bench.proxy.routes.in_flight() == {"2-0": 0, "1-0": 1}
    go_on.set()
    assert await read_message(reader) == OK
    assert bench.proxy.routes.in_flight() == {"2-0": 0}


async def test_requests_go_to_the_process_with_fewer_in_flight(bench: Bench) -> None:
    go_on = asyncio.Event()
    began: list[str] = []

    def waiting(name: str) -> Handler:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_message(reader)
            began.append(name)
            await go_on.wait()
            writer.write(OK)

        return handler

    await bench.route(waiting("a"), waiting("b"))
    clients = [await bench.client() for _ in range(6)]
    for number, (_, writer) in enumerate(clients):
        writer.write(get())
        while len(began) <= number:
            await asyncio.sleep(0.01)
    assert began.count("a") == began.count("b") == 3
    go_on.set()
    for reader, _ in clients:
        assert await read_message(reader) == OK


async def test_draining_answers_what_has_begun_and_closes_what_has_not(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        bench.seen.append(b"begun")
        await go_on.wait()
        writer.write(OK)

    await bench.route(slow)
    idle_reader, _ = await bench.client()
    reader, writer = await bench.client()
    writer.write(get())
    while not bench.seen:
        await asyncio.sleep(0.01)
    draining = asyncio.create_task(bench.proxy.drain(10))
    assert await idle_reader.read() == b""
    go_on.set()
    answer = await reader.read()
    assert answer.endswith(b"Connection: close\r\n\r\nok")
    await draining
