"""What a deploy, a rollback and a restart have in common: bring an image to life, watch it, put back what was live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from norn.domain.deployments import Status
from norn.domain.images import Image
from norn.domain.operations import OperationStatus
from norn.domain.ports import Release, Switch, Template
from norn.domain.store import NOW, Fenced
from norn.domain.targets import LiveVersion, Target
from norn.errors import DatabaseUnavailable, LeaseLost, NornError, NotPossible, RolloutFailed
from norn.operations.procedures import Outcome, Run
from norn.operations.services import Services
from norn.operations.versions import find_target, image_of, live_version

NO_TEMPLATE = Template("worker", 1, None, None, {}, (), 300.0)
"""Of a version that Norn has not deployed: how it is run stands in its workload."""


def template_of(deployment_template: Mapping[str, Any] | None) -> Template | None:
    return Template.from_json(deployment_template) if deployment_template is not None else None


async def remembered(services: Services, app: str, live: LiveVersion | None) -> dict[str, Any] | None:
    """What a run has to know of the version that was live before it, to put it back, after a crash, too."""
    if live is None:
        return None
    known = live.deployment
    return {
        "deploymentId": known.id if known else None,
        "imageTag": live.image_tag,
        "digest": live.digest,
        "commitSha": known.commit_sha if known else "",
        "template": dict(known.template) if known and known.template else None,
        "workload": dict(await services.runtime.workload(app)),
    }


async def see_through(run: Run, services: Services, image: Image, timeout_s: float) -> None:
    """Watch the accepted change to its end, then make sure that what runs is what was meant."""
    await services.runtime.watch(run.app, run.id, run.turn, timeout_s, run.output.write)
    if not run.operation.params.get("withData") and run.app in await services.runtime.halted():
        # Halted by an operation that is over: what has just become live is what is to run.
        await services.runtime.bring_back(run.app, run.turn, timeout_s, run.output.write)
    live = await services.runtime.live(run.app)
    if live is None or live.digest != image.digest:
        raise RolloutFailed(
            f"{image.tag} ({image.digest}) was to run, but {live.image_tag if live else 'nothing'} does.",
            reason="not_what_was_meant",
            hint="Something else changes this app, too: look for another deploy tool.",
        )
    run.output.line(f"{image.tag} is live")
    await run.output.flush()  # whoever waits for the commitment that follows has seen it all


async def refuse_halted(services: Services, app: str) -> None:
    """Raises NotPossible where nothing runs, and is not to: that would be taken for success."""
    if app in await services.runtime.halted():
        raise NotPossible(
            f"{app} is stopped: a rollback of its code and data has not come to its end.",
            hint=f"`norn history {app}` shows it; a deploy, or a rollback to another version, starts it with that.",
        )


async def put_back(run: Run, services: Services, *, template: bool = True) -> None:
    """Make sure that what was live before this operation is live again, under the template that it had.

    Without `template` the image alone is put back, as the image alone was changed.
    """
    previous = run.state.get("previous")
    live = await services.runtime.live(run.app)
    if live is None or live.deployment_id != run.id or previous is None:
        workload = previous.get("workload") if previous and template else None
        await services.runtime.put_back(run.app, run.turn, workload, run.output.write)
        if live is not None and live.deployment_id == run.id:  # there is nothing to go back to: the history says so
            async with run.transaction() as transaction:
                await rolled_out(run, services, transaction)
        run.output.line(f"{live.image_tag} was live and stays live" if live else "nothing was live, nothing is")
        return
    image = Image(previous["imageTag"], previous["digest"], previous["commitSha"])
    before_template = template_of(previous["template"])
    before, workload = previous["deploymentId"] or run.id, previous.get("workload")
    if before_template is None:
        switch = Switch(run.app, before, image, workload, live.digest, live.image_tag)
        await services.runtime.set_image(switch, run.turn)
        timeout_s = 300.0
    else:
        await services.runtime.apply(Release(run.app, before, image, before_template, workload), run.turn)
        timeout_s = before_template.rollout_timeout_s
    await services.runtime.watch(run.app, before, run.turn, timeout_s, run.output.write)
    run.output.line(f"{image.tag} is live again")


async def undo_rollout(run: Run, services: Services, *, template: bool = True) -> None:
    """`put_back` for what was never written down as live, though it may have been about to be as it was stopped."""
    run.state.pop("rolledOut", None)
    await put_back(run, services, template=template)


async def rolled_out(run: Run, services: Services, transaction: Fenced) -> None:
    """The operation's own deployment is live from now on; what its runtime has to remember of it is kept."""
    run.state["rolledOut"] = True
    workload = dict(await services.runtime.workload(run.app)) or None
    await transaction.save(run.state)
    await transaction.make_live()
    await transaction.update_deployment(status=Status.BAKING.value, workload=workload)


async def note_way_back(run: Run, services: Services) -> None:
    """Leave a note in the runtime of where a rollback would go to, for the day on which Norn itself is down."""
    try:
        runs = await services.runtime.live(run.app)
        choice = await find_target(services, run.app, await live_version(services, run.app))
        way_back = None
        if isinstance(choice, Target):
            found = choice.deployment
            template = template_of(found.template) or NO_TEMPLATE
            way_back = Release(run.app, found.id, image_of(found), template, found.workload)
        live = runs.deployment_id if runs is not None else None
        await services.runtime.note_way_back(run.app, run.turn, live, way_back)
    except (LeaseLost, DatabaseUnavailable):
        raise
    except NornError as error:
        run.output.line(f"[the way back could not be noted in the cluster: {error.message}]")


async def end_deployment(run: Run, transaction: Fenced, outcome: Outcome) -> None:
    """What the deployment is called in the end; one that rolled out stays so when only its bake was ended."""
    rolled_out = bool(run.state.get("rolledOut"))
    match outcome.status:
        case OperationStatus.SUCCEEDED:
            status = Status.DEPLOYED
        case OperationStatus.CANCELLED:
            status = Status.DEPLOYED if rolled_out else Status.CANCELLED
        case _:
            status = Status.FAILED
    proven = {"proven_at": NOW} if status is Status.DEPLOYED and run.state.get("proven") else {}
    await transaction.update_deployment(status=status.value, finished_at=NOW, error=outcome.error, **proven)


def entering(status: Status) -> Any:
    """A step's `begins`: the deployment is called so from now on."""

    async def begins(transaction: Fenced) -> None:
        await transaction.update_deployment(status=status.value)

    return begins
