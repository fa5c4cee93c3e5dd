"""The page of an operation: its steps with their output as it comes, what it asks, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Request, Response
from fastapi.responses import PlainTextResponse

from norn.domain.access import Grant, Permission, to_steer
from norn.domain.operations import Operation, OperationKind, StepRecord, StepStatus
from norn.domain.store import Store
from norn.errors import NotFound
from norn.http.permissions import Of, may, may_steer
from norn.http.requests import CallerOf, ServicesOf, grant_of
from norn.operations import asking, cancel, overview
from norn.operations.services import Services
from norn.ui.progress import rollout_of
from norn.ui.rendering import render
from norn.ui.requests import see_other

SHOWN_CHARS = 12_000
"""Of the output of a step that runs or failed; of the others a third. The whole of it is a page of its own."""
_ROLLING = frozenset({"deploy", "rollout", "switch", "start"})
_ON_ITS_WAY = frozenset({StepStatus.RUNNING, StepStatus.DONE})
_LOOKS = 3
_RECORDED = frozenset({OperationKind.DEPLOY, OperationKind.ROLLBACK, OperationKind.ADOPT})

router = APIRouter(include_in_schema=False)

Id = Annotated[str, Path(max_length=64, pattern=r"^[0-9a-z]+$")]
Reason = Annotated[str, Form(max_length=2_000, pattern=r"^[^\x00]*$")]
Document = dict[str, Any]


@router.get("/operations/{id}", dependencies=[may(Permission.VIEW, Of.OPERATION)])
async def get_operation(request: Request, id: Id, services: ServicesOf) -> Response:  # noqa: A002
    return render(request, "operation.html", **await _values(request, services, id))


@router.get("/operations/{id}/parts/progress", dependencies=[may(Permission.VIEW, Of.OPERATION)])
async def get_progress(request: Request, id: Id, services: ServicesOf) -> Response:  # noqa: A002
    return render(request, "operation_progress.html", **await _values(request, services, id))


@router.get("/operations/{id}/output/{ordinal}", dependencies=[may(Permission.VIEW, Of.OPERATION)])
async def get_output(
    id: Id,  # noqa: A002
    ordinal: Annotated[int, Path(ge=0, lt=1_000)],
    services: ServicesOf,
) -> Response:
    """All that is kept of a step's output, as text."""
    operation = await overview.operation_of(services, id)
    step = next((step for step in operation.steps if step.ordinal == ordinal), None)
    if step is None:
        raise NotFound("The operation has no such step.")
    return PlainTextResponse(step.output, headers={"Cache-Control": "no-store"})


@router.post("/operations/{id}/cancel", dependencies=[may_steer()])
async def post_cancel(
    id: Id,  # noqa: A002
    services: ServicesOf,
    caller: CallerOf,
    reason: Reason = "",
) -> Response:
    await cancel.request_cancel(services, id, reason, caller)
    return see_other(f"/operations/{id}")


@router.post("/operations/{id}/confirm", dependencies=[may_steer()])
async def post_confirm(id: Id, services: ServicesOf, caller: CallerOf) -> Response:  # noqa: A002
    await asking.confirm(services, id, caller)
    return see_other(f"/operations/{id}")


async def steps_document(services: Services, id_: str) -> Document:
    """The operation with its steps as they are shown, and the number of the last event that is in it."""
    operation, seq = await _as_of(services.store, await overview.operation_of(services, id_))
    return {"operation": _shown(operation), "seq": seq}


async def _values(request: Request, services: Services, id_: str) -> Document:
    operation, seq = await _as_of(services.store, await overview.operation_of(services, id_))
    deployment = await services.store.deployment(id_) if operation.kind in _RECORDED else None
    return {
        "operation": _shown(operation),
        "ended": operation.status.ended,
        "deployment": deployment.to_json() if deployment else None,
        "seq": seq,
        "no_steering": _no_steering(grant_of(request), operation),
    }


def _no_steering(grant: Grant, operation: Operation) -> str:
    """Why one may not answer or stop it; empty where one may, for each app that it affects."""
    apps = (operation.app, *operation.params.get("affects", ()))
    return next(filter(None, (grant.refusal(to_steer(operation), app) for app in apps)), "")


def _shown(operation: Operation) -> Document:
    return operation.to_json() | {"steps": [_step(step) for step in operation.steps]}


async def _as_of(store: Store, operation: Operation) -> tuple[Operation, int]:
    """The operation, and the number of the last event that its output includes.

    Whoever follows appends the output of later events, so the two have to fit: they are read until nothing has
    happened between. Where that does not succeed, what may be shown twice is right again with the next step.
    """
    for _ in range(_LOOKS):
        _, before = await store.kept_events()
        found = await store.operation(operation.id) or operation
        _, after = await store.kept_events()
        if before == after:
            break
    return found, before


def _step(step: StepRecord) -> Document:
    room = SHOWN_CHARS if step.status in (StepStatus.RUNNING, StepStatus.FAILED) else SHOWN_CHARS // 3
    shown = step.output if len(step.output) <= room else step.output[-room:].partition("\n")[2] or step.output[-room:]
    return step.to_json() | {
        "ordinal": step.ordinal,
        "shown": shown,
        "leftOut": len(step.output) - len(shown),
        "rollout": rollout_of(step.output) if step.step in _ROLLING and step.status in _ON_ITS_WAY else None,
        "finishedAt": step.finished_at,
    }
