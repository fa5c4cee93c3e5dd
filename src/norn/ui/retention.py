"""The page of retention: what stays, what goes next, and why."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from norn.domain.access import Permission
from norn.domain.retention import Fate, going
from norn.errors import NornError
from norn.http.answers import AppName
from norn.http.permissions import may
from norn.http.requests import ServicesOf
from norn.operations.prune import plan_of, request_prune
from norn.operations.services import Services
from norn.ui.errors import answer_on_form
from norn.ui.forms import form_of
from norn.ui.rendering import render
from norn.ui.requests import see_other

router = APIRouter(include_in_schema=False)
_KINDS = ("image", "snapshot", "database")


@router.get("/apps/{app}/retention", dependencies=[may(Permission.VIEW)])
async def get_retention(request: Request, app: AppName, services: ServicesOf) -> Response:
    return await _page(request, services, app)


async def _page(request: Request, services: Services, app: str, problem: NornError | None = None) -> Response:
    found = await services.source.app(app)
    fates: list[Fate] = []
    try:
        fates = await plan_of(services, found.name)
    except NornError as error:  # the registry does not answer, the infraspec cannot be read: said on the page
        problem = problem or services.known.error(found.name, error)
    groups = [(kind, [fate for fate in fates if fate.kind == kind and fate.stays]) for kind in _KINDS]
    return render(
        request,
        "retention.html",
        status=problem.status if problem is not None else 200,
        app=found.name,
        seen=going(fates),
        going=[fate for fate in fates if not fate.stays],
        staying=[(kind, some) for kind, some in groups if some],
        problem=problem,
    )


@router.post("/apps/{app}/retention", dependencies=[may(Permission.ADMINISTER)])
async def post_retention(request: Request, app: AppName, services: ServicesOf) -> Response:
    """Remove now what was on the screen."""
    fields, caller = await form_of(request)
    try:
        operation = await request_prune(services, app, caller, seen=fields.line("seen"))
    except NornError as error:
        answer_on_form(error)
        return await _page(request, services, app, services.known.error(app, error))
    return see_other(f"/operations/{operation.id}")
