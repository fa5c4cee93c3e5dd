"""The audit: a page of it, or all of it as JSON lines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from norn.domain.access import Grant, Permission
from norn.domain.audit import Recorded
from norn.http import schemas
from norn.http.answers import problems
from norn.http.cursors import decode_cursor, encode_cursor
from norn.http.permissions import Of, may
from norn.http.requests import ServicesOf, grant_of
from norn.operations import audit

JSON_LINES = "application/x-ndjson"
_MAX_PAGE = 200
_LINES = 200

router = APIRouter(prefix="/api", responses=problems(), tags=["audit"])


async def json_lines(entries: AsyncIterator[Recorded]) -> AsyncIterator[bytes]:
    """Entries, a line each; a few hundred at a time: all of it is never in memory."""
    lines: list[str] = []
    async for entry in entries:
        lines.append(json.dumps(entry.to_json(), separators=(",", ":"), ensure_ascii=False) + "\n")
        if len(lines) == _LINES:
            yield "".join(lines).encode("utf-8", "replace")
            lines.clear()
    yield "".join(lines).encode("utf-8", "replace")


@router.get(
    "/audit",
    response_model=schemas.AuditAnswer,
    responses=problems(403) | {200: {"content": {JSON_LINES: {}}, "description": "a page; or all, as JSON lines"}},
    dependencies=[may(Permission.VIEW, Of.VISIBLE)],
)
async def get_audit(
    request: Request,
    services: ServicesOf,
    app: Annotated[str | None, Query(max_length=256, pattern=r"^[^\x00]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    accept: Annotated[str, Header(description="`application/x-ndjson`: all of it, the oldest first.")] = "",
) -> Response:
    """Who did what, and what was refused, newest first; of the apps that the token is for."""
    grant: Grant = grant_of(request)
    if JSON_LINES in accept.lower():
        return StreamingResponse(json_lines(audit.everything(services, grant, app)), media_type=JSON_LINES)
    page = await audit.entries(services, grant, app, decode_cursor(cursor), limit + 1)
    more = encode_cursor(page[limit - 1].seq) if len(page) > limit else None
    return JSONResponse({"entries": [entry.to_json() for entry in page[:limit]], "cursor": more})
