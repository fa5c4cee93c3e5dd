"""What the pages' routes have in common."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import RedirectResponse

from norn.domain.access import Grant, Permission
from norn.errors import NotAllowed

Before = Annotated[int | None, Query(ge=0, lt=2**63, description="Deployments older than the one of this number")]


def grant_of(request: Request) -> Grant | None:
    grant: Grant | None = getattr(request.state, "grant", None)
    return grant


def check(request: Request, permission: Permission, app: str | None) -> None:
    """For what belongs to an app that is not in the path. Raises NotAllowed."""
    grant = grant_of(request)
    if grant is not None and (why := grant.refusal(permission, app)):
        raise NotAllowed(f"{why}.", hint="Somebody with the role admin can make another token.")


def sees(request: Request, app: str) -> bool:
    grant = grant_of(request)
    return grant is None or grant.sees(app)


def see_other(path: str) -> RedirectResponse:
    """After a form: to the page that shows what came of it, so that loading that again sends nothing again."""
    return RedirectResponse(path, 303)
