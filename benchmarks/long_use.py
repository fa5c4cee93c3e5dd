"""A day of use, compressed: thousands of operations on fifty apps by three servers. What grows, and what is left?

The apps have no replicas: what is looked at is Norn, not the cluster. Wants KUBECONFIG and a registry; takes its time.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from tests.fixtures.clusters import ClusterApp, Namespace, namespace
from tests.fixtures.company import company
from tests.fixtures.norn import NornServer, until

from benchmarks.kubernetes_rollback import MANY, settled
from benchmarks.report import show

APPS, OPERATIONS, AT_ONCE = 50, 5_000, 24
SHARE = {"rollback": 30, "restart": 10, "prune": 60}
QUIET_S = 100.0
"""Connections that were kept for the next request are closed by then."""
WARM = 0.5
"""The part of the run after which memory is compared: until then caches, pools and the allocator's arenas fill."""


def memory_mib(server: NornServer) -> float:
    """What the process has for itself alone (Pss of its anonymous memory), in MiB."""
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    found = next(line for line in text.splitlines() if line.startswith("Pss_Anon:"))
    return int(found.split()[1]) / 1024


ROWS = """
SELECT (SELECT count(*) FROM operations WHERE finished_at IS NULL OR owner IS NOT NULL OR lease_until IS NOT NULL)
     + (SELECT count(*) FROM operation_steps WHERE status = 'running')
     + (SELECT count(*) FROM deployments WHERE finished_at IS NULL)
     + (SELECT count(*) FROM deployments WHERE NOT EXISTS (SELECT FROM operations o WHERE o.id = deployments.id))
     + (SELECT count(*) FROM events WHERE operation_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM operations o WHERE o.id = events.operation_id)) AS rows,
       (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'norn') AS connections
"""
"""Rows that nothing stands behind any more, or that still say that something is under way."""


def counts(servers: Sequence[NornServer], database: str) -> dict[str, int]:
    """What may not grow: open files and children of the processes, connections, files of operations, rows."""
    found: Counter[str] = Counter()
    for server in servers:
        assert server.process is not None
        pid, work = server.process.pid, server.home / "work"
        found["files"] += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        found["children"] += len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        found["workFiles"] += len(list(work.iterdir())) if work.exists() else 0
    with psycopg.connect(database) as connection:
        row = connection.execute(ROWS).fetchone()
    assert row is not None
    return dict(found) | {"rows": int(row[0]), "connections": int(row[1])}


def quiet(servers: Sequence[NornServer], database: str, enough: Mapping[str, int] = {}) -> dict[str, int]:
    """Once what was kept open for the next request is closed; at once where there is no more than `enough`."""
    deadline = time.monotonic() + QUIET_S
    while True:
        found = counts(servers, database)
        if all(number <= enough.get(name, -1) for name, number in found.items()) or time.monotonic() > deadline:
            return found
        time.sleep(1)


def fifty(server: NornServer, space: Namespace) -> tuple[list[str], str]:
    """Adopted apps; their names, and the image that somebody changes them to by hand."""
    app = ClusterApp(server, space, "model")
    app.deploy("good")
    good = space.images("model")["model"]
    app.deploy("bad")
    names = [f"day-{number:02}" for number in range(APPS)]
    space.kubectl("apply", "-f", "-", stdin="".join(MANY.format(name=name, image=good) for name in names))
    for name in names:
        (server.apps_dir / name).mkdir()
        text = f"app: {name}\nrole: worker\ncommand: python3 work.py\nrollback: {{bake: 0s}}\n"
        (server.apps_dir / name / "infraspec.yaml").write_text(text)
        assert server.api("POST", f"/api/apps/{name}/adopt").status == 202
    for name in names:
        until(lambda name=name: server.status(name)["operation"] is None, "adoption")  # type: ignore[misc]
    settled(space)
    return names, space.images("model")["model"]


def use(
    servers: list[NornServer], space: Namespace, apps: tuple[list[str], str], number: int, chance: random.Random
) -> list[dict[str, Any]]:
    """So many operations, one after another on each app, each asked of any server; how each ended."""
    names, bad = apps
    kinds = chance.choices(list(SHARE), weights=list(SHARE.values()), k=number)

    def work(name: str) -> list[dict[str, Any]]:
        ended = []
        for kind in kinds[names.index(name) :: len(names)]:
            server = chance.choice(servers)
            if kind == "rollback":
                space.kubectl("set", "image", f"deployment/{name}", f"{name}={bad}")
                until(lambda server=server: server.status(name)["live"]["deploymentId"] is None, "the news")  # type: ignore[misc]
            reply = server.api("POST", f"/api/apps/{name}/{kind}")
            assert reply.status == 202, reply.body
            ended.append(server.ended(reply.body["id"], timeout_s=600))
        return ended

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [operation for each in pool.map(work, names) for operation in each]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not os.environ.get("KUBECONFIG") or shutil.which("kubectl") is None:
        print("long_use: left out, KUBECONFIG names no cluster")
        return
    chance = random.Random(7)
    with namespace() as space, company(3, shared=True, **space.settings()) as servers:
        database = servers[0].environment["NORN_DATABASE_URL"]
        apps = fifty(servers[0], space)
        parts, growth, ended = 10, [], []
        before: dict[str, int] = {}
        for part in range(parts):
            ended += use(servers, space, apps, args.operations // parts, chance)
            growth.append([memory_mib(server) for server in servers])
            if part == int(parts * WARM) - 1:
                before = quiet(servers, database)
        warm = growth[int(parts * WARM) - 1]
        ratios = [last / first for last, first in zip(growth[-1], warm, strict=True)]
        until(lambda: not any(server.api("GET", "/api/servers").body["staleLeases"] for server in servers), "no lease")
        after = quiet(servers, database, before)
        more = {name: number - before[name] for name, number in after.items()} | {"rows": after["rows"]}
        failed = [operation["error"] for operation in ended if operation["status"] == "failed"]
        show(
            "a_day_of_use",
            {
                "operations": len(ended),
                "failed": len(failed),
                "errors": sorted({f"{error['code']}: {error['message']}"[:200] for error in failed})[:5],
                "memoryMiB": [round(value) for value in growth[-1]],
                "byTenthsMiB": [round(max(values)) for values in growth],
                "memoryRatio": round(max(ratios), 3),
                "medianRatio": round(median(ratios), 3),
                "moreThanInTheMiddle": more,
            },
            reach="each server's memory flat within 10 %, nothing unfinished or left",
            reached=max(ratios) <= 1.1 and not failed and max(more.values()) <= 0,
        )


if __name__ == "__main__":
    main()
