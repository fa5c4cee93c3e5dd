"""Routes of notifications: what was sent, and the key that it is signed with."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from norn.domain.access import Permission
from norn.http import schemas
from norn.http.answers import problems
from norn.http.permissions import Of, may
from norn.http.requests import ContextOf, GrantOf

_MAX = 200

router = APIRouter(prefix="/api", responses=problems(), tags=["notifications"])


@router.get(
    "/notifications",
    response_model=schemas.NotificationsAnswer,
    dependencies=[may(Permission.VIEW, Of.VISIBLE)],
)
async def list_notifications(
    context: ContextOf, grant: GrantOf, limit: Annotated[int, Query(ge=1, le=_MAX)] = 50
) -> JSONResponse:
    """Recent ones with their deliveries; those first of which something has not arrived."""
    return JSONResponse({"notifications": await context.notifications.document(limit, grant)})


@router.get(
    "/notifications/key",
    response_model=schemas.NotificationKeyAnswer,
    dependencies=[may(Permission.ADMINISTER, Of.ALL)],
)
async def get_notification_key(context: ContextOf) -> JSONResponse:
    """The key by which receivers verify what they get."""
    return JSONResponse({"key": await context.notifications.key_text()}, headers={"Cache-Control": "no-store"})
