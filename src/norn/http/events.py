"""Server-sent events (WHATWG HTML, section 9.2): every change, in the order of commits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from norn.domain.access import Permission
from norn.domain.deployments import rfc3339
from norn.domain.store import Event
from norn.errors import Malformed
from norn.http.answers import problems
from norn.http.cursors import number_of
from norn.http.permissions import Of, may, require
from norn.http.requests import Context, ContextOf, grant_of

router = APIRouter(prefix="/api", tags=["events"])


def encode(event: Event) -> str:
    data = {"app": event.app, "operationId": event.operation_id, "at": rfc3339(event.at)} | dict(event.data)
    return f"id: {event.seq}\nevent: {event.type}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def _gap(after: int, resumed: int) -> str:
    """Told to who asks for events that are not kept any more: what is missing is to be read anew."""
    return f"id: {resumed}\nevent: gap\ndata: {json.dumps({'after': after, 'resumedAfter': resumed})}\n\n"


async def _resume(context: Context, asked: str) -> tuple[int, str]:
    """Where to go on behind a Last-Event-ID, and what to say first. Raises Malformed."""
    after = number_of(asked)
    if after is None:
        raise Malformed("Last-Event-ID is not the number of an event.")
    oldest, newest = await context.services.store.kept_events()
    resumed = min(max(after, oldest - 1), newest)
    return resumed, "" if resumed == after else _gap(after, resumed)


async def _stream(
    request: Request, context: Context, after: int, first: str, app: str | None, operation: str | None
) -> AsyncIterator[str]:
    grant = grant_of(request)
    yield f"retry: 1000\n: connected\n\n{first}"
    async with aclosing(context.feed.follow(after, app=app, operation=operation, sees=grant.sees)) as batches:
        async for batch in batches:
            if batch:
                yield "".join([one.text for one in batch])
            elif await request.is_disconnected():
                return
            else:
                yield ": still here\n\n"


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses=problems() | {200: {"content": {"text/event-stream": {}}, "description": "events, as they come"}},
    dependencies=[may(Permission.VIEW, Of.VISIBLE)],
)
async def get_events(
    request: Request,
    context: ContextOf,
    app: Annotated[str | None, Query(max_length=256, pattern=r"^[^\x00]*$")] = None,
    operation: Annotated[str | None, Query(max_length=64, pattern=r"^[0-9a-z]*$")] = None,
    last_event_id: Annotated[str | None, Header(description="Goes on behind this event.")] = None,
) -> StreamingResponse:
    """Events from now on, or behind Last-Event-ID; those of one operation from its beginning.

    Of the apps that the token is for. They are kept for seven days. Who asks for older ones is told so by a first
    event `gap`, and reads anew.
    """
    grant = grant_of(request)
    if app is not None:
        require(grant, Permission.VIEW, app)
    if operation and grant.apps is not None:
        found = await context.services.store.operation(operation)
        require(grant, Permission.VIEW, *((found.app,) if found is not None else ()))
    first = ""
    if last_event_id is not None:
        after, first = await _resume(context, last_event_id)
    else:
        after = 0 if operation else (await context.services.store.kept_events())[1]
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _stream(request, context, after, first, app, operation), media_type="text/event-stream", headers=headers
    )
