"""How soon another server takes over, and how soon a bad version is gone by itself. Wants KUBECONFIG and a registry."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles

from tests.cluster.test_rollbacks import two_versions
from tests.fixtures.clusters import ClusterApp, Namespace, namespace
from tests.fixtures.company import company
from tests.fixtures.norn import NornServer, until

from benchmarks.report import show

KILLS, FALLS = 24, 6
AFTER_START_S = 12.0
"""For two leases after a start of PostgreSQL only the end of a lease says that a server is dead (decision 0011)."""
REACH_TAKEN_OVER_S, REACH_BACK_S = 3.0, 10.0


def claims(log: Path, operation: str) -> list[datetime]:
    """When a server took the operation up, by its log."""
    events = (json.loads(line) for line in log.read_text().splitlines() if '"claimed"' in line)
    return [datetime.fromisoformat(event["timestamp"]) for event in events if event["operation"] == operation]


def taken_over(servers: list[NornServer], space: Namespace) -> None:
    """A version that bakes for an hour; whoever watches it is killed, again and again."""
    app = ClusterApp(servers[0], space, "handed-on", bake="1h")
    app.commit("one")
    operation = servers[0].api("POST", "/api/apps/handed-on/deploy").body["id"]
    servers[0].step_begun(operation, "bake")
    owner = next(server for server in servers if claims(server.log, operation))
    waits = []
    time.sleep(AFTER_START_S)
    for _ in range(KILLS):
        before = {server.port: len(claims(server.log, operation)) for server in servers}
        killed = datetime.now().astimezone()
        owner.kill()
        gone, others = owner, [server for server in servers if server is not owner]

        def successor(others: list[NornServer] = others, before: dict[int, int] = before) -> NornServer | None:
            found = (server for server in others if len(claims(server.log, operation)) > before[server.port])
            return next(found, None)

        owner = until(successor, "a successor") or owner
        waits.append((claims(owner.log, operation)[-1] - killed).total_seconds())
        gone.start()
        time.sleep(1.0 + 0.37 * (len(waits) % 5))  # at different moments between two heartbeats
    servers[0].api("POST", f"/api/operations/{operation}/cancel")
    servers[0].ended(operation)
    worst = quantiles(waits, n=20)[-1]
    show(
        "killed_to_taken_over",
        {"medianS": round(median(waits), 2), "p95S": round(worst, 2), "maxS": round(max(waits), 2), "kills": KILLS},
        reach=f"at most {REACH_TAKEN_OVER_S:g} s at the 95th percentile",
        reached=worst <= REACH_TAKEN_OVER_S,
    )


def back_by_itself(server: NornServer, space: Namespace) -> None:
    """From the first health check that would fail to the good version serving again, on every pod."""
    app = two_versions(server, space, "falls-ill")
    app.spec(bake="60s")
    waits = []
    for number in range(FALLS):
        app.commit(f"bad {number}")
        operation = server.api("POST", "/api/apps/falls-ill/deploy").body["id"]
        server.rolled_out(operation)
        server.step_begun(operation, "bake")
        time.sleep(2)
        app.fall_ill()
        began = time.perf_counter()
        until(lambda: app.answers() == {"two"}, "the good version")
        waits.append(time.perf_counter() - began)
        failed = server.ended(operation)
        server.ended(failed["error"]["automatic"]["deploymentId"])
    show(
        "bad_to_good_by_itself",
        {"medianS": round(median(waits), 2), "maxS": round(max(waits), 2), "times": FALLS},
        reach=f"at most {REACH_BACK_S:g} s",
        reached=max(waits) <= REACH_BACK_S,
    )


def main() -> None:
    if not os.environ.get("KUBECONFIG") or shutil.which("kubectl") is None:
        print("under_fire: left out, KUBECONFIG names no cluster")
        return
    with namespace() as space, company(3, shared=True, **space.settings()) as servers:
        taken_over(servers, space)
        back_by_itself(servers[0], space)


if __name__ == "__main__":
    main()
