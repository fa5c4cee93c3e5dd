"""The pages of the apps: all of them, and one with what is live, how it does and what was deployed."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response

from norn.domain.access import Permission
from norn.domain.deployments import Deployment
from norn.http.answers import AppName
from norn.http.permissions import Of, may
from norn.http.requests import CallerOf, ServicesOf, grant_of
from norn.operations import overview, quarantine, restart
from norn.operations.services import Services
from norn.ui.charts import health_chart
from norn.ui.looks import Looks
from norn.ui.operation_pages import steps_document
from norn.ui.rendering import render
from norn.ui.requests import Before, see_other

PER_PAGE = 25
_IN_TIME_S = 0.15
"""How long a page waits for what may take long; what is not known by then, it loads when it is shown."""
_PATIENCE_S = 15.0
_MOST_CHECKS = 40_000

router = APIRouter(include_in_schema=False)

Hours = Annotated[int, Query(ge=1, le=24)]
Document = dict[str, Any]


# ---- all apps ----------------------------------------------------------------------------------------------------


@router.get("/", dependencies=[may(Permission.VIEW, Of.VISIBLE)])
async def get_apps(request: Request, services: ServicesOf) -> Response:
    """All apps that one may see."""
    return render(request, "apps.html", apps=await _apps(request, services, _IN_TIME_S))


@router.get("/parts/apps", dependencies=[may(Permission.VIEW, Of.VISIBLE)])
async def get_apps_part(request: Request, services: ServicesOf) -> Response:
    return render(request, "apps_list.html", apps=await _apps(request, services, _PATIENCE_S))


async def _apps(request: Request, services: Services, within_s: float) -> list[Document]:
    apps = await overview.apps_document(services, grant_of(request), kept=True)
    known = await asyncio.gather(*(_readiness(request, services, app, within_s) for app in apps))
    return [app | {"rollback": rollback} for app, rollback in zip(apps, known, strict=True)]


async def _readiness(request: Request, services: Services, app: Document, within_s: float) -> Document | None:
    """Whether it could be rolled back; None where that is not known in time."""
    looks: Looks = request.app.state.looks
    # What has changed since is another question: nobody is shown a look from before it.
    key = json.dumps([app["name"], app["live"] and app["live"]["deploymentId"], app.get("operation")], default=str)
    found: Document | None = await looks.at(key, lambda: overview.readiness_document(services, app["name"]), within_s)
    return found


# ---- one app -----------------------------------------------------------------------------------------------------


@router.get("/apps/{app}", dependencies=[may(Permission.VIEW)])
async def get_app(
    request: Request, app: AppName, services: ServicesOf, before: Before = None, hours: Hours = 1
) -> Response:
    """One app."""
    summary = await overview.app_summary(services, app, kept=True)
    name = summary["name"]
    head, history, chart = await asyncio.gather(
        _head(request, services, summary, _IN_TIME_S), _history(services, name, before), _health(services, name, hours)
    )
    return render(request, "app.html", **(head | history | chart))


@router.get("/apps/{app}/parts/head", dependencies=[may(Permission.VIEW)])
async def get_head(request: Request, app: AppName, services: ServicesOf) -> Response:
    summary = await overview.app_summary(services, app, kept=True)
    return render(request, "app_head.html", **await _head(request, services, summary, _PATIENCE_S))


@router.get("/apps/{app}/parts/history", dependencies=[may(Permission.VIEW)])
async def get_history(request: Request, app: AppName, services: ServicesOf) -> Response:
    name = (await services.source.app(app)).name
    return render(request, "app_history.html", app={"name": name}, **await _history(services, name, None))


@router.get("/apps/{app}/parts/health", dependencies=[may(Permission.VIEW)])
async def get_health(request: Request, app: AppName, services: ServicesOf, hours: Hours = 1) -> Response:
    name = (await services.source.app(app)).name
    return render(request, "app_health.html", app={"name": name}, **await _health(services, name, hours))


async def _head(request: Request, services: Services, app: Document, within_s: float) -> Document:
    live, operation = app["live"], app["operation"]
    known = live["deploymentId"] if live else None

    async def nothing() -> None:
        return None

    deployment, rollback, running = await asyncio.gather(
        services.store.deployment(known) if known else nothing(),
        _readiness(request, services, app, within_s),
        steps_document(services, operation["id"]) if operation else nothing(),
    )
    shown = deployment.to_json() if deployment else None
    return {"app": app, "deployment": shown, "rollback": rollback, "running": running}


async def _history(services: Services, app: str, before: int | None) -> Document:
    page, kept = await asyncio.gather(
        services.store.deployments(app=app, before=before, limit=PER_PAGE + 1), services.store.quarantined(app)
    )
    return {
        "deployments": [_entry(deployment) for deployment in page[:PER_PAGE]],
        "older": page[PER_PAGE - 1].seq if len(page) > PER_PAGE else None,
        "before": before,
        "quarantine": [item.to_json() for item in kept],
    }


def _entry(deployment: Deployment) -> Document:
    live = deployment.live_from is not None and deployment.live_until is None
    return deployment.to_json() | {"live": live}


async def _health(services: Services, app: str, hours: int) -> Document:
    checks, now = await asyncio.gather(
        services.store.health_checks(app, hours * 3600.0, _MOST_CHECKS), services.store.now()
    )
    chart = await asyncio.to_thread(health_chart, checks, now - timedelta(hours=hours), now)
    return {"chart": chart, "hours": hours}


# ---- what one can do with it -------------------------------------------------------------------------------------


@router.post("/apps/{app}/restart", dependencies=[may(Permission.OPERATE)])
async def post_restart(app: AppName, services: ServicesOf, caller: CallerOf) -> Response:
    operation = await restart.request_restart(services, app, caller)
    return see_other(f"/operations/{operation.id}")


@router.post("/apps/{app}/quarantine/lift", dependencies=[may(Permission.DEPLOY)])
async def post_lift(
    app: AppName,
    services: ServicesOf,
    caller: CallerOf,
    image_tag: Annotated[str, Form(max_length=256)],
) -> Response:
    await quarantine.lift(services, app, image_tag, caller)
    return see_other(f"/apps/{app}#quarantine")
