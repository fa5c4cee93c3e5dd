"""Roll back: change the image alone, watch, check that what runs is what was meant, record it."""

from __future__ import annotations

from norn.domain import targets
from norn.domain.deployments import Deployment, Status
from norn.domain.images import Image
from norn.domain.ports import Release
from norn.domain.store import NOW, Fenced
from norn.domain.targets import LiveVersion, NoTarget, Target
from norn.domain.verdict import verdict_of
from norn.errors import ImageMissing, RolloutFailed
from norn.operations import rollouts
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.rollback_plan import nothing_to_roll_back_to
from norn.operations.services import Services
from norn.operations.versions import find_target, live_version


def rollback_procedure(services: Services) -> Procedure:
    steps = RollbackSteps(services)
    return Procedure(
        (
            Step("prepare", steps.prepare, begins=steps.begin),
            Step("switch", steps.switch, undo=steps.put_back),
            Step("rollout", steps.rollout),
            Step("bake", steps.bake),
        ),
        ends=rollouts.end_deployment,
    )


class RollbackSteps:
    """No build, no migration: the image alone is changed."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def begin(self, transaction: Fenced) -> None:
        await transaction.update_deployment(status=Status.DEPLOYING.value, started_at=NOW)

    async def _own(self, run: Run) -> Deployment:
        own = await self._services.store.deployment(run.id)
        assert own is not None
        return own

    async def _image(self, own: Deployment) -> Image:
        image = await self._services.images.find(own.app, own.image_tag)
        if image is None or image.digest != own.digest:
            raise ImageMissing(f"The image {own.image_tag} has disappeared.", hint="Choose another with --to.")
        return image

    async def prepare(self, run: Run) -> None:
        """Look again: what the plan found may have changed while the deploy in the way was being stopped."""
        live = await live_version(self._services, run.app)
        own = await self._own(run)
        if run.operation.params["ensure"] and live is not None and live.digest != own.digest:
            choice = await find_target(self._services, run.app, live)
            if isinstance(choice, NoTarget):
                raise nothing_to_roll_back_to(run.app, choice)
            run.output.line(f"{live.image_tag} rolled out before it could be stopped")
            own = await self._retarget(run, choice, live)
        known = live.deployment if live else None
        target = await self._services.store.deployment(own.target_deployment_id or "")
        run.state.update(  # kept with the end of this step: nothing is changed before
            previous=rollouts.remembered(live),
            ensured=live is not None and live.digest == own.digest,
            goesBack=target is not None and targets.goes_back(target, live),
            replaces=known.id if known else None,
        )
        run.output.line(f"from {live.image_tag if live else 'nothing'} to {own.image_tag}")
        run.output.line(str((own.target or {}).get("why", "")))

    async def _retarget(self, run: Run, choice: Target, live: LiveVersion) -> Deployment:
        target = choice.deployment
        async with run.transaction() as transaction:
            await transaction.update_deployment(
                image_tag=target.image_tag,
                digest=target.digest,
                commit_sha=target.commit_sha,
                commit_subject=target.commit_subject,
                origin_seq=target.origin_seq,
                target_deployment_id=target.id,
                from_deployment_id=live.deployment.id if live.deployment else None,
                from_image_tag=live.image_tag,
                target=choice.to_json(),
                verdict=verdict_of(choice.findings).to_json(),
            )
        return await self._own(run)

    async def switch(self, run: Run) -> None:
        """Change the image, and nothing else."""
        if run.state["ensured"]:
            run.output.line("it is live: nothing is changed")
        else:
            await self._change(run)
        async with run.transaction() as transaction:
            await transaction.mark(accepted=True)

    async def _change(self, run: Run) -> None:
        own, previous = await self._own(run), run.state["previous"]
        image = await self._image(own)
        live = await self._services.runtime.live(run.app)
        if live is not None and live.deployment_id == run.id:
            return  # done before the server was interrupted
        template = rollouts.template_of(own.template)
        if template is not None and (previous is None or run.operation.params["template"]):
            await self._services.runtime.apply(Release(run.app, run.id, image, template))
        else:
            expected = previous["digest"] if previous else None
            await self._services.runtime.set_image(run.app, image, run.id, expected_digest=expected)
        run.output.line(f"image changed to {image.tag}")

    async def rollout(self, run: Run) -> None:
        """Watch it to the end, check what runs, record it."""
        if run.state["ensured"]:
            health = await self._services.runtime.health(run.app)
            state = f"{health.ready} of {health.wanted} healthy" if health else "nothing runs"
            run.output.line(state)
            if health is None or not health.healthy:
                raise RolloutFailed(
                    f"What was live before is live, but not healthy: {health.message if health else state}.",
                    reason="unhealthy",
                    hint=f"`norn rollback {run.app} --further` goes further back.",
                )
            async with run.transaction() as transaction:
                await transaction.update_deployment(status=Status.BAKING.value)
                await transaction.mark(committed=True)
            return
        own = await self._own(run)
        template = rollouts.template_of(own.template)
        timeout_s = template.rollout_timeout_s if template else 300.0
        await rollouts.see_through(run, self._services, await self._image(own), timeout_s)
        run.state["rolledOut"] = True
        async with run.transaction() as transaction:
            await transaction.save(run.state)
            await transaction.make_live()
            await transaction.update_deployment(status=Status.BAKING.value)
            if run.state["goesBack"] and run.state["replaces"]:
                why = f"rolled back from by {run.operation.requested_by}"
                reason = f": {run.operation.reason}" if run.operation.reason else ""
                await transaction.mark_rolled_back(run.state["replaces"], why + reason)
            else:
                await transaction.lift_quarantine(own.image_tag)
            await transaction.mark(committed=True)

    async def put_back(self, run: Run) -> None:
        if run.state["ensured"]:
            return
        await rollouts.put_back(run, self._services)

    async def bake(self, run: Run) -> None:
        """Watch its health; what fails now stays, and is said: nothing goes to and fro by itself."""
        bake_s = await self._bake_s(run)
        await rollouts.bake(run, self._services, bake_s)
        run.state["proven"] = True

    async def _bake_s(self, run: Run) -> float:
        own = await self._own(run)
        app = await self._services.source.app(run.app)
        spec = await self._services.source.infraspec(app, own.commit_sha)
        return spec.rollback.bake_s
