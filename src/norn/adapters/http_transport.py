"""What carries httpx2's requests where a rollback waits for them: aiohttp's connections.

httpx2's own way costs 2 ms of the processor for a request with TLS, this one a quarter of that (benchmarks/README.md).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx2
from yarl import URL

_KEPT_S = 90.0
"""A rollback comes minutes after the last request, and a new TLS connection takes as long as all the rest of it."""
_TURNS = 3
_NO_LIMIT = 0
"""One app never waits for another."""


class FastTransport(httpx2.AsyncBaseTransport):
    """Of one client, on one event loop. `verify` as for `httpx2.AsyncHTTPTransport`."""

    def __init__(self, verify: ssl.SSLContext | bool = True) -> None:
        self._verify = verify
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_NO_LIMIT, ssl=self._verify, keepalive_timeout=_KEPT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        with _translated(request):
            answer = await self._open().request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=_timeout(request),
            )
        return httpx2.Response(
            answer.status,
            headers=answer.raw_headers,
            stream=_Body(answer, request),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (answer.reason or "").encode("ascii", "ignore")},
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            for _ in range(_TURNS):  # connections are closed by the event loop: TLS, then the socket
                await asyncio.sleep(0)


def _timeout(request: httpx2.Request) -> aiohttp.ClientTimeout:
    wanted = request.extensions.get("timeout", {})
    connect = wanted.get("connect")
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=wanted.get("read"))


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated(self._request):
            async for chunk in self._answer.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        connection = self._answer.connection
        if connection is not None and connection.transport is not None and not self._answer.content.at_eof():
            connection.transport.abort()  # a polite end of TLS would wait for what is still to come
        self._answer.release()


@contextmanager
def _translated(request: httpx2.Request) -> Iterator[None]:
    """aiohttp's errors as httpx2's."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx2.ConnectTimeout(str(error), request=request) from error
    except (TimeoutError, aiohttp.ServerTimeoutError) as error:
        raise httpx2.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError(str(error), request=request) from error
    except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError, aiohttp.ServerDisconnectedError) as error:
        raise httpx2.RemoteProtocolError(str(error), request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx2.ReadError(str(error), request=request) from error
