"""A quick app, as quick as Python gets: raw ASGI under uvicorn with uvloop and httptools.

    python -m benchmarks.quick_app PORT [--bare]

With `--bare` there is not even uvicorn: a protocol that answers without looking at the request. No app is like that;
it shows what the proxy costs at most.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

import uvicorn
import uvloop

CONTENT = b"hello from a quick app\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(CONTENT)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": CONTENT})


class Bare(asyncio.Protocol):
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(CONTENT), CONTENT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self.answer)


async def _serve_bare(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    port = int(sys.argv[1])
    if "--bare" in sys.argv:
        uvloop.run(_serve_bare(port))
    else:
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
