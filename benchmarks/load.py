"""A load generator: clients that ask one request after another over kept connections, and count what they lose.

    python -m benchmarks.load PORT [--connections N] [--seconds S]

As a process of its own it prints one JSON line; tests use `Load` in their own loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

CONNECT_ATTEMPTS = 50
_PAUSE_S = 0.02


@dataclass
class Tally:
    answered: int = 0
    """Complete answers with a status of 2xx."""
    lost: Counter[str] = field(default_factory=Counter)
    """What went wrong instead, and how often."""
    answers: Counter[bytes] = field(default_factory=Counter)
    """How often each content came."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "answered": self.answered,
            "lost": sum(self.lost.values()),
            "why": dict(self.lost),
            "seconds": round(self.seconds, 3),
            "perSecond": round(self.answered / self.seconds) if self.seconds else 0,
        }


class Client(asyncio.Protocol):
    """One connection: asks, awaits the answer (with Content-Length), asks again."""

    def __init__(self, load: Load, request: bytes) -> None:
        self._load = load
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        if self._load.stopping:
            self._transport.close()
            return
        self._waiting = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        at = data.lower().find(b"content-length: ", 0, end) if end >= 0 else -1
        if end < 0:
            self._buffer = data
            return
        length = int(data[at + 16 : data.find(b"\r\n", at)]) if at >= 0 else 0
        if len(data) < end + 4 + length:
            self._buffer = data
            return
        self._buffer = b""
        self._waiting = False
        self._load.count(data[9:12], data[end + 4 : end + 4 + length])
        if b"connection: close" in data[:end].lower():
            assert self._transport is not None
            self._transport.close()
        else:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._load.tally.lost["closed while waiting for an answer"] += 1
        if not self.ended.done():
            self.ended.set_result(None)


class Load:
    """Clients against a port of this machine, from `start` to `stop`."""

    def __init__(self, port: int, *, connections: int = 50, requests: tuple[bytes, ...] = ()) -> None:
        self._port = port
        self._requests = requests or (get("/"),)
        self._connections = connections
        self._tasks: list[asyncio.Task[None]] = []
        self._began = 0.0
        self.stopping = False
        self.tally = Tally()

    def count(self, status: bytes, content: bytes) -> None:
        if status[:1] == b"2":
            self.tally.answered += 1
            self.tally.answers[content] += 1
        else:
            self.tally.lost[f"status {status.decode()}"] += 1

    def start(self) -> None:
        self._began = time.perf_counter()
        self._tasks = [
            asyncio.create_task(self._keep_asking(self._requests[number % len(self._requests)]))
            for number in range(self._connections)
        ]

    async def _keep_asking(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping:
            for _ in range(CONNECT_ATTEMPTS):
                try:
                    _, client = await loop.create_connection(lambda: Client(self, request), "127.0.0.1", self._port)
                    break
                except OSError:
                    self.tally.lost["no connection"] += 1
                    await asyncio.sleep(_PAUSE_S)
            else:
                return
            await client.ended

    async def stop(self) -> Tally:
        """Let what was asked be answered, then count."""
        self.stopping = True
        await asyncio.gather(*self._tasks)
        self.tally.seconds = time.perf_counter() - self._began
        return self.tally


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n".encode()


def post(path: str, content: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def _run(port: int, connections: int, seconds: float) -> Tally:
    load = Load(port, connections=connections)
    load.start()
    await asyncio.sleep(seconds)
    return await load.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    tally = uvloop.run(_run(arguments.port, arguments.connections, arguments.seconds))
    print(json.dumps(tally.to_json()))


if __name__ == "__main__":
    main()
