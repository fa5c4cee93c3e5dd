"""Roll back: change the image alone, watch, check that what runs is what was meant, record it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from norn.domain.automatic import is_automatic
from norn.domain.deployments import Deployment, Status
from norn.domain.images import Image
from norn.domain.ports import Release, Switch
from norn.domain.store import NOW, Fenced
from norn.domain.targets import LiveVersion, NoTarget, Question, Target
from norn.domain.verdict import Finding, Level, verdict_of
from norn.errors import Cancelled, RolloutFailed
from norn.operations import rollouts
from norn.operations.bake import bake
from norn.operations.health import health_of
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.readiness import findings_of
from norn.operations.rollback_order import prepared, prepared_text
from norn.operations.rollback_plan import nothing_to_roll_back_to
from norn.operations.rollback_request import refused
from norn.operations.services import Services
from norn.operations.versions import find_target, image_of, live_version

_OF_THE_TARGET = ("target_unproven", "target_short_lived", "image_unverified")
"""What the choice of the target said; it does not change with the database."""

Also = Callable[[Run, Fenced], Awaitable[None]]


async def _nothing_more(_run: Run, _transaction: Fenced) -> None:
    pass


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

    def __init__(self, services: Services, also: Also = _nothing_more) -> None:
        """`also` writes what else becomes true, in the same transaction, once some of the target runs for good."""
        self._services = services
        self._also = also

    async def begin(self, transaction: Fenced) -> None:
        await transaction.update_deployment(status=Status.DEPLOYING.value, started_at=NOW)

    async def own(self, run: Run) -> Deployment:
        """The deployment that this rollback is."""
        own = await self._services.store.deployment(run.id)
        assert own is not None
        return own

    async def prepare(self, run: Run) -> None:
        """Look again: what the plan found may have changed while the deploy in the way was being stopped."""
        if run.operation.params.get("direct"):
            await self._prepare_direct(run)
            return
        live = await live_version(self._services, run.app)
        own = await self.own(run)
        params = run.operation.params
        retargets = params["ensure"] and not params["explicit"] and not params.get("withData")
        if retargets and live is not None and live.digest != own.digest:
            choice = await find_target(self._services, run.app, live)
            if isinstance(choice, NoTarget):
                raise nothing_to_roll_back_to(run.app, choice)
            run.output.line(f"{live.image_tag} rolled out before it could be stopped")
            own = await self._retarget(run, choice, live)
        known = live.deployment if live is not None else None
        if is_automatic(run.operation.params) and (known is None or known.id != own.from_deployment_id):
            raise Cancelled(f"{live.image_tag if live else 'nothing'} is live by now: nobody asked to leave that.")
        if known is not None and known.id != own.from_deployment_id:  # an undo goes to where this really came from
            async with run.transaction() as transaction:
                await transaction.update_deployment(from_deployment_id=known.id, from_image_tag=known.image_tag)
        target = await self._services.store.deployment(own.target_deployment_id or "")
        assert target is not None
        if run.operation.params.get("stops") and not run.operation.params.get("withData"):
            await self._judge_again(run, target, live)
        previous = await rollouts.remembered(self._services, run.app, live)
        run.state.update(prepared(target, own.template, live, previous))  # kept with the end of this step
        run.output.write(prepared_text(target, live, str((own.target or {}).get("why", ""))))

    async def _judge_again(self, run: Run, target: Deployment, live: LiveVersion | None) -> None:
        """What was stopped for it may have got as far as the database: by the catalog as it is now, is it enough?"""
        question = Question(run.app, target, live, template=bool(run.operation.params["template"]))
        found, doubts = await asyncio.gather(
            findings_of(self._services, question), self._services.runtime.findings(run.app)
        )
        before = (await self.own(run)).verdict or {}
        kept = [Finding(one["code"], Level(one["level"]), one["message"], _facts(one))
                for one in before.get("findings", ()) if one["code"] in _OF_THE_TARGET]  # fmt: skip
        verdict = verdict_of((*kept, *doubts, *found))
        for finding in verdict.findings:
            if finding.level is not Level.SAFE:
                run.output.line(f"{finding.level.value} {finding.code}: {finding.message}")
        ensured = run.operation.params["ensure"]  # nothing is changed, and nothing is made worse
        if verdict.level is Level.UNSAFE and not ensured and not run.operation.params.get("force"):
            raise refused(target, verdict)
        async with run.transaction() as transaction:
            await transaction.update_deployment(verdict=verdict.to_json())

    async def _prepare_direct(self, run: Run) -> None:
        """It was made without a server: nothing is left to be changed, all the rest is to be done."""
        own = await self.own(run)
        replaced = await self._services.store.deployment(own.from_deployment_id or "")
        target = await self._services.store.deployment(own.target_deployment_id or "")
        older = replaced is not None and target is not None and target.origin_seq < replaced.origin_seq
        run.state.update(
            previous=None, ensured=False, goesBack=older, replaces=replaced.id if replaced is not None else None
        )
        run.output.line(f"made by {own.requested_by} without a server, from {own.from_image_tag} to {own.image_tag}")

    async def _retarget(self, run: Run, choice: Target, live: LiveVersion) -> Deployment:
        target = choice.deployment
        question = Question(run.app, target, live, template=bool(run.operation.params["template"]))
        verdict = verdict_of((*choice.findings, *await findings_of(self._services, question)))
        if verdict.level is Level.UNSAFE and not run.operation.params.get("force"):
            raise refused(target, verdict)
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
                verdict=verdict.to_json(),
            )
        return await self.own(run)

    async def switch(self, run: Run) -> None:
        """Change the image, and nothing else."""
        if run.state["ensured"]:
            run.output.line("it is live: nothing is changed")
        elif run.operation.params.get("direct"):
            run.output.line("the image is changed already")
        else:
            await self._change(run)
        async with run.transaction() as transaction:
            await transaction.mark(accepted=True)

    async def _change(self, run: Run) -> None:
        change, previous = run.state["change"], run.state["previous"]
        image = Image(change["imageTag"], change["digest"], change["commitSha"])
        workload = change["workload"]
        template = rollouts.template_of(change["template"])
        digest, tag = (previous["digest"], previous["imageTag"]) if previous else (None, "")
        resume = bool(run.operation.params.get("resume"))
        if (template is not None or workload) and (previous is None or run.operation.params["template"]):
            release = Release(
                run.app,
                run.id,
                image,
                template or rollouts.NO_TEMPLATE,
                workload,
                resume=resume,
                expected_digest=digest,
                expected_tag=tag,
            )
            await self._services.runtime.apply(release, run.turn)
        else:
            switch = Switch(run.app, run.id, image, workload, digest, tag, resume)
            await self._services.runtime.set_image(switch, run.turn)
        run.output.line(f"image changed to {image.tag}")

    async def rollout(self, run: Run) -> None:
        """Watch it to the end, check what runs, record it."""
        if run.state["ensured"]:
            health = await health_of(self._services, run.app)
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
                await self._also(run, transaction)
                await transaction.mark(committed=True)
            return
        own = await self.own(run)
        try:
            await rollouts.see_through(run, self._services, image_of(own), timeout_of(own))
        except RolloutFailed as failed:
            await self.partly(run, failed)
            raise
        async with run.transaction() as transaction:
            await rollouts.rolled_out(run, self._services, transaction)
            if run.state["goesBack"] and run.state["replaces"]:
                why = f"rolled back from by {run.operation.requested_by}"
                reason = f": {run.operation.reason}" if run.operation.reason else ""
                await transaction.mark_rolled_back(run.state["replaces"], why + reason)
            else:
                await transaction.lift_quarantine(own.image_tag, own.digest, run.operation.requested_by)
            await self._also(run, transaction)
            await transaction.mark(committed=True)

    async def partly(self, run: Run, failed: RolloutFailed) -> None:
        """Where some of the target answers requests, it stays. Raises RolloutFailed, reason `partial`."""
        if failed.facts.get("reason") in ("superseded", "deleted"):
            return
        available = await self._services.runtime.available(run.app, run.id)
        if not available:
            return
        run.state["partial"] = True
        async with run.transaction() as transaction:
            await transaction.save(run.state)
            await self._also(run, transaction)
        raise RolloutFailed(
            f"{failed.message} {available} replicas of it are available, so it stays.",
            hint=f"`norn status {run.app}`; {failed.hint}",
            **failed.facts | {"reason": "partial", "cause": failed.facts.get("reason")},
        ) from failed

    async def put_back(self, run: Run) -> None:
        if run.state["ensured"]:
            return
        if run.state.get("partial"):
            run.output.line("some of it is available: it stays as it is")
            return
        await rollouts.undo_rollout(run, self._services, template=bool(run.operation.params["template"]))

    async def bake(self, run: Run) -> None:
        """Watch its health; what fails now stays, and is said: nothing goes to and fro by itself."""
        await rollouts.note_way_back(run, self._services)
        bake_s = await self._bake_s(run)
        await bake(run, self._services, bake_s)
        run.state["proven"] = True

    async def _bake_s(self, run: Run) -> float:
        own = await self.own(run)
        app = await self._services.source.app(run.app)
        spec = await self._services.source.infraspec(app, own.commit_sha or None)
        return spec.rollback.bake_s


def _facts(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in finding.items() if name not in ("code", "level", "message")}


def timeout_of(own: Deployment) -> float:
    """How long the rollout of a deployment may take, in seconds."""
    template = rollouts.template_of(own.template)
    return template.rollout_timeout_s if template else 300.0
