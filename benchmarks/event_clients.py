"""What 200 clients on `/api/events` cost one server while operations print, and whether one that reconnects loses any.

The clients are in another process. Each disconnects every few seconds, in the middle of whatever comes, and goes on
behind the last event that it has whole. At the end what each has seen is compared with what the database holds.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psycopg
import uvloop
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer

from benchmarks.report import show

CLIENTS = 200
APPS = 8
SECONDS = 30.0
STAY_S = (2.0, 6.0)
"""Between two reconnections of a client."""

PRINTS = """\
import time
end = time.monotonic() + 15
number = 0
while time.monotonic() < end:
    number += 1
    print("step", number, "of the build, as long as a line of a compiler usually is, with some paths in it", flush=True)
    time.sleep(0.01)
"""
_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Client:
    def __init__(self, port: int, token: str, after: int) -> None:
        self._port = port
        self._token = token
        self.seen: list[int] = []
        self._last = after
        self.connections = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Until it is told to stop: connect, listen for a while, break off, and go on behind the last one."""
        while not stop.is_set():
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(random.uniform(*STAY_S)):
                    await self._listen()

    async def drain(self, newest: int) -> None:
        """To the end of what there is."""
        while self._last < newest:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(10):
                    await self._listen(newest)

    async def _listen(self, until: int | None = None) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.connections += 1
        try:
            writer.write(
                f"GET /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._token}\r\n"
                f"Last-Event-ID: {self._last}\r\n\r\n".encode()
            )
            assert b" 200 " in await reader.readline()
            rest = b""
            while until is None or self._last < until:
                data = await reader.read(65_536)
                if not data:
                    return
                whole, found, rest = (rest + data).rpartition(b"\n\n")
                if found:
                    for number in _ID.findall(whole + found):
                        self._last = int(number)
                        self.seen.append(self._last)
        finally:
            writer.transport.abort()


class Crowd:
    """The clients, in a thread with a loop of its own, from the beginning of the block to its end."""

    def __init__(self, port: int, token: str, after: int) -> None:
        self.clients = [Client(port, token, after) for _ in range(CLIENTS)]
        self._stop = threading.Event()
        self._newest = 0
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))

    async def _run(self) -> None:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(client.run(stop)) for client in self.clients]
        while not self._stop.is_set():
            await asyncio.sleep(0.05)
        stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(client.drain(self._newest) for client in self.clients))

    def start(self) -> None:
        self._thread.start()

    def stop(self, newest: int) -> None:
        """Once each has all up to there."""
        self._newest = newest
        self._stop.set()
        self._thread.join()


def numbers(server: NornServer, after: int) -> list[int]:
    """Of all events behind that one, as the database has them."""
    directory = server.home / "postgres" / "norn"
    port, password = ((directory / name).read_text() for name in ("port", "password"))
    with psycopg.connect(host="127.0.0.1", port=port, user="norn", password=password, dbname="norn") as connection:
        rows = connection.execute("SELECT seq FROM events WHERE seq > %s ORDER BY seq", (after,)).fetchall()
    return [seq for (seq,) in rows]


def measure(server: NornServer, apps: list[App], *, crowded: bool) -> Mapping[str, float]:
    """CPU of the server as a share of one core while the apps are deployed, with the clients or without."""
    assert server.process is not None
    before = max(numbers(server, 0), default=0)
    crowd = Crowd(server.port, server.token, before) if crowded else None
    if crowd:
        crowd.start()
    began, cpu = time.monotonic(), cpu_s(server.process.pid)
    version = 0
    while time.monotonic() < began + SECONDS:
        version += 1
        ids = []
        for app in apps:
            app.commit(f"{'crowd' if crowd else 'alone'} {version}")
            ids.append(server.api("POST", f"/api/apps/{app.name}/deploy").body["id"])
        for id_ in ids:
            server.ended(id_)
    seconds, used = time.monotonic() - began, cpu_s(server.process.pid) - cpu
    there = numbers(server, before)
    figures: dict[str, float] = {"cores": used / seconds, "events": len(there), "perSecond": len(there) / seconds}
    if crowd:
        crowd.stop(there[-1])
        up_to = [[seq for seq in client.seen if seq <= there[-1]] for client in crowd.clients]
        figures["reconnections"] = sum(client.connections - 1 for client in crowd.clients)
        figures["incomplete"] = sum(seen != there for seen in up_to)
        figures["delivered"] = sum(map(len, up_to))
    return figures


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="norn-bench-") as directory:
        server = NornServer(Path(directory))
        server.start()
        try:
            apps = [
                App(server, f"bench-{number}", more="build: {command: python3 prints.py}\n") for number in range(APPS)
            ]
            for app in apps:
                (app.path / "prints.py").write_text(PRINTS)
            alone = measure(server, apps, crowded=False)
            crowded = measure(server, apps, crowded=True)
        finally:
            server.stop_all()
    show(
        f"{CLIENTS} clients on /api/events, {APPS} apps deployed all the while",
        {
            "cores of the server, with the clients": round(crowded["cores"], 2),
            "without them": round(alone["cores"], 2),
            "events": round(crowded["events"]),
            "events a second": round(crowded["perSecond"], 1),
            "delivered": round(crowded["delivered"]),
            "reconnections": round(crowded["reconnections"]),
            "clients that missed one, or got one twice": round(crowded["incomplete"]),
        },
        reach="under one core, none",
        reached=crowded["cores"] < 1 and crowded["incomplete"] == 0,
    )


if __name__ == "__main__":
    main()
