"""Snapshot and restore of pgbench's tables against bare pg_dump and pg_restore, and what clients see of the swap.

Wants PostgreSQL 15 of Debian with pgbench (apt-get install postgresql-15).
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from tests.fixtures.postgres import PostgresServer

from benchmarks.report import show
from norn.adapters.postgres.clients import find_client
from norn.adapters.postgres.sessions import client_environment
from norn.adapters.snapshots.dumps import DumpSnapshots
from norn.adapters.snapshots.restores import PostgresRestores
from norn.domain.ports import AppDatabase
from norn.domain.snapshots import Snapshot, SnapshotOrder

MAJOR, SMALL, LARGE, CLIENTS = 15, 5, 50, 20
REACH_SNAPSHOT, REACH_RESTORE, REACH_GAP_S = 1.3, 1.15, 0.5


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


@dataclass
class Clients:
    """Twenty that ask again and again, and connect anew when they lose their connection."""

    url: str
    gaps: list[float] = field(default_factory=lambda: [0.0] * CLIENTS)
    """The longest time between two answers, for each."""
    failures: list[int] = field(default_factory=lambda: [0] * CLIENTS)
    over: threading.Event = field(default_factory=threading.Event)

    def work(self, number: int) -> None:
        last = time.perf_counter()
        while not self.over.is_set():
            try:
                with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
                    while not self.over.is_set():
                        connection.execute("SELECT abalance FROM pgbench_accounts WHERE aid = 1").fetchone()
                        now = time.perf_counter()
                        self.gaps[number], last = max(self.gaps[number], now - last), now
                        self.over.wait(0.005)
            except psycopg.Error:
                self.failures[number] += 1
                self.over.wait(0.005)


@contextmanager
def clients(url: str) -> Iterator[Clients]:
    found = Clients(url)
    threads = [threading.Thread(target=found.work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    try:
        yield found
        time.sleep(1)
    finally:
        found.over.set()
        for thread in threads:
            thread.join()


class Bench:
    def __init__(self, server: PostgresServer, directory: Path, scale: int) -> None:
        self.name = f"bench{scale}"
        self.server = server
        self.url = make_conninfo(server.url, dbname=self.name)
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {self.name}")
            version = connection.info.server_version
        self.client("pgbench", "--initialize", "--quiet", f"--scale={scale}")
        self.database = AppDatabase("bench", self.name, self.url, self.url, version)
        self.directory = directory
        self.snapshots = DumpSnapshots(directory)
        self.restores = PostgresRestores(self.snapshots)

    def client(self, name: str, *arguments: str, database: str = "") -> None:
        environment = client_environment(make_conninfo(self.url, dbname=database or self.name))
        program = find_client(name, MAJOR)
        done = subprocess.run([program, *arguments], env=environment, capture_output=True, check=False)
        if done.returncode != 0 and name != "pg_restore":
            raise RuntimeError(done.stderr.decode())

    def snapshot(self) -> Snapshot:
        order = SnapshotOrder("bench", "abc123def456", "bench", "bench", datetime.now(UTC))
        return asyncio.run(self.snapshots.take(self.database, order, lambda _text: None))

    def drop(self, name: str) -> None:
        asyncio.run(self.restores.drop(self.database, name))

    def create(self, name: str) -> None:
        with self.server.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")


def snapshot_and_restore(bench: Bench) -> None:
    bare_file = str(bench.directory / "bare.dump")
    bench.client("pg_dump", "--format=custom", f"--file={bare_file}")  # both find the tables in memory
    bare, ours, taken = [], [], bench.snapshot()
    for _ in range(3):
        bare.append(timed(lambda: bench.client("pg_dump", "--format=custom", f"--file={bare_file}")))
        ours.append(timed(bench.snapshot))
    ratio = min(ours) / min(bare)
    show(
        "snapshot",
        {"nornS": round(min(ours), 2), "pgDumpS": round(min(bare), 2), "ratio": round(ratio, 2)},
        reach=f"at most {REACH_SNAPSHOT} times pg_dump -Fc",
        reached=ratio <= REACH_SNAPSHOT,
    )
    bare, ours = [], []
    dump = str(bench.directory / taken.name)
    for _ in range(3):
        bench.create("bare")
        restore = ("--jobs=2", "--dbname=bare", dump)
        bare.append(timed(lambda restore=restore: bench.client("pg_restore", *restore, database="bare")))  # type: ignore[misc]
        bench.drop("bare")
        ours.append(timed(lambda: asyncio.run(bench.restores.make_copy(bench.database, taken, "ours", lambda _: None))))
        bench.drop("ours")
    ratio = min(ours) / min(bare)
    show(
        "restore_until_the_swap",
        {"nornS": round(min(ours), 2), "pgRestoreS": round(min(bare), 2), "ratio": round(ratio, 2)},
        reach=f"at most {REACH_RESTORE} times pg_restore -j2",
        reached=ratio <= REACH_RESTORE,
    )


def gap(bench: Bench, scale: int) -> None:
    taken = bench.snapshot()
    with clients(bench.url) as seen:
        asyncio.run(bench.restores.make_copy(bench.database, taken, "ours", lambda _: None))
        asyncio.run(bench.restores.swap(bench.database, "ours", "former", lambda _: None))
    worst = max(seen.gaps)
    show(
        f"gap_at_scale_{scale}",
        {"longestS": round(worst, 3), "failedPerClient": round(sum(seen.failures) / CLIENTS, 2)},
        reach=f"at most {REACH_GAP_S} s",
        reached=worst <= REACH_GAP_S,
    )
    bench.drop("former")


def in_place(bench: Bench, scale: int) -> None:
    """The other way: over the live database."""
    dump = str(bench.directory / bench.snapshot().name)
    with clients(bench.url) as seen:
        bench.client("pg_restore", "--clean", "--jobs=2", f"--dbname={bench.name}", dump)
    show(
        f"pg_restore_clean_at_scale_{scale}",
        {"longestS": round(max(seen.gaps), 3), "failedPerClient": round(sum(seen.failures) / CLIENTS, 2)},
        reach="for comparison",
        reached=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="norn-bench-") as name:
        Path(name).chmod(0o755)
        server = PostgresServer(Path(name) / "server", MAJOR)
        server.start()
        try:
            small, large = (Bench(server, Path(name) / f"snapshots{scale}", scale) for scale in (SMALL, LARGE))
            for bench in (small, large):
                bench.directory.mkdir()
            gap(small, SMALL)
            gap(large, LARGE)
            snapshot_and_restore(large)
            in_place(large, LARGE)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
