"""The page of an app's snapshots: take one, verify, restore with the loss shown first, take the last restore back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from norn.domain.access import Permission
from norn.domain.operations import Operation
from norn.domain.store import Restore
from norn.errors import NornError, NotPossible, SharedDatabase, SnapshotMissing
from norn.http.answers import AppName
from norn.http.permissions import may, require
from norn.http.requests import ServicesOf, grant_of
from norn.operations import overview, snapshot, undo, verify
from norn.operations.app_databases import service_of, sharing
from norn.operations.restore import RestoreRequest, request_restore, undoable
from norn.operations.services import Services
from norn.ui.errors import answer_on_form
from norn.ui.forms import Fields, form_of
from norn.ui.rendering import render
from norn.ui.requests import see_other

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Look:
    """What there is to see of an app's snapshots."""

    app: str
    database: str
    """Empty where it has none: `why` says what to do."""
    why: str
    snapshots: list[dict[str, Any]]
    last: Restore | None
    """The restore that can be taken back."""
    sharing: tuple[str, ...]
    """The other apps that use the database."""

    def of(self, name: str) -> Mapping[str, Any]:
        """One of them. Raises SnapshotMissing."""
        for one in self.snapshots:
            if one["name"] == name:
                return one
        raise SnapshotMissing(f"{self.app} has no snapshot {name!r}.", hint="The page of its snapshots lists them.")


async def look_at(services: Services, name: str) -> Look:
    """Raises UnknownApp, InfraspecInvalid."""
    app = await services.source.app(name)
    snapshots = await overview.snapshots_document(services, app.name)
    try:
        service = await service_of(services, app)
    except NotPossible as error:
        return Look(app.name, "", f"{error.message} {error.hint}", snapshots, None, ())
    last = undoable(await services.store.restores(app.name), service.database)
    others = tuple(await sharing(services, app.name, service))
    return Look(app.name, service.database, "", snapshots, last if last and last.dropped_at is None else None, others)


@router.get("/apps/{app}/snapshots", dependencies=[may(Permission.VIEW)])
async def get_snapshots(request: Request, app: AppName, services: ServicesOf) -> Response:
    return await _page(request, services, app)


async def _page(
    request: Request, services: Services, app: str, problem: NornError | None = None, reason: str = ""
) -> Response:
    look = await look_at(services, app)
    status = problem.status if problem is not None else 200
    return render(request, "snapshots.html", status=status, app=look.app, look=look, problem=problem, reason=reason)


@router.get("/apps/{app}/snapshots/restore", dependencies=[may(Permission.VIEW)])
async def get_restore(request: Request, app: AppName, services: ServicesOf) -> Response:
    """`?name=`: what restoring it means, and who else is concerned."""
    return await _restore_page(request, services, app, Fields(request.query_params).line("name"))


async def _restore_page(
    request: Request,
    services: Services,
    app: str,
    name: str,
    problem: NornError | None = None,
    sent: Fields | None = None,
) -> Response:
    look = await look_at(services, app)
    status = problem.status if problem is not None else 200
    affects = set(sent.lines("affects")) if sent is not None else set()
    others = tuple(dict.fromkeys((*look.sharing, *_missing(problem))))
    return render(
        request, "restore.html", status=status, app=look.app, look=look, snapshot=look.of(name), problem=problem,
        sharing=others, affects=affects, reason=sent.text("reason") if sent is not None else "",
    )  # fmt: skip


def _missing(problem: NornError | None) -> tuple[str, ...]:
    return tuple(problem.facts["apps"]) if isinstance(problem, SharedDatabase) else ()


def _follow(operation: Operation) -> Response:
    return see_other(f"/operations/{operation.id}")


@router.post("/apps/{app}/snapshots", dependencies=[may(Permission.OPERATE)])
async def post_snapshot(request: Request, app: AppName, services: ServicesOf) -> Response:
    """Take one now."""
    fields, caller = await form_of(request)
    reason = fields.text("reason")
    try:
        return _follow(await snapshot.request_snapshot(services, app, reason, caller, kept=fields.ticked("keep")))
    except NornError as error:
        return await _refused(request, services, app, error, reason)


@router.post("/apps/{app}/snapshots/verify", dependencies=[may(Permission.OPERATE)])
async def post_verify(request: Request, app: AppName, services: ServicesOf) -> Response:
    fields, caller = await form_of(request)
    try:
        return _follow(await verify.request_verification(services, app, fields.line("name") or None, caller))
    except NornError as error:
        return await _refused(request, services, app, error)


@router.post("/apps/{app}/snapshots/restore", dependencies=[may(Permission.ADMINISTER)])
async def post_restore(request: Request, app: AppName, services: ServicesOf) -> Response:
    """Bring it beside the live database; the operation then shows what would be lost, and asks."""
    fields, caller = await form_of(request)
    name = fields.line("name")
    require(grant_of(request), Permission.ADMINISTER, *fields.lines("affects"))
    wanted = RestoreRequest(app, name, affects=fields.lines("affects"), reason=fields.text("reason"))
    try:
        return _follow(await request_restore(services, wanted, caller))
    except NornError as error:
        answer_on_form(error)
        return await _restore_page(request, services, app, name, services.known.error(app, error), fields)


@router.post("/apps/{app}/snapshots/undo", dependencies=[may(Permission.ADMINISTER)])
async def post_undo(request: Request, app: AppName, services: ServicesOf) -> Response:
    """Take the last restore back; the operation asks before it does."""
    fields, caller = await form_of(request)
    require(grant_of(request), Permission.ADMINISTER, *fields.lines("affects"))
    wanted = RestoreRequest(app, None, affects=fields.lines("affects"), reason=fields.text("reason"))
    try:
        return _follow(await undo.request_undo(services, wanted, caller))
    except NornError as error:
        return await _refused(request, services, app, error)


async def _refused(request: Request, services: Services, app: str, error: NornError, reason: str = "") -> Response:
    answer_on_form(error)
    return await _page(request, services, app, services.known.error(app, error), reason)
