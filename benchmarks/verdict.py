"""The verdict: reading and comparing a schema of 2,000 tables of 20 columns, and what it adds to a rollback."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, cast

import psycopg

from benchmarks.report import show, summary_ms
from norn.adapters.accounts import for_database
from norn.adapters.postgres.connections import Connections
from norn.adapters.postgres.embedded import EmbeddedPostgres
from norn.adapters.postgres.schema import ensure_database, migrate
from norn.adapters.postgres.sessions import session
from norn.adapters.postgres.store import PostgresStore
from norn.adapters.snapshots.schemas import read_schema
from norn.domain.deployments import Deployment
from norn.domain.schema import changes
from norn.domain.targets import Question
from norn.operations.readiness import KeptReadiness
from norn.operations.services import Services

TABLES, COLUMNS = 2_000, 20
TYPES = ("text", "integer", "varchar(20)", "timestamptz")
RUNS = 5
LOOKS = 500
REACH_S = 1.0
REACH_MB = 200.0
REACH_MS = 5.0


def fill(url: str) -> None:
    """A key, an index, and a constraint or a default here and there."""
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(TABLES):
            columns = ", ".join(
                " ".join(
                    [f"c{place} {TYPES[place % 4]}", *["NOT NULL"][: place % 3 == 0], *["DEFAULT 1"][: place % 4 == 1]]
                )
                for place in range(COLUMNS - 1)
            )
            connection.execute(f"CREATE TABLE t{number} (id bigserial PRIMARY KEY, {columns})")
            connection.execute(f"CREATE INDEX ON t{number} (c1)")
        connection.execute("ANALYZE")


async def schemas(url: str) -> tuple[float, float]:
    """Seconds for a reading with fingerprint and difference, the median; and megabytes of this process."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_user").fetchone()
    assert row is not None
    async with session(url) as connection:
        old = await read_schema(connection, str(row[0]))
        await connection.execute("ALTER TABLE public.t7 DROP COLUMN c3")
        seconds = []
        for _ in range(RUNS):
            began = time.perf_counter()
            new = await read_schema(connection, str(row[0]))
            found = changes(old, new)
            fingerprint = new.catalog.fingerprint
            seconds.append(time.perf_counter() - began)
            assert [change.code for change in found] == ["column_dropped"]
            assert fingerprint != old.catalog.fingerprint
    return median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def added(url: str) -> Mapping[str, float]:
    """What a rollback waits for a verdict that is up to date."""
    migrate(url)
    connections = Connections(url)
    await connections.open()
    unused = cast("Any", None)
    services = Services(
        PostgresStore(connections),
        unused,
        unused,
        unused,
        unused,
        unused,
        unused,
        unused,
        unused,
        unused,
        unused,
        Path(),
    )
    target = cast("Deployment", type("Target", (), {"id": "d1"}))
    question = Question("shop", target, None)
    readiness = KeptReadiness()
    await readiness.keep(services, question, ())
    seconds = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        await readiness.findings(services, question)
        seconds.append(time.perf_counter() - began)
    await connections.close()
    return summary_ms(seconds)


async def run() -> None:
    with tempfile.TemporaryDirectory(prefix="norn-bench-") as home:
        Path(home).chmod(0o755)
        postgres = EmbeddedPostgres(Path(home) / "postgres" / "bench", account=for_database())
        server = await postgres.start()
        try:
            url = await ensure_database(server, "large")
            fill(url)
            seconds, megabytes = await schemas(url)
            waited = await added(await ensure_database(server, "norn"))
        finally:
            await postgres.stop()
    show(
        "the verdict",
        {
            f"{TABLES:,} tables of {COLUMNS} columns read, fingerprinted and compared, s": round(seconds, 3),
            "memory of the whole process, MB": round(megabytes, 1),
            "added to a rollback where it is up to date": waited,
        },
        reach=f"at most {REACH_S} s, under {REACH_MB:.0f} MB; {REACH_MS} ms",
        reached=seconds <= REACH_S and megabytes < REACH_MB and waited["medianMs"] <= REACH_MS,
    )


def main() -> None:
    asyncio.run(run())


if __name__ == "__main__":
    main()
