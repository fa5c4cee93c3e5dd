"""The page of the audit: who did what, and what was refused."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from norn.domain.access import Permission
from norn.errors import Malformed
from norn.http.audit_routes import JSON_LINES, json_lines
from norn.http.cursors import number_of
from norn.http.permissions import Of, may
from norn.http.requests import ServicesOf, grant_of
from norn.operations import audit
from norn.ui.forms import Fields
from norn.ui.rendering import render

router = APIRouter(include_in_schema=False)
_PAGE = 50


@router.get("/audit", dependencies=[may(Permission.VIEW, Of.VISIBLE)])
async def get_audit(request: Request, services: ServicesOf) -> Response:
    """`?app=` one app's, `?before=` those before that number."""
    fields, grant = Fields(request.query_params), grant_of(request)
    app, before = fields.line("app"), _number(fields.line("before"))
    page = await audit.entries(services, grant, app or None, before, _PAGE + 1)
    shown = page[:_PAGE]
    return render(
        request,
        "audit.html",
        entries=[entry.to_json() for entry in shown],
        apps=grant.visible(found.name for found in await services.source.apps()),
        app=app,
        before=before,
        older=shown[-1].seq if len(page) > _PAGE else None,
    )


def _number(text: str) -> int | None:
    """Raises Malformed."""
    if not text:
        return None
    number = number_of(text)
    if number is None:
        raise Malformed("before: not the number of an entry.", hint="/audit begins with the newest.")
    return number


@router.get("/audit/export", dependencies=[may(Permission.VIEW, Of.VISIBLE)])
async def get_export(request: Request, services: ServicesOf) -> Response:
    """All of it, or one app's, the oldest first: JSON lines."""
    app = Fields(request.query_params).line("app")
    entries = audit.everything(services, grant_of(request), app or None)
    headers = {"Content-Disposition": 'attachment; filename="audit.jsonl"'}
    return StreamingResponse(json_lines(entries), media_type=JSON_LINES, headers=headers)
