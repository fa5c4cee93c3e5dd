"""Numbers for Prometheus: requests and operations of this server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from norn.domain.notifications import Result
from norn.domain.operations import Operation, OperationStatus
from norn.domain.ports import Room

_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "norn_http_requests_total", "HTTP requests answered", ["method", "route", "status"], registry=self.registry
        )
        self._operations = Counter(
            "norn_operations_total", "Operations ended by this server", ["kind", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "norn_operation_seconds", "From claim to end", ["kind"], registry=self.registry, buckets=_SECONDS
        )
        self._deliveries = Counter(
            "norn_notification_attempts_total", "Attempts to deliver a notification", ["result"], registry=self.registry
        )
        self._snapshots = Gauge("norn_snapshots_bytes", "What the dumps of this server take", registry=self.registry)
        self._free = Gauge("norn_snapshots_free_bytes", "What is left on the disk of the dumps", registry=self.registry)

    def room(self, room: Room) -> None:
        self._snapshots.set(room.snapshots_bytes)
        self._free.set(room.free_bytes)

    def request(self, method: str, route: str, status: int) -> None:
        self._requests.labels(method, route, str(status)).inc()

    def operation(self, operation: Operation, status: OperationStatus, seconds: float) -> None:
        self._operations.labels(operation.kind.value, status.value).inc()
        self._seconds.labels(operation.kind.value).observe(seconds)

    def delivery(self, result: Result) -> None:
        self._deliveries.labels(result.value).inc()

    def text(self) -> tuple[bytes, str]:
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class CountRequests:
    """Counts requests by route (never by path: that would be a label for each app and typo)."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.request(scope["method"], _route(scope), message["status"])
            await send(message)

        await self._app(scope, receive, counted)


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return getattr(route, "path", "other") if route is not None else "other"
