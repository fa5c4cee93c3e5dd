"""The routes: read the request, call the operation, write JSON. No decisions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse

from norn.domain.access import Permission
from norn.domain.deployments import Deployment
from norn.domain.infraspec.schema import infraspec_schema
from norn.errors import Invalid
from norn.http import schemas
from norn.http.answers import AppName, accepted, problems
from norn.http.permissions import Of, may, require
from norn.http.requests import CallerOf, Context, ContextOf, GrantOf, ServicesOf, WaitOf
from norn.operations import (
    adopt,
    app_secrets,
    deploy,
    overview,
    quarantine,
    restart,
    rollback_plan,
)
from norn.operations.events import wait_for
from norn.operations.feed import POLL_S
from norn.operations.rollback_request import RollbackRequest
from norn.waiting import with_pauses

SecretName = Annotated[str, Path(max_length=256, description="As in `secrets` of the infraspec", examples=["SMTP_KEY"])]

router = APIRouter(prefix="/api", responses=problems())


@router.get(
    "/schemas/infraspec",
    tags=["apps"],
    response_model=dict[str, Any],
    dependencies=[may(Permission.VIEW, Of.VISIBLE)],
)
async def get_infraspec_schema() -> JSONResponse:
    """The JSON Schema of infraspec.yaml, for editors."""
    return JSONResponse(infraspec_schema())


# ---- apps --------------------------------------------------------------------------------------------------------


@router.get(
    "/apps",
    tags=["apps"],
    response_model=schemas.AppsAnswer,
    dependencies=[may(Permission.VIEW, Of.VISIBLE)],
)
async def list_apps(services: ServicesOf, grant: GrantOf) -> JSONResponse:
    """The apps under NORN_APPS_DIR that the token is for, with what is live."""
    return JSONResponse({"apps": await overview.apps_document(services, grant)})


@router.get(
    "/apps/{app}",
    tags=["apps"],
    response_model=schemas.AppAnswer,
    responses=problems(404),
    dependencies=[may(Permission.VIEW)],
)
async def get_app(app: AppName, services: ServicesOf) -> JSONResponse:
    """One app: live image, health, readiness to roll back, recent deployments."""
    return JSONResponse(await overview.app_document(services, app))


@router.get(
    "/apps/{app}/artifacts",
    tags=["apps"],
    response_model=schemas.ArtifactsAnswer,
    responses=problems(404),
    dependencies=[may(Permission.VIEW)],
)
async def list_artifacts(app: AppName, services: ServicesOf) -> JSONResponse:
    """The images kept, newest first."""
    return JSONResponse({"artifacts": await overview.artifacts_document(services, app)})


@router.get(
    "/apps/{app}/logs",
    tags=["apps"],
    response_class=StreamingResponse,
    responses=problems(404) | {200: {"content": {"text/plain": {}}, "description": "text, as it comes"}},
    dependencies=[may(Permission.VIEW)],
)
async def get_logs(
    app: AppName,
    services: ServicesOf,
    follow: bool = False,
    tail: Annotated[int, Query(ge=0, le=10_000)] = 200,
) -> StreamingResponse:
    """What the live processes print."""
    found = await services.source.app(app)
    lines = overview.logs(services, found.name, follow=follow, tail=tail)

    async def encoded() -> AsyncIterator[bytes]:
        # Pauses are sent as nothing: whether whoever reads may still do so is looked at whenever something is sent.
        async for text in with_pauses(lines, POLL_S):
            yield (text or "").encode("utf-8", "replace")

    return StreamingResponse(encoded(), media_type="text/plain; charset=utf-8")


# ---- changing ----------------------------------------------------------------------------------------------------


async def _deployment_answer(
    context: Context, deployment: Deployment, wait_s: float, status: int, **more: Any
) -> JSONResponse:
    operation = None
    if wait_s > 0 and status == 202:
        store = context.services.store
        operation = await wait_for(store, context.changes, deployment.id, lambda op: op.accepted, wait_s)
        deployment = await store.deployment(deployment.id) or deployment
    document = await overview.deployment_document(context.services, deployment, operation)
    return JSONResponse(document | more, status, {"Location": f"/api/deployments/{deployment.id}"})


@router.post(
    "/apps/{app}/deploy",
    tags=["apps"],
    status_code=202,
    response_model=schemas.DeploymentAnswer,
    responses=problems(404, 409),
    dependencies=[may(Permission.DEPLOY)],
)
async def post_deploy(
    app: AppName, context: ContextOf, caller: CallerOf, wait: WaitOf, body: schemas.DeployBody | None = None
) -> JSONResponse:
    """Deploy a commit."""
    body = body or schemas.DeployBody()
    if not body.snapshot and not body.reason.strip():
        raise Invalid("snapshot: leaving the snapshot out wants a reason.", hint="Say why in `reason`.")
    request = deploy.DeployRequest(app, body.ref, body.force, body.snapshot, body.reason)
    deployment = await deploy.request_deploy(context.services, request, caller)
    return await _deployment_answer(context, deployment, wait, 202)


@router.post(
    "/apps/{app}/rollback",
    tags=["apps"],
    status_code=202,
    response_model=schemas.RollbackAnswer,
    responses=problems(404, 409) | {200: {"model": schemas.RollbackAnswer, "description": "`dryRun`, or unchanged"}},
    dependencies=[may(Permission.VIEW)],
)
async def post_rollback(
    app: AppName,
    context: ContextOf,
    grant: GrantOf,
    caller: CallerOf,
    wait: WaitOf,
    body: schemas.RollbackBody | None = None,
) -> JSONResponse:
    """Change the image back to the last known-good one, or to the version asked for; that alone."""
    body = body or schemas.RollbackBody()
    if not body.dry_run:
        require(grant, Permission.OPERATE, app)
    if body.restore_snapshot:
        require(grant, Permission.VIEW if body.dry_run else Permission.ADMINISTER, app, *body.affects)
    request = RollbackRequest(
        app=app,
        version=body.image_tag,
        from_deployment_id=body.from_,
        further=body.further,
        template=body.template,
        reason=body.reason,
        force=body.force,
        resume=body.resume,
        dry_run=body.dry_run,
        restore_snapshot=body.restore_snapshot,
        affects=tuple(body.affects),
        confirm=body.confirm,
    )
    reply = await rollback_plan.request_rollback(context.services, request, caller)
    if reply.deployment is None:
        return JSONResponse(reply.to_json())
    status = 200 if reply.unchanged else 202
    return await _deployment_answer(context, reply.deployment, wait, status, unchanged=reply.unchanged)


@router.post(
    "/apps/{app}/adopt",
    tags=["apps"],
    status_code=202,
    response_model=schemas.DeploymentAnswer,
    responses=problems(404, 409),
    dependencies=[may(Permission.DEPLOY)],
)
async def post_adopt(
    app: AppName, context: ContextOf, caller: CallerOf, body: schemas.AdoptBody | None = None
) -> JSONResponse:
    """Take over a Kubernetes Deployment that somebody else has made; nothing that runs is changed."""
    container = body.container if body else None
    deployment = await adopt.request_adopt(context.services, app, container, caller)
    return await _deployment_answer(context, deployment, 0, 202)


@router.post(
    "/apps/{app}/restart",
    tags=["apps"],
    status_code=202,
    response_model=schemas.OperationAnswer,
    responses=problems(404, 409),
    dependencies=[may(Permission.OPERATE)],
)
async def post_restart(app: AppName, services: ServicesOf, caller: CallerOf) -> JSONResponse:
    """Replace all processes by new ones of the same image."""
    return accepted(await restart.request_restart(services, app, caller))


@router.get(
    "/apps/{app}/health",
    tags=["apps"],
    response_model=schemas.HealthChecksAnswer,
    responses=problems(404),
    dependencies=[may(Permission.VIEW)],
)
async def get_app_health(
    app: AppName, services: ServicesOf, minutes: Annotated[int, Query(ge=1, le=1_440)] = 60
) -> JSONResponse:
    """How an app did when it was asked, newest first: every ten seconds, every second while it bakes; for a day."""
    found = await services.source.app(app)
    return JSONResponse({"checks": await overview.health_checks(services, found.name, minutes * 60)})


@router.get(
    "/apps/{app}/quarantine",
    tags=["apps"],
    response_model=schemas.QuarantineAnswer,
    responses=problems(404),
    dependencies=[may(Permission.VIEW)],
)
async def list_quarantine(app: AppName, services: ServicesOf) -> JSONResponse:
    """The images that were rolled back from, and are not deployed again unless somebody says so."""
    found = await services.source.app(app)
    return JSONResponse({"quarantine": [item.to_json() for item in await services.store.quarantined(found.name)]})


@router.post(
    "/apps/{app}/quarantine/lift",
    tags=["apps"],
    response_model=schemas.QuarantinedAnswer,
    responses=problems(404, 409),
    dependencies=[may(Permission.DEPLOY)],
)
async def post_lift(app: AppName, services: ServicesOf, caller: CallerOf, body: schemas.LiftBody) -> JSONResponse:
    """Let an image be deployed again."""
    return JSONResponse((await quarantine.lift(services, app, body.image_tag, caller)).to_json())


# ---- secrets -----------------------------------------------------------------------------------------------------


@router.get(
    "/apps/{app}/secrets",
    tags=["secrets"],
    response_model=schemas.SecretsAnswer,
    responses=problems(404),
    dependencies=[may(Permission.VIEW)],
)
async def list_secrets(app: AppName, services: ServicesOf) -> JSONResponse:
    """The names of an app's secrets; values are never shown."""
    found = await services.source.app(app)
    return JSONResponse({"secrets": list(await services.secrets.names(found.name))})


@router.put(
    "/apps/{app}/secrets/{name}",
    tags=["secrets"],
    status_code=204,
    responses=problems(404),
    dependencies=[may(Permission.DEPLOY)],
)
async def put_secret(
    app: AppName, name: SecretName, body: schemas.SecretBody, services: ServicesOf, caller: CallerOf
) -> Response:
    """Set a secret; processes get it when they start the next time."""
    await app_secrets.set_secret(services, app, name, body.value, caller)
    return Response(status_code=204)


@router.delete(
    "/apps/{app}/secrets/{name}",
    tags=["secrets"],
    status_code=204,
    responses=problems(404),
    dependencies=[may(Permission.DEPLOY)],
)
async def delete_secret(app: AppName, name: SecretName, services: ServicesOf, caller: CallerOf) -> Response:
    """Forget a secret."""
    await app_secrets.unset_secret(services, app, name, caller)
    return Response(status_code=204)


@router.get(
    "/servers",
    tags=["server"],
    response_model=schemas.ServersAnswer,
    dependencies=[may(Permission.VIEW, Of.ALL)],
)
async def list_servers(services: ServicesOf) -> JSONResponse:
    """The servers that work on this database, and operations that nobody works on though they should."""
    return JSONResponse(await overview.servers_document(services))
