"""Routes of snapshots, restores and retention."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse

from norn.domain.access import Permission
from norn.http import schemas
from norn.http.answers import AppName, accepted, problems
from norn.http.permissions import may, require
from norn.http.requests import CallerOf, GrantOf, ServicesOf
from norn.operations import overview, prune, restore, snapshot, undo, verify

SnapshotName = Annotated[
    str,
    Path(
        max_length=256,
        pattern=r"^[^\x00]*$",
        description="As in the list of snapshots",
        examples=["myapp_db_3f2a91c04be7_20261124T030000000000Z.dump"],
    ),
]

router = APIRouter(prefix="/api", responses=problems())


@router.get(
    "/apps/{app}/snapshots",
    tags=["snapshots"],
    response_model=schemas.SnapshotsAnswer,
    responses=problems(404),
    dependencies=[may(Permission.VIEW)],
)
async def list_snapshots(app: AppName, services: ServicesOf) -> JSONResponse:
    """The snapshots of the app's database, newest first."""
    return JSONResponse({"snapshots": await overview.snapshots_document(services, app)})


@router.post(
    "/apps/{app}/snapshots",
    tags=["snapshots"],
    status_code=202,
    response_model=schemas.OperationAnswer,
    responses=problems(404, 409),
    dependencies=[may(Permission.OPERATE)],
)
async def post_snapshot(
    app: AppName, services: ServicesOf, caller: CallerOf, body: schemas.SnapshotBody | None = None
) -> JSONResponse:
    """Take a snapshot now."""
    body = body or schemas.SnapshotBody()
    return accepted(await snapshot.request_snapshot(services, app, body.reason, caller, kept=body.keep))


@router.post(
    "/apps/{app}/snapshots/{name}/restore",
    tags=["snapshots"],
    status_code=202,
    response_model=schemas.OperationAnswer,
    responses=problems(404, 409, 507),
    dependencies=[may(Permission.ADMINISTER)],
)
async def post_restore(
    app: AppName,
    name: SnapshotName,
    services: ServicesOf,
    grant: GrantOf,
    caller: CallerOf,
    body: schemas.RestoreBody | None = None,
) -> JSONResponse:
    """Restore a snapshot beside the live database, ask whether what would be lost may go, and swap the two."""
    body = body or schemas.RestoreBody()
    require(grant, Permission.ADMINISTER, *body.affects)
    request = restore.RestoreRequest(app, name, body.into, tuple(body.affects), body.confirm, body.reason)
    return accepted(await restore.request_restore(services, request, caller))


@router.post(
    "/apps/{app}/snapshots/undo",
    tags=["snapshots"],
    status_code=202,
    response_model=schemas.OperationAnswer,
    responses=problems(404, 409),
    dependencies=[may(Permission.ADMINISTER)],
)
async def post_undo(
    app: AppName, services: ServicesOf, grant: GrantOf, caller: CallerOf, body: schemas.UndoBody | None = None
) -> JSONResponse:
    """Take the last restore back: what was live before it is live again, the code too where it went back with it."""
    body = body or schemas.UndoBody()
    require(grant, Permission.ADMINISTER, *body.affects)
    request = restore.RestoreRequest(app, None, None, tuple(body.affects), body.confirm, body.reason)
    return accepted(await undo.request_undo(services, request, caller))


@router.post(
    "/apps/{app}/snapshots/{name}/verify",
    tags=["snapshots"],
    status_code=202,
    response_model=schemas.OperationAnswer,
    responses=problems(404, 409),
    dependencies=[may(Permission.OPERATE)],
)
async def post_verify(app: AppName, name: SnapshotName, services: ServicesOf, caller: CallerOf) -> JSONResponse:
    """Hash, full read and a test restore, on a server for that alone; `newest` names the newest one."""
    chosen = None if name == "newest" else name
    return accepted(await verify.request_verification(services, app, chosen, caller))


@router.post(
    "/apps/{app}/prune",
    tags=["snapshots"],
    status_code=202,
    response_model=schemas.OperationAnswer,
    responses=problems(404, 409) | {200: {"model": schemas.RetentionAnswer, "description": "`dryRun`"}},
    dependencies=[may(Permission.VIEW)],
)
async def post_prune(
    app: AppName, services: ServicesOf, grant: GrantOf, caller: CallerOf, body: schemas.PruneBody | None = None
) -> JSONResponse:
    """Apply retention now; with `dryRun` only say what would stay and what would go, and why."""
    if body is not None and body.dry_run:
        return JSONResponse({"fates": [fate.to_json() for fate in await prune.plan_of(services, app)]})
    require(grant, Permission.ADMINISTER, app)
    return accepted(await prune.request_prune(services, app, caller))
