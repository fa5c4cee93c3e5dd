"""The page of a rollback: what it would do, another version, and the one press."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from norn.domain.access import Permission
from norn.errors import NornError
from norn.http.answers import AppName
from norn.http.permissions import may, require
from norn.http.requests import ServicesOf, grant_of, who_of
from norn.operations.rollback_plan import request_rollback
from norn.operations.rollback_request import Seen
from norn.operations.services import Caller, Services
from norn.ui.errors import answer_on_form
from norn.ui.forms import Fields, form_of
from norn.ui.rendering import render
from norn.ui.requests import see_other
from norn.ui.rollback_view import Choice, look_at

router = APIRouter(include_in_schema=False)


@router.get("/apps/{app}/rollback", dependencies=[may(Permission.VIEW)])
async def get_rollback(request: Request, app: AppName, services: ServicesOf) -> Response:
    """`?to=` another version, `template`, `data`, `affects`: what a rollback to it would do."""
    return await _page(request, services, app, Choice.of(Fields(request.query_params)))


async def _page(
    request: Request,
    services: Services,
    app: str,
    choice: Choice,
    problem: NornError | None = None,
    reason: str = "",
) -> Response:
    look = await look_at(services, app, choice, Caller(who_of(request).actor))
    shown = problem or (look.error if choice.to else None)  # that there is nothing to go back to is an answer, too
    status = shown.status if shown is not None else 200
    return render(request, "rollback.html", status=status, app=app, look=look, problem=problem, reason=reason)


@router.post("/apps/{app}/rollback", dependencies=[may(Permission.OPERATE)])
async def post_rollback(request: Request, app: AppName, services: ServicesOf) -> Response:
    """Roll back as it was on the screen; whatever has changed since is shown anew, and nothing is done."""
    fields, caller = await form_of(request)
    choice, reason = Choice.of(fields), fields.text("reason")
    if choice.data:
        require(grant_of(request), Permission.ADMINISTER, app, *choice.affects)
    try:
        wanted = choice.request(
            app,
            from_deployment_id=fields.line("from") or None,
            target_id=fields.line("target") or None,
            reason=reason,
            resume=fields.ticked("resume"),
            seen=Seen(fields.line("digest"), fields.lines("stops"), fields.line("force")),
        )
        reply = await request_rollback(services, wanted, caller)
    except NornError as error:
        answer_on_form(error)
        return await _page(request, services, app, choice, services.known.error(app, error), reason)
    where = f"/operations/{reply.deployment.id}" if reply.deployment is not None else f"/apps/{app}"
    return see_other(where)
