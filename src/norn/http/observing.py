"""Every request is counted and measured; those that fail, or change something, have a line in the log."""

from __future__ import annotations

import re
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from norn.http.cookies import SAFE_METHODS
from norn.http.metrics import Metrics

log = structlog.get_logger(__name__)
_OPERATION = re.compile(rb"/(?:api/)?(?:operations|deployments)/([0-9a-z]{26})")


class Observed:
    """By route, never by path: that would be a label for each app and typo."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds, status = time.monotonic() - began, message["status"]
                self._metrics.request(scope["method"], _route(scope), status, seconds)
                if status >= 400 or scope["method"] not in SAFE_METHODS:
                    _log(scope, status, seconds, _operation(message))
            await send(message)

        await self._app(scope, receive, observed)


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return getattr(route, "path", "other") if route is not None else "other"


def _operation(message: Message) -> str | None:
    """The operation that the answer leads to."""
    location = next((value for name, value in message["headers"] if name.lower() == b"location"), b"")
    found = _OPERATION.fullmatch(location)
    return found[1].decode() if found else None


def _log(scope: Scope, status: int, seconds: float, operation: str | None) -> None:
    state = scope.get("state", {})
    facts = {
        "method": scope["method"],
        "route": _route(scope),
        "status": status,
        "actor": state.get("actor", ""),
        "address": state.get("address", ""),
        "ms": round(seconds * 1_000, 1),
    }
    app = scope.get("path_params", {}).get("app")
    say = log.warning if status >= 500 else log.info
    known = {"app": app, "operation": operation}
    say("request", **facts, **{name: value for name, value in known.items() if value})
