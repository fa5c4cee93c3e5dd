"""What each route wants of whoever asks. Every route says so; a test walks over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from fastapi import Depends, Request

from norn.domain.access import Grant, Permission, to_steer
from norn.errors import NotAllowed
from norn.http.requests import grant_of, services_of


class Of(Enum):
    """What a permission has to be for."""

    APP = "app"
    """The app in the path."""
    ALL = "all"
    """All apps, since it concerns them all."""
    VISIBLE = "visible"
    """Any app: the answer has nothing of others, or of none at all."""
    DEPLOYMENT = "deployment"
    """The app of the deployment in the path."""
    OPERATION = "operation"
    """The app of the operation in the path."""


def require(grant: Grant, permission: Permission, *apps: str | None) -> None:
    """Raises NotAllowed where it does not permit that for each of the apps; None is all of them."""
    for app in apps:
        if refusal := grant.refusal(permission, app):
            raise NotAllowed(
                f"{refusal}.",
                hint="`norn token list` shows an admin what each token permits.",
                permission=permission.value,
            )


class May:
    """A dependency of a route; gives the grant. Raises NotAllowed."""

    def __init__(self, permission: Permission, of: Of) -> None:
        self.permission = permission
        self.of = of

    async def __call__(self, request: Request) -> Grant:
        grant = grant_of(request)
        require(grant, self.permission, *await self._apps(request, grant))
        return grant

    async def _apps(self, request: Request, grant: Grant) -> Iterable[str | None]:
        """Of what has no app (there is no such operation) the role decides; the route answers that it is unknown."""
        if self.of is Of.APP:
            return (request.path_params["app"],)
        if self.of is Of.ALL or grant.apps is None:
            return (None,)
        id_ = request.path_params.get("id", "")
        known = id_.isascii() and id_.isalnum()
        found: Any = None
        if self.of is Of.DEPLOYMENT and known:
            found = await services_of(request).store.deployment(id_)
        elif self.of is Of.OPERATION and known:
            found = await services_of(request).store.operation(id_)
        return (found.app,) if found is not None else (next(iter(grant.apps)),)


class MaySteer(May):
    """To confirm or cancel the operation in the path: what that wants depends on what it does to data, and to whose."""

    def __init__(self) -> None:
        super().__init__(Permission.OPERATE, Of.OPERATION)

    async def __call__(self, request: Request) -> Grant:
        grant = await super().__call__(request)
        id_ = request.path_params["id"]
        operation = await services_of(request).store.operation(id_) if id_.isascii() and id_.isalnum() else None
        if operation is not None:
            require(grant, to_steer(operation), operation.app, *operation.params.get("affects", ()))
        return grant


def may(permission: Permission, of: Of = Of.APP) -> Any:
    """For `dependencies=[…]` of a route, or `Annotated[Grant, …]` of a parameter."""
    return Depends(May(permission, of))


def may_steer() -> Any:
    """As `may`, for a route that confirms or cancels the operation in its path."""
    return Depends(MaySteer())
