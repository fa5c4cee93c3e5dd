"""What there is, for people who look: apps, what is live and how it does, could it be rolled back now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from norn.domain.access import Grant
from norn.domain.deployments import Deployment, rfc3339
from norn.domain.operations import Operation
from norn.domain.ports import AppDirectory, Health, Live, Presence
from norn.domain.targets import LiveVersion, NoTarget, Question
from norn.domain.verdict import verdict_of
from norn.errors import InfraspecInvalid, NornError, UnknownOperation
from norn.operations.health import health_of, kept_health
from norn.operations.known import renew
from norn.operations.readiness import findings_of
from norn.operations.services import Services
from norn.operations.versions import find_target, image_of, live_version

_RECENT = 10
_ARTIFACTS_FROM = 1_000
_CHECKS = 10_000
_LATELY_S = 3600.0

Document = dict[str, Any]


async def deployment_document(
    services: Services, deployment: Deployment, operation: Operation | None = None
) -> Document:
    """A deployment with the steps of its operation; that is looked up where it is not given."""
    operation = operation or await services.store.operation(deployment.id)
    steps = [step.to_json() for step in operation.steps] if operation else []
    return deployment.to_json() | {
        "steps": steps,
        "accepted": operation.accepted if operation else True,
        "committed": operation.committed if operation else True,
    }


async def apps_document(services: Services, grant: Grant, *, kept: bool = False) -> list[Document]:
    """All apps that the grant sees, each with what is live and what is being done.

    `kept`: how they do is what the last checks said, seconds ago.
    """
    apps = [app for app in await services.source.apps() if grant.sees(app.name)]
    active = await services.store.active_operations()
    return list(await asyncio.gather(*(_summary(services, app, active, kept=kept) for app in apps)))


async def _summary(services: Services, app: AppDirectory, active: Sequence[Operation], *, kept: bool) -> Document:
    document: Document = {"name": app.name, "role": None, "problem": None, "externalHost": None}
    try:
        spec = await services.source.infraspec(app)
        document |= {"role": spec.role, "externalHost": spec.hosts.external, "port": spec.port}
    except InfraspecInvalid as error:
        document["problem"] = services.known.of(app.name).text(error.message)
    document["live"], document["health"] = await _live(services, app.name, document, kept=kept)
    running = next((operation for operation in active if operation.app == app.name), None)
    document["operation"] = _operation_summary(running)
    return document


def _operation_summary(operation: Operation | None) -> Document | None:
    if operation is None:
        return None
    step = operation.steps[-1].step if operation.steps else None
    return {
        "id": operation.id,
        "kind": operation.kind.value,
        "status": operation.status.value,
        "step": step,
        "requestedBy": operation.requested_by,
        "startedAt": rfc3339(operation.started_at),
    }


async def _live(
    services: Services, app: str, document: Document, *, kept: bool
) -> tuple[Document | None, Document | None]:
    """What is live and how it does; where the runtime does not answer, its error stands in `problem`."""

    async def look() -> tuple[Live | None, Health | None]:
        runs = await services.runtime.live(app)
        if runs is None:
            return None, None
        return runs, await (kept_health(services, app, runs.since) if kept else health_of(services, app))

    try:
        live, (runs, health) = await asyncio.gather(live_version(services, app), look())
    except NornError as error:
        document["problem"] = services.known.of(app).text(error.message)
        return None, None
    if live is None or runs is None:
        return None, None
    began = live.deployment.live_from if live.deployment is not None else None
    shown = _live_document(live, rfc3339(began or runs.since))  # a restart makes no version newer
    if health is None:
        return shown, None
    return shown, {
        "healthy": health.healthy,
        "wanted": health.wanted,
        "ready": health.ready,
        "restarts": health.restarts,
        "message": health.message,
    }


async def logs(services: Services, app: str, *, follow: bool, tail: int) -> AsyncGenerator[str, None]:
    """What the live processes print, in pieces as it comes, without secrets."""
    await renew(services, app)
    stream = services.known.of(app).stream()
    async for line in services.runtime.logs(app, follow=follow, tail=tail):
        if text := stream.write(f"{line}\n"):
            yield text
    if text := stream.rest():
        yield text


async def health_checks(services: Services, app: str, within_s: float) -> list[Document]:
    """What the last checks said, the newest first."""
    return [check.to_json() for check in await services.store.health_checks(app, within_s, _CHECKS)]


async def servers_document(services: Services) -> Document:
    """The servers on this database, and the operations that one of them may have left behind."""
    servers, leases = await asyncio.gather(services.store.servers(), services.store.stale_leases())
    return {"servers": [one.to_json() for one in servers], "staleLeases": [one.to_json() for one in leases]}


def _live_document(live: LiveVersion, since: str | None) -> Document:
    known = live.deployment
    return {
        "imageTag": live.image_tag,
        "digest": live.digest,
        "deploymentId": known.id if known else None,
        "commitSha": known.commit_sha if known else None,
        "commitSubject": known.commit_subject if known else None,
        "provenAt": rfc3339(known.proven_at) if known else None,
        "since": since,
    }


async def app_summary(services: Services, name: str, *, kept: bool = False) -> Document:
    """One app as in the list (`kept`: see there), with the step that runs. Raises UnknownApp."""
    app = await services.source.app(name)
    active = await services.store.active_operations(app.name)
    with_steps = [await services.store.operation(operation.id) or operation for operation in active[:1]]
    return await _summary(services, app, with_steps, kept=kept)


async def app_document(services: Services, name: str) -> Document:
    """One app: as in the list, with its readiness to roll back and its recent deployments. Raises UnknownApp."""
    document = await app_summary(services, name)
    app = document["name"]
    recent = await services.store.deployments(app=app, limit=_RECENT)
    document["rollback"] = await readiness_document(services, app)
    document["lately"] = await _lately(services, app)
    document["deployments"] = [deployment.to_json() for deployment in recent]
    return document


async def _lately(services: Services, app: str) -> Document:
    """How many checks of the last hour failed, and the last one that did."""
    checks = await services.store.health_checks(app, _LATELY_S, _CHECKS)
    failed = [check for check in checks if not check.health.healthy]
    last = {"at": rfc3339(failed[0].at), "message": failed[0].health.message} if failed else None
    return {"checks": len(checks), "failed": len(failed), "last": last}


async def readiness_document(services: Services, app: str) -> Document:
    """Could it be rolled back right now, to what, and would that be enough?"""
    try:
        live = await live_version(services, app)
        choice = await find_target(services, app, live)
    except NornError as error:
        why = services.known.of(app).text(error.message)
        return {"possible": False, "why": why, "target": None, "verdict": None}
    if isinstance(choice, NoTarget):
        return {"possible": False, "why": choice.why, "target": None, "verdict": None}
    found = await findings_of(services, Question(app, choice.deployment, live))
    about, now = await asyncio.gather(services.runtime.findings(app), services.store.now())
    verdict = verdict_of((*choice.findings, *about, *found)).to_json()
    document = {"possible": True, "why": choice.why, "target": choice.to_json(), "verdict": verdict}
    return document | {"at": rfc3339(now)}


async def artifacts_document(services: Services, name: str) -> list[Document]:
    """The images kept of an app, newest first. Raises UnknownApp."""
    app = await services.source.app(name)
    live = await live_version(services, app.name)
    choice = await find_target(services, app.name, live)
    target = None if isinstance(choice, NoTarget) else choice.deployment.image_tag
    newest: dict[str, Deployment] = {}
    for deployment in await services.store.deployments(app=app.name, limit=_ARTIFACTS_FROM):
        newest.setdefault(deployment.image_tag, deployment)
    kept = []
    for tag, deployment in newest.items():
        if deployment.digest is None:
            continue
        found = await services.images.look(app.name, image_of(deployment))
        if found.presence is Presence.GONE:
            continue
        kept.append(
            {
                "imageTag": tag,
                "digest": deployment.digest,
                "commitSha": deployment.commit_sha,
                "status": deployment.status.value,
                "deployedAt": rfc3339(deployment.rolled_out_at),
                "live": live is not None and live.digest == deployment.digest,
                "target": tag == target,
            }
        )
    return kept


async def snapshots_document(services: Services, name: str) -> list[Document]:
    """The snapshots of an app, newest first; `exists` is false where the file is gone. Raises UnknownApp."""
    app = await services.source.app(name)
    there = set(await services.snapshots.names())
    return [_snapshot(row, there) for row in await services.store.snapshots(app.name)]


def _snapshot(row: Mapping[str, Any], there: set[str]) -> Document:
    return {
        "name": row["name"],
        "database": row["database"],
        "commitSha": row["commit_sha"],
        "operationId": row["operation_id"],
        "reason": row["reason"],
        "sizeBytes": row["size_bytes"],
        "takenAt": rfc3339(row["taken_at"]),
        "kept": row["kept"],
        "host": row["host"],
        "verifiedAt": rfc3339(row["verified_at"]),
        "verification": row["verification"],
        "exists": row["name"] in there,
    }


async def operation_of(services: Services, operation_id: str) -> Operation:
    """Raises UnknownOperation."""
    operation = await services.store.operation(operation_id)
    if operation is None:
        raise UnknownOperation(f"There is no operation {operation_id!r}.", hint="`norn history` lists deployments.")
    return operation
