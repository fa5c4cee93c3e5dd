"""Every request is counted and measured; those that fail, or change something, have a line in the log."""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from norn.http.cookies import SAFE_METHODS
from norn.http.metrics import Metrics

log = structlog.get_logger(__name__)


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
                    _log(scope, status, seconds)
            await send(message)

        await self._app(scope, receive, observed)


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return getattr(route, "path", "other") if route is not None else "other"


def _log(scope: Scope, status: int, seconds: float) -> None:
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
    say("request", **facts, **({"app": app} if app else {}))
