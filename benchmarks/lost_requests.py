"""Requests lost while a healthy app with two replicas is deployed and rolled back: 50 clients over kept connections."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path

import uvloop
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer

from benchmarks.load import Load, Tally
from benchmarks.report import show

CLIENTS = 50
ROUNDS = 3


class Traffic:
    """The clients, in a thread with a loop of its own, from the beginning of the block to its end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))
        self.tally = Tally()

    async def _run(self) -> None:
        load = Load(self._port, connections=CLIENTS)
        load.start()
        while not self._stop.is_set():
            await asyncio.sleep(0.05)
        self.tally = await load.stop()

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="norn-bench-") as directory:
        server = NornServer(Path(directory))
        server.start()
        try:
            app = App(server, "bench", more="replicas: 2\n")
            app.deploy("version 0")
            with Traffic(app.port) as traffic:
                for number in range(1, ROUNDS + 1):
                    app.deploy(f"version {number}")
                for _ in range(ROUNDS):
                    back = server.norn("rollback", "bench")
                    if back.exit_status != 0:
                        raise SystemExit(back.err)
                    server.ended(back.json()["id"])
        finally:
            server.stop_all()
    tally = traffic.tally
    lost = sum(tally.lost.values())
    seen = {content.decode(): count for content, count in sorted(tally.answers.items())}
    show(
        f"requests lost, {ROUNDS} deploys and {ROUNDS} rollbacks, {CLIENTS} clients, 2 replicas",
        {"answered": tally.answered, "lost": lost, "why": dict(tally.lost), "answers by version": seen},
        reach="0",
        reached=lost == 0 and len(seen) == ROUNDS + 1,
    )


if __name__ == "__main__":
    main()
