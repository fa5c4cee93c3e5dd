"""/docs: the HTTP interface, for people; from this server itself, and nothing of it from elsewhere."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from norn.domain.access import Permission
from norn.http.permissions import Of, may
from norn.ui.documentation import operations_by_subject
from norn.ui.rendering import render

router = APIRouter(include_in_schema=False)


@router.get("/docs", dependencies=[may(Permission.VIEW, Of.VISIBLE)])
async def get_docs(request: Request) -> Response:
    return render(request, "docs.html", groups=operations_by_subject(request.app.openapi()))
