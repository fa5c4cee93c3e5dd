"""Routes of the history and of operations."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from norn.domain.access import Permission
from norn.domain.deployments import Status
from norn.errors import NotFound
from norn.http import schemas
from norn.http.answers import problems
from norn.http.cursors import decode_cursor, encode_cursor
from norn.http.permissions import Of, may, may_steer, require
from norn.http.requests import CallerOf, GrantOf, ServicesOf
from norn.operations import asking, cancel, overview

Id = Annotated[
    str,
    Path(max_length=64, pattern=r"^[^\x00]*$", description="26 characters", examples=["01jdp3zqk2x7m4n8v5t6w9y0ab"]),
]
_MAX_PAGE = 200

router = APIRouter(prefix="/api", responses=problems())

StatusName = Literal[
    "queued", "building", "testing", "snapshotting", "migrating", "deploying", "baking", "deployed", "failed",
    "cancelled", "rolled_back",
]  # fmt: skip


@router.get(
    "/deployments",
    tags=["history"],
    response_model=schemas.DeploymentsAnswer,
    dependencies=[may(Permission.VIEW, Of.VISIBLE)],
)
async def list_deployments(
    services: ServicesOf,
    grant: GrantOf,
    app: Annotated[str | None, Query(max_length=256, pattern=r"^[^\x00]*$")] = None,
    status: StatusName | None = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> JSONResponse:
    """The history of the apps that the token is for, newest first."""
    if app is not None:
        require(grant, Permission.VIEW, app)
    before = decode_cursor(cursor)
    page = await services.store.deployments(
        app=app, apps=grant.apps, status=Status(status).value if status else None, before=before, limit=limit + 1
    )
    more = encode_cursor(page[limit - 1].seq) if len(page) > limit else None
    return JSONResponse({"deployments": [deployment.to_json() for deployment in page[:limit]], "cursor": more})


@router.get(
    "/deployments/{id}",
    tags=["history"],
    response_model=schemas.DeploymentAnswer,
    responses=problems(404),
    dependencies=[may(Permission.VIEW, Of.DEPLOYMENT)],
)
async def get_deployment(id: Id, services: ServicesOf) -> JSONResponse:  # noqa: A002
    """One deployment with its steps."""
    deployment = await services.store.deployment(id) if id.isalnum() else None
    if deployment is None:
        raise NotFound(f"There is no deployment {id!r}.", hint="`norn history` lists them.")
    return JSONResponse(await overview.deployment_document(services, deployment))


@router.get(
    "/operations/{id}",
    tags=["history"],
    response_model=schemas.OperationAnswer,
    responses=problems(404),
    dependencies=[may(Permission.VIEW, Of.OPERATION)],
)
async def get_operation(id: Id, services: ServicesOf) -> JSONResponse:  # noqa: A002
    """One operation: steps with times and output."""
    return JSONResponse((await overview.operation_of(services, id)).to_json())


@router.post(
    "/operations/{id}/confirm",
    tags=["history"],
    status_code=202,
    response_model=schemas.OperationAnswer,
    responses=problems(404, 409),
    dependencies=[may_steer()],
)
async def post_confirm(id: Id, services: ServicesOf, caller: CallerOf) -> JSONResponse:  # noqa: A002
    """Say yes to what an operation asks (`asks`), so that it goes on."""
    await asking.confirm(services, id, caller)
    return JSONResponse((await overview.operation_of(services, id)).to_json(), 202)


@router.post(
    "/operations/{id}/cancel",
    tags=["history"],
    status_code=202,
    response_model=schemas.OperationAnswer,
    responses=problems(404, 409),
    dependencies=[may_steer()],
)
async def post_cancel(
    id: Id,  # noqa: A002
    services: ServicesOf,
    caller: CallerOf,
    body: schemas.CancelBody | None = None,
) -> JSONResponse:
    """Stop an operation; what it did is undone."""
    operation = await cancel.request_cancel(services, id, body.reason if body else "", caller)
    return JSONResponse(operation.to_json(), 202)
