"""What went wrong, as a page where a page was asked for; the API keeps its problem documents."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from norn.errors import NornError
from norn.ui.rendering import render

_HEADINGS = {401: "Not signed in", 403: "Not allowed", 404: "Not found", 405: "Not found", 409: "Not now",
             503: "Norn cannot work just now"}  # fmt: skip
_KEPT = ("retry-after", "www-authenticate", "allow")

_Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


def wants_page(path: str) -> bool:
    """Whether a path is one of the pages, not of the API."""
    return not path.startswith("/api/") and path not in ("/metrics", "/openapi.json")


def page_of(request: Request, problem: Response) -> Response:
    """A problem document, as a page."""
    document: dict[str, Any] = json.loads(bytes(problem.body))
    heading = _HEADINGS.get(problem.status_code, "This did not work")
    headers = {name: problem.headers[name] for name in _KEPT if name in problem.headers}
    again = request.url.path if request.method == "GET" else "/"
    return render(
        request, "error.html", status=problem.status_code, headers=headers, problem=document, heading=heading,
        again=again,
    )  # fmt: skip


def answer_on_form(error: NornError) -> None:
    """Raises what no form answers: whoever is not let in, or asks for what is not there, gets a page of its own."""
    if error.status in (401, 403, 404):
        raise error


def install(app: FastAPI) -> None:
    """Over the handlers of the API, which say what is on the page."""
    for kind in (NornError, RequestValidationError, HTTPException, Exception):
        handler: _Handler = app.exception_handlers[kind]
        app.add_exception_handler(kind, _also_as_page(handler))


def _also_as_page(handler: _Handler) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        answer = handler(request, error)
        problem = await answer if inspect.isawaitable(answer) else answer
        return page_of(request, problem) if wants_page(request.url.path) else problem

    return handle
