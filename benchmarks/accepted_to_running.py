"""How long an accepted operation waits until its first step runs, on a real engine and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import structlog

from benchmarks.report import show, summary_ms
from norn.adapters.accounts import for_database
from norn.adapters.postgres.connections import Connections
from norn.adapters.postgres.embedded import EmbeddedPostgres
from norn.adapters.postgres.schema import ensure_database, migrate
from norn.adapters.postgres.store import PostgresStore
from norn.domain.operations import OperationKind
from norn.operations.engine import Engine
from norn.operations.events import Changes, wait_for
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.services import Caller, Services, new_id, take_alone

OPERATIONS = 300
REACH_MEDIAN_MS = 10.0


async def measure(url: str) -> list[float]:
    migrate(url)
    connections = Connections(url)
    await connections.open()
    store = PostgresStore(connections)
    began: dict[str, float] = {}

    async def note(run: Run) -> None:
        began[run.id] = time.perf_counter()

    engine = Engine(store, lambda _: Procedure((Step("note", note),)), new_id())
    changes = Changes()

    async def listen() -> None:
        async for payload in store.notifications():
            engine.wake() if payload == "operations" else changes.wake(payload.partition(":")[2])

    await engine.start()
    listening = asyncio.create_task(listen())
    unused = cast("Any", None)
    services = Services(store, unused, unused, unused, unused, unused, unused, unused, unused, unused, unused, Path())
    waits = []
    for number in range(OPERATIONS):
        id_ = await take_alone(services, f"app{number % 20}", OperationKind.RESTART, Caller("bench"), "")
        accepted = time.perf_counter()
        await wait_for(store, changes, id_, lambda _: False, 10)
        waits.append(max(began[id_] - accepted, 0.0))
    await engine.stop()
    listening.cancel()
    await connections.close()
    return waits


async def run() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="norn-bench-") as home:
        Path(home).chmod(0o755)
        postgres = EmbeddedPostgres(Path(home) / "postgres" / "bench", account=for_database())
        try:
            figures = summary_ms(await measure(await ensure_database(await postgres.start(), "bench")))
        finally:
            await postgres.stop()
    show(
        "operation accepted to first step running",
        figures,
        reach=f"at most {REACH_MEDIAN_MS} ms at the median",
        reached=figures["medianMs"] <= REACH_MEDIAN_MS,
    )


def main() -> None:
    asyncio.run(run())


if __name__ == "__main__":
    main()
