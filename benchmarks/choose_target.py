"""How long it takes to choose a target with 10,000 and with 1,000,000 deployments of 1,000 apps in the store."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import psycopg

from benchmarks.report import show, summary_ms
from norn.adapters.accounts import for_database
from norn.adapters.postgres.connections import Connections
from norn.adapters.postgres.embedded import EmbeddedPostgres
from norn.adapters.postgres.schema import ensure_database, migrate
from norn.adapters.postgres.store import PostgresStore
from norn.domain.images import Image
from norn.domain.ports import Images, Live, Runtime
from norn.domain.targets import Target
from norn.operations.services import Services
from norn.operations.versions import find_target, live_version

APPS = 1_000
SIZES = (10_000, 1_000_000)
LOOKS = 1_000
REACH_P99_MS = 5.0

# One in ten deployments failed, one in twenty was rolled back: about what a team sees.
FILL = """
INSERT INTO operations (id, app, kind, status, params, requested_by, finished_at)
SELECT 'd' || n, 'app' || n %% %(apps)s, 'deploy', 'succeeded', '{}', 'bench', now()
FROM generate_series(1, %(count)s) n;
"""
FILL_DEPLOYMENTS = """
INSERT INTO deployments (id, app, kind, status, image_tag, digest, commit_sha, origin_seq, requested_by, rolled_out_at,
                         proven_at, live_from, live_until)
SELECT 'd' || n, 'app' || n %% %(apps)s, 'deploy',
       CASE WHEN bad < 10 THEN 'failed' WHEN bad < 15 THEN 'rolled_back' ELSE 'deployed' END,
       'app' || n %% %(apps)s || ':' || substr(md5(n::text), 1, 12), 'sha256:' || md5(n::text),
       md5(n::text) || '00000000', n, 'bench',
       CASE WHEN bad >= 10 THEN now() END, CASE WHEN bad >= 10 THEN now() END, CASE WHEN bad >= 10 THEN now() END,
       CASE WHEN bad >= 10 AND n <= %(count)s - %(apps)s THEN now() END
FROM (SELECT n, (hashint8(n) & 1048575) %% 100 AS bad FROM generate_series(1, %(count)s) n) numbered ORDER BY n;
"""


class Everything:
    """Images that are all there, and a runtime that knows what is live: the store and the choice are measured."""

    def __init__(self, live: dict[str, Live]) -> None:
        self._live = live

    async def find(self, _app: str, tag: str) -> Image:
        return Image(tag, "", "")

    async def live(self, app: str) -> Live | None:
        return self._live.get(app)


async def measure(url: str, count: int) -> dict[str, float]:
    """Fill a fresh database, then choose for apps at random."""
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(FILL, {"apps": APPS, "count": count})
        connection.execute(FILL_DEPLOYMENTS, {"apps": APPS, "count": count})
        connection.execute("ANALYZE")
        rows = connection.execute(
            "SELECT app, image_tag, digest, id, live_from FROM deployments "
            "WHERE live_from IS NOT NULL AND live_until IS NULL"
        ).fetchall()
    everything = Everything({row[0]: Live(row[1], row[2], row[3], row[4]) for row in rows})
    connections = Connections(url)
    await connections.open()
    store = PostgresStore(connections)
    unused = cast("Any", None)
    services = Services(
        store,
        unused,
        cast("Images", everything),
        cast("Runtime", everything),
        unused,
        unused,
        unused,
        unused,
        unused,
        unused,
        unused,
        Path(),
    )
    apps = [row[0] for row in rows]
    seconds, found = [], 0
    for number in range(LOOKS + 50):
        app = random.choice(apps)
        began = time.perf_counter()
        choice = await find_target(services, app, await live_version(services, app))
        if number >= 50:
            seconds.append(time.perf_counter() - began)
        found += isinstance(choice, Target)
    await connections.close()
    return summary_ms(seconds) | {"found": found / (LOOKS + 50)}


async def run() -> None:
    with tempfile.TemporaryDirectory(prefix="norn-bench-") as home:
        Path(home).chmod(0o755)
        postgres = EmbeddedPostgres(Path(home) / "postgres" / "bench", account=for_database())
        server = await postgres.start()
        try:
            figures = {count: await measure(await ensure_database(server, f"n{count}"), count) for count in SIZES}
        finally:
            await postgres.stop()
    small, large = (figures[count] for count in SIZES)
    show(
        "choosing a target",
        {f"{count:,} deployments": value for count, value in figures.items()}
        | {"large against small, median": round(large["medianMs"] / small["medianMs"], 2)},
        reach=f"at most {REACH_P99_MS} ms at the 99th percentile, and flat from 10,000 to 1,000,000",
        reached=large["p99Ms"] <= REACH_P99_MS and large["medianMs"] <= 1.5 * small["medianMs"],
    )


def main() -> None:
    asyncio.run(run())


if __name__ == "__main__":
    main()
