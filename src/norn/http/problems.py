"""Errors as problem documents (RFC 9457): `type, title, status, detail`, and the facts as further members."""

from __future__ import annotations

import inspect
import re
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from norn.domain.access import Grant
from norn.domain.audit import Who
from norn.domain.scrubbing import NOTHING, Scrubber
from norn.errors import Invalid, Malformed, NornError, NotAllowed, NotAuthenticated
from norn.http.requests import Context, services_of

log = structlog.get_logger(__name__)
MEDIA_TYPE = "application/problem+json"
_NAMED = ("app", "id")
_PART = re.compile(r"[A-Za-z0-9._-]{0,63}")
_RESERVED = ("type", "title", "status", "detail")


def problem(error: NornError) -> dict[str, Any]:
    """The problem document of an error. `type` is a URN that never changes, `code` its last part."""
    title = (inspect.getdoc(type(error)) or type(error).__name__).splitlines()[0]
    facts = {name: value for name, value in error.facts.items() if name not in _RESERVED}
    document = {
        "type": f"urn:norn:problem:{error.code}",
        "title": title,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
    }
    return document | ({"hint": error.hint} if error.hint else {}) | facts


def problem_response(error: NornError, scrubber: Scrubber = NOTHING) -> JSONResponse:
    headers = {"WWW-Authenticate": 'Bearer realm="norn"'} if isinstance(error, NotAuthenticated) else {}
    if error.status in (429, 503):
        headers["Retry-After"] = str(error.facts.get("retryAfterS", 2))
    return JSONResponse(scrubber.json(problem(error)), error.status, headers, MEDIA_TYPE)


def _invalid(error: RequestValidationError) -> NornError:
    problems = [
        {"where": ".".join(str(part) for part in item["loc"]), "message": item["msg"]} for item in error.errors()
    ]
    first = problems[0] if problems else {"where": "", "message": "wrong"}
    if any(item["type"] == "json_invalid" for item in error.errors()):
        return Malformed(f"The body is not JSON: {first['message']}.", hint="Send a JSON object.", problems=problems)
    return Invalid(f"{first['where']}: {first['message']}.", hint="See /docs for what is taken.", problems=problems)


async def _on_norn_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, NornError)
    if isinstance(error, NotAllowed) and not error.noted:
        await note_refused(request.scope, error)
    scrubber = services_of(request).known.of(request.path_params.get("app"))
    return problem_response(error, scrubber)


def asked_for(scope: Scope) -> str:
    """Method and path as the route has it, with the app and the operation: what else is in a path may be a secret.

    Of what has not come to its route no more than three parts, which is as far as the app's name.
    """
    route = scope.get("route")
    if route is None:
        parts = scope["path"].split("/")
        shown = [part if _PART.fullmatch(part) else "…" for part in parts[:4]]
        return f"{scope['method']} {'/'.join([*shown, *['…'][: len(parts) - 4]])}"
    path: str = route.path
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(f"{{{name}}}", value) if name in _NAMED and _PART.fullmatch(value) else path
    return f"{scope['method']} {path}"


async def note_refused(scope: Scope, error: NornError, action: str = "refused", subject: str | None = None) -> None:
    """Write down that somebody was not let in, may not do what they tried, or that what they sent was not theirs."""
    if error.status not in (401, 403, 429):
        return
    error.noted = True
    context: Context = scope["app"].state.context
    state = scope["state"]
    grant: Grant | None = state.get("grant")
    who = Who(state.get("actor", ""), grant.token_name if grant is not None else "", state["address"])
    subject = asked_for(scope) if subject is None else subject
    app = scope.get("path_params", {}).get("app")
    await context.attempts.note(who, action, subject, error.message, app=app)


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem_response(_invalid(error))


async def _on_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    document = {"type": "about:blank", "title": error.detail, "status": error.status_code, "detail": error.detail}
    headers = dict(error.headers or {})
    return JSONResponse(document, error.status_code, headers, MEDIA_TYPE)


async def _on_defect(request: Request, error: Exception) -> JSONResponse:
    log.error("defect", path=request.url.path, exc_info=error)
    return problem_response(NornError("A defect in Norn; the server's log has the details.", hint="Please report it."))


def install(app: FastAPI) -> None:
    app.add_exception_handler(NornError, _on_norn_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_defect)


class Defects:
    """Answers where a route has a defect, while what counts, logs and secures answers still sees it.

    Stands innermost: Starlette's own handler, the last resort, answers outside of all of those.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if started:  # nothing can be said any more
                raise
            answer = scope["app"].exception_handlers[Exception](Request(scope), error)
            response = await answer if inspect.isawaitable(answer) else answer
            await response(scope, receive, send)
