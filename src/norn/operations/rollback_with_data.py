"""Roll back code and data as one: the data restored beside the live database while the app still serves, then the app
stopped, the databases swapped, the image changed, the app started. Whatever fails takes the whole back.
"""

from __future__ import annotations

import asyncio

import structlog

from norn.domain.deployments import Deployment
from norn.domain.operations import Operation
from norn.domain.store import Fenced
from norn.errors import NornError, RolloutFailed
from norn.operations import rollouts
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.restore import RestoreSteps
from norn.operations.rollback import RollbackSteps, timeout_of
from norn.operations.services import Services
from norn.operations.versions import image_of

log = structlog.get_logger(__name__)

_BRING_BACK_S = 300.0
_HISTORY = 50


def rollback_with_data_procedure(services: Services) -> Procedure:
    steps = WithDataSteps(services)
    code, data = steps.code, steps.data
    return Procedure(
        (
            Step("prepare", code.prepare, begins=code.begin),
            Step("restore", data.restore, undo=data.discard),
            Step("compare", steps.compare),
            Step("stop", steps.stop, undo=steps.bring_back),
            Step("swap", steps.swap, undo=steps.swap_back),
            Step("switch", steps.switch, undo=code.put_back),
            Step("start", steps.start, undo=steps.stop_again),
            Step("bake", code.bake),
        ),
        ends=rollouts.end_deployment,
        whole=True,  # the code of one version must not meet the data of the other
    )


class WithDataSteps:
    """Those of a restore and of a rollback, and between them the app is stopped."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.data = RestoreSteps(services)
        self.code = RollbackSteps(services, also=self._stays)

    async def _stays(self, run: Run, transaction: Fenced) -> None:
        """Code and data stay as they are from now on: they can be taken back."""
        await self.data.note(run, transaction)
        if run.state.get("partial"):
            await transaction.make_live()

    async def compare(self, run: Run) -> None:
        """Say what would be lost, and how long the app would be down, and wait for a yes."""
        await self.data.compare(run, run.operation.params["downtimeS"])

    async def stop(self, run: Run) -> None:
        """End what runs: two versions must not write to what only one of them knows."""
        await self.data.have(run)
        await self._services.runtime.halt(run.app, run.turn, run.output.write)

    async def bring_back(self, run: Run) -> None:
        """What was live runs again."""
        if run.state.get("partial"):
            return
        try:
            timeout_s = timeout_of(await self.code.own(run))
            await self._services.runtime.bring_back(run.app, run.turn, timeout_s, run.output.write)
        except RolloutFailed as failed:
            run.output.line(f"[it runs again, but is not healthy: {failed.message}]")

    async def swap(self, run: Run) -> None:
        await self.data.put_in_place(run)
        await run.checkpoint()

    async def swap_back(self, run: Run) -> None:
        if not run.state.get("partial"):
            await self.data.swap_back(run)

    async def switch(self, run: Run) -> None:
        """Change the image, and nothing else, while nothing runs."""
        await self.code.switch(run)
        if not run.state["ensured"]:
            own = await self.code.own(run)
            await rollouts.see_through(run, self._services, image_of(own), timeout_of(own))

    async def start(self, run: Run) -> None:
        """As much as ran before; from the moment it is healthy, the whole stays."""
        own: Deployment = await self.code.own(run)
        run.state.pop("partial", None)  # of an attempt that was interrupted
        try:
            await self._services.runtime.bring_back(run.app, run.turn, timeout_of(own), run.output.write)
        except RolloutFailed as failed:
            await self.code.partly(run, failed)
            raise
        await run.output.flush()  # whoever waits for the commitment that follows has seen it
        await self.code.rollout(run)
        self.data.tell(run)
        await self.data.let_go(run)

    async def stop_again(self, run: Run) -> None:
        """It did not become healthy: nothing of it may run when the databases are swapped back."""
        if not run.state.get("partial"):
            await self.stop(run)


async def bring_back_forgotten(services: Services) -> None:
    """Run again what an operation has halted that is over by now: its undo could not reach the runtime, say.

    Where that undo has left code and data that may not belong together, it stays halted: somebody has to look.
    """
    await asyncio.gather(*(_bring_back(services, app) for app in await services.runtime.halted()))


async def _bring_back(services: Services, app: str) -> None:
    if await services.store.active_operations(app) or not await _ours(services, app):
        return
    if (operation := await _last_to_change_it(services, app)) is not None and _apart(operation):
        log.warning("stays_halted", app=app, operation=operation.id)
        return
    log.warning("halted_without_operation", app=app)
    try:
        await services.runtime.bring_back(app, None, _BRING_BACK_S, lambda _text: None)
    except NornError as error:
        log.warning("not_brought_back", app=app, error=error.message)


async def _ours(services: Services, app: str) -> bool:
    """Whether it was this installation that brought what is live: another one may be at work in the same namespace."""
    live = await services.runtime.live(app)
    noted = live.deployment_id if live is not None else None
    return noted is not None and await services.store.deployment(noted) is not None


async def _last_to_change_it(services: Services, app: str) -> Operation | None:
    """The last rollback with data, where nothing has rolled out since."""
    for deployment in await services.store.deployments(app=app, limit=_HISTORY):
        operation = await services.store.operation(deployment.id)
        if operation is not None and operation.params.get("withData"):
            return operation
        if deployment.rolled_out_at is not None:
            return None
    return None


def _apart(operation: Operation) -> bool:
    """Whether its undo has left the code of one version with the data of the other."""
    steps = {undo.get("step") for undo in (operation.error or {}).get("undoErrors", ())}
    return not steps.isdisjoint(("start", "switch", "swap"))
