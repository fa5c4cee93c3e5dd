"""What a rollback would do, and taking the request for it: target, verdict, what is stopped for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from norn.domain import targets
from norn.domain.audit import Asked
from norn.domain.claims import Begun
from norn.domain.deployments import Deployment, Status
from norn.domain.operations import Accept, Answer, Operation, OperationKind, admit
from norn.domain.store import AppState, Changed
from norn.domain.targets import LiveVersion, NoTarget, Question, Target
from norn.domain.verdict import Finding, Level, Verdict, verdict_of
from norn.errors import Busy, NothingToRollBackTo
from norn.operations.readiness import findings_of
from norn.operations.rollback_order import RollbackOrder, params_of, prepared, prepared_text
from norn.operations.rollback_request import (
    RollbackRequest,
    refuse_other_stops,
    refuse_other_target,
    refuse_stale,
    refuse_stopping,
    refused,
    stale,
)
from norn.operations.rollouts import refuse_halted, remembered
from norn.operations.services import Caller, Services, accepting, answer_again, answered_once, new_id
from norn.operations.versions import find_target, find_version, live_version
from norn.operations.way_back import WayBack, back_without_data, find_way_back

_CHANGES = (OperationKind.DEPLOY, OperationKind.ROLLBACK)
"""What is about to replace what is live, as long as it is not committed."""
_LOOKS = 5
"""How often a request looks again when what is live changes under its eyes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rollback would do, and whether that is enough."""

    target: Target
    live: LiveVersion | None
    verdict: Verdict
    stop: tuple[Operation, ...] = ()
    ensure: bool = False
    """What is live stays: the deploy in the way has not rolled out."""
    at: datetime | None = None
    """When it was made, by the database's clock."""
    data: WayBack | None = None

    @property
    def unchanged(self) -> bool:
        return (
            self.data is None
            and not self.ensure
            and self.live is not None
            and self.target.deployment.digest == self.live.digest
        )

    @property
    def goes_back(self) -> bool:
        return not self.ensure and targets.goes_back(self.target.deployment, self.live)

    def target_json(self) -> dict[str, Any]:
        """The target, and the data that comes back with it."""
        return self.target.to_json() | ({"restore": self.data.to_json()} if self.data is not None else {})


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request: the deployment that it made, or the one that makes it needless; or only the plan."""

    deployment: Deployment | None
    unchanged: bool = False
    plan: Plan | None = None

    def to_json(self) -> dict[str, Any]:
        if self.deployment is not None:
            return self.deployment.to_json() | {"unchanged": self.unchanged}
        assert self.plan is not None
        target, live = self.plan.target.deployment, self.plan.live
        return {
            "id": None,
            "app": target.app,
            "kind": "rollback",
            "dryRun": True,
            "unchanged": self.plan.unchanged,
            "imageTag": target.image_tag,
            "digest": target.digest,
            "commitSha": target.commit_sha,
            "commitSubject": target.commit_subject,
            "fromImageTag": live.image_tag if live else None,
            "fromDeploymentId": live.deployment.id if live and live.deployment else None,
            "target": self.plan.target_json(),
            "verdict": self.plan.verdict.to_json(),
            "stops": [operation.id for operation in self.plan.stop],
        }


@dataclass(frozen=True, slots=True)
class _Look:
    """The world as a plan sees it."""

    live: LiveVersion | None
    now: datetime
    doubts: Sequence[Finding]
    """What the runtime says of it."""
    named: tuple[Deployment, tuple[Finding, ...]] | None
    """The version that was asked for by name, and what is doubtful about it."""


# ---- taking the request ------------------------------------------------------------------------------------------


async def request_rollback(services: Services, request: RollbackRequest, caller: Caller) -> Reply:
    """Accept a rollback; it begins at once, whatever deploy is in its way.

    Raises UnknownApp, UnknownVersion, AmbiguousVersion, ImageMissing, NothingToRollBackTo, Stale, Unsafe, Paused,
    NotAllowed, Busy, RuntimeUnavailable; with data as `find_way_back`.
    """
    app = await services.source.app(request.app)
    request = replace(request, reason=services.known.of(app.name).text(request.reason))
    reply: Reply | None = None

    async def take() -> str:
        nonlocal reply
        for _ in range(_LOOKS):
            with suppress(Changed):
                found = await _look_and_take(services, app.name, request, caller)
                if found.unchanged and not request.dry_run:
                    await _bind(services, found, caller)
                reply = found
                return found.deployment.id if found.deployment else ""
            if not request.dry_run:
                await answer_again(services, caller)  # it may be what has changed the world
        raise Busy(f"What is live of {app.name} changed {_LOOKS} times while looking.", hint="Try again.")

    if request.dry_run:  # nothing is asked for but to know
        await take()
        assert reply is not None
        return reply
    asked = Asked.request(OperationKind.ROLLBACK, app.name, request.version or "", request.reason)
    before = await answered_once(services, caller, asked, take)
    return reply or Reply(await services.store.deployment(before.operation_id), before.unchanged)


async def _bind(services: Services, reply: Reply, caller: Caller) -> None:
    """Bind what was there already to the caller's key, as what is made is: sent again later, it goes no further."""
    key, found = caller.idempotency_key, reply.deployment
    if key is None or found is None:
        return
    if not await services.store.remember_answer(key, caller.request_hash, found.id):
        await answer_again(services, caller)


async def _look_and_take(services: Services, app: str, request: RollbackRequest, caller: Caller) -> Reply:
    """Plan, then take the request if the world is still as the plan found it. Raises Changed where it is not."""
    named, (state, live), doubts = await asyncio.gather(
        _named(services, app, request), _state(services, app), services.runtime.findings(app)
    )
    admission = admit(OperationKind.ROLLBACK, state.active, explicit=not request.joins(state.active))
    if isinstance(admission, Answer):
        joined = await services.store.deployment(admission.operation.id)
        if joined is None or joined.status.ended:
            raise Changed  # it has ended since
        if request.from_deployment_id not in (None, joined.id, joined.from_deployment_id):
            raise stale(request, live)
        return Reply(joined, unchanged=True)
    assert isinstance(admission, Accept)
    refuse_stale(request, live)
    plan = await _plan(services, app, request, _Look(live, state.now, doubts, named), admission.stop)
    refuse_other_target(request, plan.target)
    refuse_other_stops(request, plan.stop)
    if request.with_data:
        plan = await _with_data(services, app, request, plan)
    if plan.unchanged:
        await refuse_halted(services, app)
        return Reply(plan.live.deployment if plan.live else None, unchanged=True, plan=plan)
    if not request.dry_run:
        refuse_stopping(caller, plan.stop)
    plan = await _judged(services, request, plan, state)
    if plan.verdict.level is Level.UNSAFE:
        if not request.insists(plan.verdict):
            raise refused(plan.target.deployment, plan.verdict, plan.target_json())
        request = replace(request, force=True)
    if not request.resume:
        await services.runtime.refuse_paused(app)
    if request.dry_run:
        return Reply(None, plan=plan)
    return await _take(services, app, request, caller, plan, state)


async def _state(services: Services, app: str) -> tuple[AppState, LiveVersion | None]:
    state = await services.store.app_state(app)
    return state, await live_version(services, app, state.live)


async def _judged(services: Services, request: RollbackRequest, plan: Plan, state: AppState) -> Plan:
    """The plan with its verdict; what an undo brings back was live together, and nobody has to judge that."""
    if request.data is not None:
        return plan
    question = Question(
        plan.target.deployment.app, plan.target.deployment, plan.live, request.template, request.with_data
    )
    found = await findings_of(services, question, state.change)
    judged = replace(plan, verdict=verdict_of((*plan.verdict.findings, *found)))
    if not request.dry_run:
        services.judged(judged.verdict.level)
    return judged


async def _named(
    services: Services, app: str, request: RollbackRequest
) -> tuple[Deployment, tuple[Finding, ...]] | None:
    return await find_version(services, app, request.version) if request.version is not None else None


async def _plan(services: Services, app: str, request: RollbackRequest, seen: _Look, stop: Sequence[Operation]) -> Plan:
    live, now, found = seen.live, seen.now, seen.doubts
    if seen.named is not None:
        chosen, doubts = seen.named
        target = targets.named_target(chosen, request.version or "", live, now)
        leaving = any(one.kind in _CHANGES and not one.committed for one in stop)
        stays = leaving and live is not None and chosen.digest == live.digest
        verdict = verdict_of((*target.findings, *doubts, *found))
        return Plan(target, live, verdict, tuple(stop), ensure=stays, at=None if stays else now)
    if request.restore_snapshot and not request.further:
        alone = await back_without_data(services, live, stop)
        if alone is not None:
            return Plan(targets.its_data_target(alone, now), live, verdict_of(found), tuple(stop), at=now)
    unfinished = next((operation for operation in stop if not operation.committed), None)
    if unfinished is not None and unfinished.kind is OperationKind.DEPLOY:
        target = await _ensured(services, app, unfinished, live, now)
        return Plan(target, live, verdict_of(found), tuple(stop), ensure=True)
    before = live
    if unfinished is not None and unfinished.kind is OperationKind.ROLLBACK and unfinished.cancel is None:
        before = await _as_if_rolled_back(services, unfinished)  # further than where that one goes
    choice = await find_target(services, app, before, now)
    if isinstance(choice, NoTarget):
        raise nothing_to_roll_back_to(app, choice)
    return Plan(choice, live, verdict_of((*choice.findings, *found)), tuple(stop), at=now)


async def _with_data(services: Services, app: str, request: RollbackRequest, plan: Plan) -> Plan:
    """The plan with what is restored for it."""
    if request.data is not None:
        return replace(plan, data=request.data)
    deploys = (operation for operation in plan.stop if operation.kind is OperationKind.DEPLOY)
    stopped = next(deploys, None) if plan.ensure else None
    target = plan.target.deployment
    alone = await back_without_data(services, plan.live, ())
    # What was taken since the code alone has gone back to it is not its own data.
    before = alone.live_from if alone is not None and alone.digest == target.digest else None
    data = await find_way_back(
        services, app, target, request.affects, stopped=stopped, before=before, count=request.dry_run
    )
    return replace(plan, data=data)


async def _as_if_rolled_back(services: Services, running: Operation) -> LiveVersion | None:
    deployment = await services.store.deployment(running.id)
    if deployment is None:
        return None
    return LiveVersion(deployment.image_tag, deployment.digest or "", deployment)


async def _ensured(services: Services, app: str, deploy: Operation, live: LiveVersion | None, now: datetime) -> Target:
    stopped = await services.store.deployment(deploy.id)
    tag = stopped.image_tag if stopped else "the new version"
    if live is None:
        raise NothingToRollBackTo(
            f"Nothing of {app} was live before the deploy of {tag}, which is still at work.",
            hint=f"`norn cancel {deploy.id}` stops it.",
            skipped=[],
        )
    if live.deployment is None:
        choice = await find_target(services, app, live, now)
        if isinstance(choice, NoTarget):
            raise nothing_to_roll_back_to(app, choice)
        return choice
    return targets.ensured_target(live.deployment, tag, now)


def nothing_to_roll_back_to(app: str, choice: NoTarget) -> NothingToRollBackTo:
    """The error that says why, and what there is instead."""
    return NothingToRollBackTo(
        f"There is nothing to roll {app} back to: {choice.why}.",
        hint=f"`norn rollback {app} --to VERSION` goes to any version in `norn history {app}`, `norn deploy {app} REF` "
        "makes a new one.",
        skipped=[skipped.to_json() for skipped in choice.skipped],
    )


async def _begun(services: Services, app: str, plan: Plan, template: Mapping[str, Any] | None) -> Begun | None:
    """A rollback that nothing is in the way of is begun as it is accepted: it is in a hurry.

    What its first step would do, looking once more, was done a moment ago by the plan.
    """
    worker = services.worker
    if plan.stop or plan.ensure or plan.data is not None or worker is None or not worker.ready():
        return None
    target, live = plan.target.deployment, plan.live
    previous = await remembered(services, app, live)
    done = (("prepare", prepared_text(target, live, plan.target.why)),)
    return Begun(worker.server_id, worker.lease_s, prepared(target, template, live, previous), done, "switch")


async def _take(
    services: Services,
    app: str,
    request: RollbackRequest,
    caller: Caller,
    plan: Plan,
    state: AppState,
) -> Reply:
    operation_id = new_id()
    target = plan.target.deployment
    order = RollbackOrder(plan.target, plan.live, plan.verdict, caller.name, request.reason, request.template)
    begun = await _begun(services, app, plan, order.template)
    params = params_of(
        target,
        ensure=plan.ensure,
        explicit=request.explicit,
        template=request.template,
        resume=request.resume,
        force=request.force,
        stops=bool(plan.stop),
    )
    if plan.data is not None:
        params |= plan.data.params(confirm=request.confirm) | {"affects": list(request.affects)}
    async with accepting(services, app, caller, operation_id, state) as transaction:
        what = (operation_id, OperationKind.ROLLBACK, params, caller.name, request.reason)
        if begun is not None:
            await transaction.add_begun(*what, begun)
        else:
            await transaction.add_operation(*what)
        await transaction.add_deployment(
            operation_id,
            status=Status.DEPLOYING.value if begun is not None else Status.QUEUED.value,
            started_at=plan.at if begun is not None else None,
            **order.columns(plan.target_json()),
        )
        for operation in plan.stop:
            why = f"{caller.name} rolls back to {target.image_tag}"
            cancelled = await transaction.cancel(operation.id, caller.name, why, preempted_by=operation_id)
            if not cancelled and operation.cancel is None:
                raise Changed  # it has ended meanwhile, and may have left another one behind
    if begun is not None:
        assert services.worker is not None
        services.worker.take(await transaction.claim())
        await asyncio.sleep(0)  # the change first, then the answer
    return Reply(await transaction.deployment(), plan=plan)
