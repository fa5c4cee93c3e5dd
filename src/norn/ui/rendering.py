"""Templates into pages: everything is escaped, and a name that a template does not know is an error."""

from __future__ import annotations

import gzip
import re
import secrets
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from norn import __version__
from norn.domain.access import Grant, Permission
from norn.ui import formatting
from norn.ui.assets import accepts_gzip, url_of

_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}\Z")
_PACK_FROM_BYTES = 1_000
_PACK_LEVEL = 5


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals |= {
        "static": url_of,
        "version": __version__,
        "Permission": Permission,
        "new_key": lambda: secrets.token_urlsafe(16),
    }
    made.filters |= formatting.FILTERS
    made.tests["operation_id"] = lambda text: bool(_ID.match(text))
    return made


def render(
    request: Request, template: str, /, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """A page, or a part of one.

    Every template knows `grant` (None where nobody is signed in), `may(permission, app)`, `why_not(permission, app)`,
    `csrf`, `path`, and what is given here.

    Pages are packed here, not by a middleware: events and logs must not wait for a full buffer. That what is secret in
    a page (the form token) cannot be guessed from its packed length, it is another text in every page.
    """
    grant: Grant | None = getattr(request.state, "grant", None)

    def why_not(permission: Permission, app: str | None) -> str:
        return grant.refusal(permission, app) if grant is not None else ""

    known = {
        "grant": grant,
        "csrf": _form_token(request),
        "path": request.url.path,
        "why_not": why_not,
        "may": lambda permission, app: not why_not(permission, app),
    }
    content = environment().get_template(template).render(known | values).encode("utf-8", "replace")
    sent = {"Cache-Control": "no-store", "Vary": "Accept-Encoding, Cookie, HX-Request"} | (headers or {})
    if len(content) >= _PACK_FROM_BYTES and accepts_gzip(request):
        content = gzip.compress(content, _PACK_LEVEL, mtime=0)
        sent["Content-Encoding"] = "gzip"
    return HTMLResponse(content, status, sent)


def _form_token(request: Request) -> str:
    session = getattr(request.state, "session", None)
    return str(session.proof()) if session is not None else ""
