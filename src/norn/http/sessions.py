"""Signing in and out with a browser."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from norn.domain.access import Permission
from norn.errors import NornError, NotAuthenticated, TooManyAttempts
from norn.http.access import admit
from norn.http.cookies import SIGN_IN, cookie_name, headers_of, is_tls, local_path, secret_of
from norn.http.limits import WrongTokens
from norn.http.permissions import Of, may
from norn.http.problems import note_refused
from norn.http.requests import CallerOf, ContextOf, context_of, session_of
from norn.operations.access import SESSION_S, sign_in, sign_out
from norn.ui.rendering import render

router = APIRouter(include_in_schema=False)
_MAX_TOKEN = 1_000


@router.get(SIGN_IN)
async def get_sign_in(request: Request, next: Annotated[str, Query(max_length=4_000)] = "/") -> Response:  # noqa: A002
    """The page that asks for a token."""
    return _page(request, local_path(next))


@router.post(SIGN_IN)
async def post_sign_in(
    request: Request,
    token: Annotated[str, Form(max_length=_MAX_TOKEN)] = "",
    next: Annotated[str, Form(max_length=4_000)] = "/",  # noqa: A002
) -> Response:
    """Begin a session that nobody knew before, and end the one that the browser had."""
    context = context_of(request)
    gate = context.gate
    wrong: WrongTokens = request.app.state.wrong_tokens
    address: str = request.state.address
    try:
        known = await admit(gate, wrong, token.strip().encode(), address)
    except (NotAuthenticated, TooManyAttempts) as error:
        await note_refused(request.scope, error, "sign-in.failed", "")
        return _page(request, local_path(next), error)
    if former := secret_of(request.scope, headers_of(request.scope)):
        await gate.end(former)
    secret = await sign_in(context.services, gate, known, address)
    response = RedirectResponse(local_path(next), 303, {"Cache-Control": "no-store"})
    response.set_cookie(
        cookie_name(request.scope),
        secret,
        max_age=int(SESSION_S),
        path="/",
        secure=is_tls(request.scope),
        httponly=True,
        samesite="lax",
    )
    return response


@router.post("/sign-out", dependencies=[may(Permission.VIEW, Of.VISIBLE)])
async def post_sign_out(request: Request, context: ContextOf, caller: CallerOf) -> Response:
    """End the session."""
    secret = secret_of(request.scope, headers_of(request.scope))
    if secret is not None and session_of(request) is not None:
        await sign_out(context.services, context.gate, secret, caller)
    response = RedirectResponse(SIGN_IN, 303, {"Cache-Control": "no-store"})
    response.delete_cookie(
        cookie_name(request.scope), path="/", secure=is_tls(request.scope), httponly=True, samesite="lax"
    )
    return response


def _page(request: Request, next_: str, problem: NornError | None = None) -> Response:
    error = problem.message if problem is not None else ""
    hint = problem.hint if isinstance(problem, TooManyAttempts) else ""  # the page itself says where tokens are
    headers = {"Retry-After": str(problem.facts["retryAfterS"])} if isinstance(problem, TooManyAttempts) else {}
    status = problem.status if problem is not None else 200
    return render(request, "sign_in.html", status=status, headers=headers, next=next_, error=error, hint=hint)
