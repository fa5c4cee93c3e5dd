"""The ASGI application: routes behind access control, errors as problem documents."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from norn import __version__
from norn.domain.access import Permission
from norn.http import (
    answers,
    audit_routes,
    events,
    history_routes,
    notification_routes,
    problems,
    routes,
    sessions,
    snapshot_routes,
    token_routes,
)
from norn.http.access import Access, CrossSite
from norn.http.limits import BodyLimit, WrongTokens
from norn.http.metrics import Metrics
from norn.http.observing import Observed
from norn.http.permissions import Of, may
from norn.http.requests import Context, context_of
from norn.http.schemas import HealthAnswer, Problem
from norn.ui import pages
from norn.ui.security import SecurityHeaders

HealthCheck = Callable[[], Awaitable[dict[str, Any]]]
"""Each part's state: `{name: {"ok": bool, "message": str}}`."""

_TAGS = ("apps", "secrets", "snapshots", "history", "audit", "events", "notifications", "access", "server")
_outside = APIRouter()


@_outside.get(
    "/api/health",
    tags=["server"],
    response_model=HealthAnswer,
    responses={503: {"model": HealthAnswer, "description": "the server cannot work"}},
)
async def get_health(request: Request) -> JSONResponse:
    """Each part's state; 503 where the server cannot work. Wants no token."""
    check: HealthCheck = request.app.state.health
    parts = await check()
    able = parts["database"]["ok"]
    status = "ok" if all(part["ok"] for part in parts.values()) else "degraded" if able else "unavailable"
    document = {"status": status, "version": __version__, "parts": parts}
    return JSONResponse(document, 200 if able else 503)


@_outside.get(
    "/metrics",
    tags=["server"],
    dependencies=[may(Permission.VIEW, Of.ALL)],
    response_class=Response,
    responses=answers.problems() | {200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
)
async def get_metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    metrics: Metrics = request.app.state.metrics
    with contextlib.suppress(OSError):  # no disk, no number of it
        metrics.room(await context_of(request).services.snapshots.room())
    text, media_type = await metrics.text()
    return Response(text, media_type=media_type)


def create_app(context: Context, metrics: Metrics, health: HealthCheck) -> FastAPI:
    app = FastAPI(
        title="Norn",
        version=__version__,
        summary="Deploys apps, and gets them back when a deployment goes wrong.",
        openapi_tags=[{"name": name} for name in _TAGS],
        docs_url=None,  # the one that comes with FastAPI loads its scripts from elsewhere
        redoc_url=None,
    )
    app.state.context = context
    app.state.metrics = metrics
    app.state.health = health
    app.state.wrong_tokens = WrongTokens()
    problems.install(app)
    app.include_router(routes.router)
    app.include_router(history_routes.router)
    app.include_router(snapshot_routes.router)
    app.include_router(events.router)
    app.include_router(audit_routes.router)
    app.include_router(notification_routes.router)
    app.include_router(token_routes.router)
    app.include_router(sessions.router)
    app.include_router(_outside)
    pages.install(app)
    app.add_middleware(problems.Defects)  # the first is the innermost
    app.add_middleware(CrossSite)
    app.add_middleware(BodyLimit)
    app.add_middleware(Access, wrong=app.state.wrong_tokens)
    app.add_middleware(Observed, metrics=metrics)
    app.add_middleware(SecurityHeaders)
    _document_problems(app)
    return app


def _document_problems(app: FastAPI) -> None:
    """Name the problem document and the token once in /openapi.json."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            components = document.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"token": []}]
            document["paths"]["/api/health"]["get"]["security"] = []
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
