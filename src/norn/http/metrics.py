"""Numbers for Prometheus: of this server since its start, and of the database at the moment of asking.

Names and labels are in docs/reference/metrics.md. Labels are bounded: routes and not paths, kinds, outcomes, and apps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from norn.domain.notifications import Result
from norn.domain.operations import Operation, OperationStatus
from norn.domain.ports import Room
from norn.domain.standing import Standing, trigger_of
from norn.domain.verdict import Level
from norn.errors import DatabaseUnavailable

_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 900)
_RECOVERY_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
STANDING_S = 5.0
"""For so long what the database said is not asked for again, however many scrape."""
_PATIENCE_S = 2.0

ReadStanding = Callable[[], Awaitable[Standing]]


class _Standings(Collector):
    """What the database says. Nothing, where it does not answer."""

    def __init__(self) -> None:
        self.standing: Standing | None = None

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("norn_database_up", "Whether the database answered", 1.0 if self.standing else 0.0)
        if self.standing is not None:
            yield from _families(self.standing)


def _families(now: Standing) -> Iterator[Metric]:
    servers = GaugeMetricFamily("norn_servers", "Servers on this database", labels=["state"])
    servers.add_metric(["alive"], now.servers_alive)
    servers.add_metric(["dead"], now.servers_dead)
    yield servers
    leases = GaugeMetricFamily("norn_leases", "Operations at work, and those that nobody works on", labels=["state"])
    leases.add_metric(["held"], now.leases_held)
    leases.add_metric(["stale"], now.leases_stale)
    yield leases
    yield GaugeMetricFamily("norn_operations_queued", "Operations that wait", now.operations_queued)
    undelivered = now.notifications_undelivered
    yield GaugeMetricFamily("norn_notifications_undelivered", "Deliveries that have not arrived", undelivered)
    yield GaugeMetricFamily("norn_sessions", "Browsers that have signed in", now.sessions)
    yield GaugeMetricFamily("norn_audit_entries", "Entries of the audit", now.audit_entries)
    age = GaugeMetricFamily("norn_snapshot_age_seconds", "Since an app's newest snapshot", labels=["app"])
    verified = GaugeMetricFamily(
        "norn_snapshot_verified_age_seconds", "Since a snapshot of an app was restored for a test", labels=["app"]
    )
    for one in now.snapshots:
        age.add_metric([one.app], one.age_s)
        if one.verified_age_s is not None:
            verified.add_metric([one.app], one.verified_age_s)
    yield age
    yield verified


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.read_standing: ReadStanding | None = None
        self._standings = _Standings()
        self._read_at = -STANDING_S
        self._reading = asyncio.Lock()
        registry.register(self._standings)
        ProcessCollector(registry=registry)

        def counter(name: str, help_: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(name, help_, labels, registry=registry)

        def histogram(name: str, help_: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
            return Histogram(name, help_, labels, registry=registry, buckets=buckets)

        self._requests = counter("norn_http_requests_total", "HTTP requests answered", ["method", "route", "status"])
        self._answered = histogram(
            "norn_http_request_seconds", "To the beginning of the answer", ["method", "route"], _HTTP_SECONDS
        )
        self._operations = counter(
            "norn_operations_total", "Operations ended by this server", ["kind", "trigger", "outcome"]
        )
        self._seconds = histogram("norn_operation_seconds", "From claim to end", ["kind"], _SECONDS)
        self._recovery = histogram(
            "norn_recovery_seconds", "Of a rollback, from the request to healthy", ["trigger"], _RECOVERY_SECONDS
        )
        self._verdicts = counter("norn_verdicts_total", "Verdicts on requested rollbacks", ["level"])
        self._deliveries = counter("norn_notification_attempts_total", "Attempts to deliver a notification", ["result"])
        self._snapshots = Gauge("norn_snapshots_bytes", "What the dumps of this server take", registry=registry)
        self._free = Gauge("norn_snapshots_free_bytes", "What is left on the disk of the dumps", registry=registry)
        for level in Level:
            self._verdicts.labels(level.value)
        for result in Result:
            self._deliveries.labels(result.value)

    def room(self, room: Room) -> None:
        self._snapshots.set(room.snapshots_bytes)
        self._free.set(room.free_bytes)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """An answer has begun. Whatever method somebody makes up is counted as `other`."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._answered.labels(method, route).observe(seconds)

    def operation(self, operation: Operation, status: OperationStatus, seconds: float) -> None:
        self._operations.labels(operation.kind.value, trigger_of(operation), status.value).inc()
        self._seconds.labels(operation.kind.value).observe(seconds)

    def recovered(self, operation: Operation, seconds: float) -> None:
        self._recovery.labels(trigger_of(operation)).observe(seconds)

    def verdict(self, level: Level) -> None:
        self._verdicts.labels(level.value).inc()

    def delivery(self, result: Result) -> None:
        self._deliveries.labels(result.value).inc()

    async def text(self) -> tuple[bytes, str]:
        """All of them, and their media type."""
        await self._look()
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    async def _look(self) -> None:
        async with self._reading:
            if self.read_standing is None or time.monotonic() < self._read_at + STANDING_S:
                return
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    self._standings.standing = await self.read_standing()
            except (DatabaseUnavailable, TimeoutError):
                self._standings.standing = None
            self._read_at = time.monotonic()
