"""Restart: all processes of an app anew, the same image under the same template."""

from __future__ import annotations

from norn.domain.audit import Asked
from norn.domain.operations import Operation, OperationKind
from norn.errors import NotPossible
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.rollouts import refuse_halted
from norn.operations.services import Caller, Services, once_operation, take_alone
from norn.operations.versions import live_version

_TIMEOUT_S = 300.0


async def request_restart(services: Services, app_name: str, caller: Caller) -> Operation:
    """Accept a restart. Raises UnknownApp, NotPossible (nothing is live), Busy."""

    async def take() -> str:
        app = await services.source.app(app_name)
        if await services.runtime.live(app.name) is None:
            raise NotPossible(f"Nothing of {app.name} is live.", hint=f"Deploy it first: `norn deploy {app.name}`.")
        await services.runtime.refuse_paused(app.name)
        await refuse_halted(services, app.name)
        return await take_alone(services, app.name, OperationKind.RESTART, caller, "")

    return await once_operation(services, caller, Asked.request(OperationKind.RESTART, app_name), take)


def restart_procedure(services: Services) -> Procedure:
    async def restart(run: Run) -> None:
        if "workload" not in run.state:
            await run.checkpoint(workload=dict(await services.runtime.workload(run.app)))
        await services.runtime.restart(run.app, run.turn)
        async with run.transaction() as transaction:
            await transaction.mark(accepted=True)

    async def rollout(run: Run) -> None:
        await services.runtime.watch(run.app, run.id, run.turn, _TIMEOUT_S, run.output.write)
        live = await live_version(services, run.app)
        run.output.line(f"{live.image_tag if live else 'nothing'} runs anew")

    async def put_back(run: Run) -> None:
        await services.runtime.put_back(run.app, run.turn, run.state.get("workload"), run.output.write)

    return Procedure((Step("restart", restart, undo=put_back), Step("rollout", rollout)))
