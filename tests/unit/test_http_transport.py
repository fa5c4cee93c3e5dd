"""aiohttp's connections under httpx2: answers, errors and time limits are httpx2's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest

from norn.adapters.http_transport import FastTransport

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request as it is told to, and counts connections."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.connections = 0
        self.url = ""
        self.requests: list[bytes] = []
        self._ends: list[asyncio.Future[None]] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        end = asyncio.get_running_loop().create_future()
        self._ends.append(end)
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            self.requests.append(head)
            await self._answer(head, writer)
            if writer.is_closing():
                break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        end.set_result(None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            await asyncio.gather(*self._ends)


def says(text: bytes) -> Answer:
    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return answer


@asynccontextmanager
async def client(read_s: float = 30.0) -> AsyncIterator[httpx2.AsyncClient]:
    timeout = httpx2.Timeout(30.0, read=read_s)
    async with httpx2.AsyncClient(transport=FastTransport(), timeout=timeout, trust_env=False) as found:
        yield found


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Said: yes\r\n\r\nhello"


async def test_an_answer_has_its_status_headers_and_body() -> None:
    async with Server(says(OK)).running() as server, client() as http:
        answer = await http.get(server.url)
    assert (answer.status_code, answer.headers["x-said"], answer.text) == (200, "yes", "hello")


async def test_connections_are_used_again() -> None:
    async with Server(says(OK)).running() as server, client() as http:
        for _ in range(3):
            await http.get(server.url)
    assert server.connections == 1


async def test_what_was_not_read_to_its_end_is_not_used_again() -> None:
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    async with Server(says(endless)).running() as server, client() as http:
        for _ in range(2):
            async with http.stream("GET", server.url) as answer:
                assert await anext(answer.aiter_bytes()) == b"hello"
    assert server.connections == 2


async def test_the_path_arrives_as_it_was_given() -> None:
    async with Server(says(OK)).running() as server, client() as http:
        await http.get(f"{server.url}/a%2Fb?x=%20")
    assert server.requests[0].startswith(b"GET /a%2Fb?x=%20 HTTP/1.1\r\n")


async def test_redirects_and_cookies_are_for_the_client_to_follow() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with Server(says(moved)).running() as server, client() as http:
        answer = await http.get(server.url)
    assert (answer.status_code, len(server.requests)) == (302, 1)


async def _silent(_head: bytes, _writer: asyncio.StreamWriter) -> None:
    pass


@pytest.mark.parametrize(
    "answer",
    [_silent, says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")],
    ids=["silent", "stops in the middle"],
)
async def test_what_does_not_come_in_time_is_a_timeout_of_httpx2(answer: Answer) -> None:
    async with Server(answer).running() as server, client(read_s=0.2) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.get(server.url)


async def test_what_is_not_http_is_a_protocol_error() -> None:
    async with Server(says(b"this is not HTTP\r\n\r\n")).running() as server, client() as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get(server.url)


async def test_an_answer_that_breaks_off_is_a_protocol_error() -> None:
    async def breaks(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        writer.close()

    async with Server(breaks).running() as server, client() as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get(server.url)


async def test_nobody_there_is_a_connect_error() -> None:
    async with Server(says(OK)).running() as server:
        url = server.url
    async with client() as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get(url)
