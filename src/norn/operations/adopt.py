"""Adopt: take over a Kubernetes Deployment that somebody else has made; its live image begins the history."""

from __future__ import annotations

from norn.domain.audit import Asked
from norn.domain.deployments import Deployment, Status
from norn.domain.operations import OperationKind, Refuse, admit
from norn.domain.store import NOW, Accepting, Fenced
from norn.errors import NotPossible
from norn.operations import rollouts
from norn.operations.bake import bake
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.services import Caller, Services, accepting, busy, new_id, once


async def request_adopt(services: Services, app_name: str, container: str | None, caller: Caller) -> Deployment:
    """Accept an adoption; nothing that runs is changed by it. Raises UnknownApp, NotPossible, Busy."""

    async def take() -> str:
        app = await services.source.app(app_name)
        if not await services.runtime.foreign(app.name):
            live = await services.runtime.live(app.name)
            raise NotPossible(
                f"{app.name} is Norn's already." if live else f"There is nothing of {app.name} to be adopted.",
                hint=f"`norn status {app.name}`" if live else f"`norn deploy {app.name}` makes it.",
            )
        operation_id = new_id()
        async with accepting(services, app.name, caller, operation_id) as transaction:
            admission = admit(OperationKind.ADOPT, await transaction.active())
            if isinstance(admission, Refuse):
                raise busy(admission)
            await add_adoption(services, transaction, app.name, operation_id, caller, container, bake=True)
        return operation_id

    asked = Asked.request(OperationKind.ADOPT, app_name)
    deployment = await services.store.deployment(await once(services, caller, asked, take))
    assert deployment is not None
    return deployment


async def add_adoption(
    services: Services,
    transaction: Accepting,
    app: str,
    operation_id: str,
    caller: Caller,
    container: str | None = None,
    *,
    bake: bool,
) -> None:
    """Queue the adoption of what runs now; whatever of the app is queued after it waits for it."""
    live = await services.runtime.live(app)
    params = {"container": container, "bake": bake}
    await transaction.add_operation(operation_id, OperationKind.ADOPT, params, caller.name, "")
    await transaction.add_deployment(
        operation_id,
        kind="adopt",
        status=Status.QUEUED.value,
        image_tag=live.image_tag if live else app,
        commit_sha="",
        commit_subject="as it was found",
        requested_by=caller.name,
    )


def adopt_procedure(services: Services) -> Procedure:
    async def begin(transaction: Fenced) -> None:
        await transaction.update_deployment(status=Status.DEPLOYING.value, started_at=NOW)

    async def adopt(run: Run) -> None:
        """Write Norn's notes on the object, and what runs into the history."""
        image = await services.runtime.adopt(run.app, run.turn, run.operation.params["container"])
        async with run.transaction() as transaction:
            await transaction.update_deployment(image_tag=image.tag, digest=image.digest)
            await rollouts.rolled_out(run, services, transaction)
            await transaction.mark(accepted=True, committed=True)
        run.output.line(f"{image.tag} ({image.digest}) is the first version in the history")

    async def prove(run: Run) -> None:
        """Known-good is earned: by its health through the bake time."""
        if not run.operation.params["bake"]:
            run.output.line("left out: a deploy waits")
            return
        spec = await services.source.infraspec(await services.source.app(run.app))
        await bake(run, services, spec.rollback.bake_s)
        run.state["proven"] = True

    return Procedure((Step("adopt", adopt, begins=begin), Step("bake", prove)), ends=rollouts.end_deployment)
