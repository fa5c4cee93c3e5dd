"""The time in which a version that has just rolled out proves itself; and what becomes of one that does not."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from norn.domain.automatic import Automatic, decide
from norn.domain.deployments import Status, rfc3339
from norn.domain.durations import format_duration
from norn.domain.operations import OperationKind, OperationStatus
from norn.domain.ports import Health
from norn.domain.store import Fenced
from norn.domain.targets import NoTarget, Question
from norn.domain.verdict import verdict_of
from norn.errors import BakeFailed, NornError, RuntimeUnavailable
from norn.operations.health import check_health
from norn.operations.procedures import Outcome, Run
from norn.operations.readiness import findings_of
from norn.operations.rollback_order import RollbackOrder, params_of
from norn.operations.rollouts import end_deployment
from norn.operations.services import Services, new_id
from norn.operations.versions import find_target, live_version

HEALTH_INTERVAL_S = 1.0
FAILURES_IN_A_ROW = 3
RESTARTS_ALLOWED = 2
UNANSWERED_S = 600.0
"""How long a runtime that does not answer is waited for: its silence says nothing of the version."""
BY = "norn"
"""Who asks for a rollback that nobody asked for."""
_LOOK_EVERY_S = 10
_LOGS_S = 2.0
_LAST_LINES = 20
"""Of each process."""


async def bake(run: Run, services: Services, bake_s: float) -> None:
    """Watch the health of what has just rolled out through its bake time.

    Raises BakeFailed after three failing checks in a row, or two restarts since the first one; what the version printed
    last is in the output by then. The time goes on through a restart of the server: what counts is when the bake began.
    """
    try:
        await _watch_health(run, services, bake_s)
    except BakeFailed:
        await _tell_last_words(run, services)
        raise


async def _tell_last_words(run: Run, services: Services) -> None:
    """What its processes printed goes with them, as soon as something else is live."""
    lines: list[str] = []
    try:
        async with asyncio.timeout(_LOGS_S):
            lines.extend([line async for line in services.runtime.logs(run.app, follow=False, tail=_LAST_LINES)])
    except (NornError, TimeoutError) as error:
        why = error.message if isinstance(error, NornError) else "it takes too long."
        run.output.line(f"[what it printed could not be read: {why}]")
    if lines:
        run.output.line("the last of what it printed:")
    for line in lines[-2 * _LAST_LINES :]:
        run.output.line(f"  {line}")


async def _watch_health(run: Run, services: Services, bake_s: float) -> None:
    now = await services.store.now()
    if "bakeBegan" not in run.state:
        await run.checkpoint(bakeBegan=rfc3339(now))
    until = datetime.fromisoformat(run.state["bakeBegan"]) + timedelta(seconds=bake_s)
    run.output.line(f"watching its health for {format_duration(bake_s)}")
    loop = asyncio.get_running_loop()
    end, shown = loop.time() + (until - now).total_seconds(), loop.time()
    in_a_row, answered = 0, loop.time()
    while True:
        left = end - loop.time()
        try:
            health = await check_health(services, run.app)
        except RuntimeUnavailable as error:
            if loop.time() - answered > UNANSWERED_S:
                raise
            if loop.time() - shown >= _LOOK_EVERY_S:
                shown = loop.time()
                run.output.line(f"[its health is not known: {error.message}]")
            await asyncio.sleep(HEALTH_INTERVAL_S)
            continue
        answered = loop.time()
        restarts = await _restarts_since(run, health) if health is not None else 0
        if health is not None and restarts >= RESTARTS_ALLOWED:
            raise BakeFailed(f"It was restarted {restarts} times: {health.message or 'it ended by itself'}.")
        in_a_row = 0 if health is not None and health.healthy else in_a_row + 1
        if in_a_row >= FAILURES_IN_A_ROW:
            why = health.message if health is not None else "nothing runs"
            raise BakeFailed(f"{in_a_row} health checks failed in a row: {why}.")
        if left <= 0 and in_a_row == 0:
            run.output.line("healthy throughout")
            return
        if loop.time() - shown >= _LOOK_EVERY_S:
            shown = loop.time()
            state = f"{health.ready} of {health.wanted} healthy" if health else "nothing runs"
            run.output.line(f"{state}, {format_duration(max(round(left), 0))} left")
        await asyncio.sleep(min(HEALTH_INTERVAL_S, max(left, 0.05)) if in_a_row == 0 else HEALTH_INTERVAL_S)


async def _restarts_since(run: Run, health: Health) -> int:
    """Since its bake began. What runs may be old: adopted, deployed once more, or kept by a rollback."""
    if "restartsBefore" not in run.state:
        await run.checkpoint(restartsBefore=health.restarts)
    elif health.restarts < run.state["restartsBefore"]:  # some of what had been restarted is gone
        run.state["restartsBefore"] = health.restarts
    return health.restarts - int(run.state["restartsBefore"])


# ---- rolling back by itself --------------------------------------------------------------------------------------


async def note_health_before(run: Run, services: Services) -> None:
    """Was what is about to be replaced healthy? Where it was not, its successor's trouble may not be its own."""
    if "healthyBefore" in run.state:
        return
    try:
        health = await services.runtime.health(run.app)
    except RuntimeUnavailable:
        health = None
    await run.checkpoint(healthyBefore=health.healthy if health is not None else None)


async def fail_bake(run: Run, services: Services, failure: str, *, enabled: bool) -> BakeFailed:
    """The error for a bake that failed; what is done about it is decided, and done as the operation ends."""
    order, decision = await _decided(run, services, failure, enabled=enabled)
    if order is None:
        run.output.line(f"it stays live: {decision.why}")
        return BakeFailed(failure, hint=f"It is still live: {decision.why}.", automatic=decision.to_json())
    id_, tag = new_id(), order.target.deployment.image_tag
    run.state["automatic"] = {"id": id_, "params": params_of(order.target.deployment, automatic=True),
                              "columns": order.columns()}  # fmt: skip
    run.output.line(f"going back to {tag} by itself: {decision.why}")
    return BakeFailed(
        failure, hint=f"Norn goes back to {tag} by itself.", automatic=decision.to_json() | {"deploymentId": id_}
    )


async def _decided(
    run: Run, services: Services, failure: str, *, enabled: bool
) -> tuple[RollbackOrder | None, Automatic]:
    """As `_decide`; a runtime that does not answer just now is waited for, as in the bake itself."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + UNANSWERED_S
    while True:
        try:
            return await _decide(run, services, failure, enabled=enabled)
        except RuntimeUnavailable as error:
            if loop.time() > deadline:
                raise
            run.output.line(f"[what to do is not decided yet: {error.message}]")
            await asyncio.sleep(_LOOK_EVERY_S)


async def _decide(
    run: Run, services: Services, failure: str, *, enabled: bool
) -> tuple[RollbackOrder | None, Automatic]:
    live = await live_version(services, run.app)
    if live is None or live.deployment is None or live.deployment.id != run.id:
        return None, Automatic(None, f"{live.image_tag if live else 'nothing'} is live by now")
    choice = await find_target(services, run.app, live)
    verdict = None
    if not isinstance(choice, NoTarget):
        found = await findings_of(services, Question(run.app, choice.deployment, live))
        doubts = await services.runtime.findings(run.app)
        verdict = verdict_of((*choice.findings, *doubts, *found))
    before = run.state.get("healthyBefore")
    decision = decide(run.app, enabled=enabled, healthy_before=before, choice=choice, verdict=verdict)
    if decision.target is None or verdict is None:
        return None, decision
    return RollbackOrder(decision.target, live, verdict, BY, f"automatic: {failure}"), decision


async def end_deploy(run: Run, transaction: Fenced, outcome: Outcome) -> None:
    """With the end of a deploy whose bake failed, in one transaction, its rollback is accepted."""
    await end_deployment(run, transaction, outcome)
    order: dict[str, Any] | None = run.state.get("automatic")
    if order is None or outcome.status is not OperationStatus.FAILED:
        return
    columns = order["columns"]
    asked = await transaction.follow_with(
        order["id"], OperationKind.ROLLBACK, order["params"], columns["requested_by"], columns["reason"]
    )
    if asked:
        await transaction.add_deployment(order["id"], status=Status.QUEUED.value, **columns)
