"""Deploy: clone, build, test, snapshot, migrate, deploy, bake, cleanup."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path

from norn.domain.audit import Asked
from norn.domain.deployments import Deployment, Status
from norn.domain.durations import format_duration
from norn.domain.images import TAG_LENGTH, Image
from norn.domain.infraspec import Infraspec, Migrations
from norn.domain.operations import Accept, OperationKind, Refuse, admit
from norn.domain.ports import AppDatabase, Release, Template
from norn.domain.snapshots import SnapshotOrder
from norn.domain.store import NOW, Fenced
from norn.domain.surroundings import AFTER, BEFORE
from norn.domain.verdict import Finding, Level, Verdict
from norn.errors import (
    BakeFailed,
    DatabaseUnavailable,
    ImageMissing,
    LeaseLost,
    MigrationFailed,
    NornError,
    NotDeployable,
    ProgramFailed,
    SnapshotFailed,
)
from norn.operations import rollouts
from norn.operations.adopt import add_adoption
from norn.operations.bake import bake, end_deploy, fail_bake, note_health_before
from norn.operations.exclusive import Exclusive
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.prune import apply_retention
from norn.operations.quarantine import refuse_quarantined
from norn.operations.services import Caller, Services, accepting, busy, new_id, once
from norn.operations.snapshot import forget_unrecorded, take_noted
from norn.operations.surroundings import foresee, note_configuration, note_surroundings, note_unfinished, what_stays
from norn.operations.versions import live_version

MIGRATION_JOB = "migrate"
MIGRATION_APPLICATION = "norn-migrate"
"""The application_name of migrations, so that what an interrupted one left behind can be found and ended."""


MIGRATION_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class DeployRequest:
    app: str
    ref: str = "HEAD"
    force: bool = False
    snapshot: bool = True
    reason: str = ""


# ---- taking the request ------------------------------------------------------------------------------------------


async def request_deploy(services: Services, request: DeployRequest, caller: Caller) -> Deployment:
    """Accept a deploy of the commit that `ref` names; it begins at once.

    Raises UnknownApp, UnknownVersion, AmbiguousVersion, InfraspecInvalid, NotDeployable, Quarantined, PortInUse, Busy.
    """
    request = replace(request, reason=services.known.of(request.app).text(request.reason))
    asked = Asked.request(OperationKind.DEPLOY, request.app, request.ref, request.reason)
    operation_id = await once(services, caller, asked, lambda: _take(services, request, caller))
    deployment = await services.store.deployment(operation_id)
    assert deployment is not None
    return deployment


async def _take(services: Services, request: DeployRequest, caller: Caller) -> str:
    app = await services.source.app(request.app)
    commit = await services.source.resolve(app, request.ref)
    spec = await services.source.infraspec(app, commit.sha)
    tag = services.images.tag(app.name, commit.sha)
    if not spec.deploy:
        raise NotDeployable(f"The infraspec of {app.name} says `deploy: false`.", hint="Set it to true and commit.")
    await refuse_quarantined(services, app.name, tag, None, force=request.force)
    await services.runtime.preflight(spec, force=request.force)
    foreign = await services.runtime.foreign(app.name)
    operation_id = new_id()
    async with accepting(services, app.name, caller, operation_id) as transaction:
        admission = admit(OperationKind.DEPLOY, await transaction.active())
        if isinstance(admission, Refuse):
            raise busy(admission)
        assert isinstance(admission, Accept)
        if foreign:  # it is queued first, and the deploy waits for it
            await add_adoption(services, transaction, app.name, new_id(), caller, bake=False)
        params = {"sha": commit.sha, "force": request.force, "snapshot": request.snapshot}
        await transaction.add_operation(operation_id, OperationKind.DEPLOY, params, caller.name, request.reason)
        await transaction.add_deployment(
            operation_id,
            kind="deploy",
            status=Status.QUEUED.value,
            image_tag=tag,
            commit_sha=commit.sha,
            commit_subject=services.known.of(app.name).text(commit.subject),
            from_deployment_id=await transaction.live_deployment_id(),
            requested_by=caller.name,
            reason=request.reason,
        )
        for operation in admission.stop:
            why = f"the deploy of {tag} takes over"
            await transaction.cancel(operation.id, caller.name, why, preempted_by=operation_id)
    return operation_id


# ---- the steps ---------------------------------------------------------------------------------------------------


def deploy_procedure(services: Services) -> Procedure:
    steps = DeploySteps(services)
    return Procedure(
        (
            Step("clone", steps.clone, undo=steps.cleanup, begins=steps.begin),
            Step("build", steps.build),  # an image that nothing runs harms nobody; retention removes it
            Step("test", steps.test, begins=rollouts.entering(Status.TESTING)),
            Step("snapshot", steps.snapshot, tidy=steps.let_go, begins=rollouts.entering(Status.SNAPSHOTTING)),
            # What a migration did cannot be undone: only its authors know it. The snapshot is the way back.
            Step("migrate", steps.migrate, tidy=steps.end_migration, begins=rollouts.entering(Status.MIGRATING)),
            Step("deploy", steps.deploy, undo=steps.put_back, begins=rollouts.entering(Status.DEPLOYING)),
            Step("bake", steps.bake),
            Step("cleanup", steps.finish),
        ),
        ends=end_deploy,
    )


class DeploySteps:
    """Each may be run again: it looks at the world first, then acts."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._exclusive = Exclusive(services)

    def _work_dir(self, run: Run) -> Path:
        return self._services.work_dir / run.id

    def _tag(self, run: Run) -> str:
        return self._services.images.tag(run.app, run.operation.params["sha"])

    async def _spec(self, run: Run) -> Infraspec:
        app = await self._services.source.app(run.app)
        return await self._services.source.infraspec(app, run.operation.params["sha"])

    async def _image(self, run: Run) -> Image:
        tag = self._tag(run)
        image = await self._services.images.find(run.app, tag)
        if image is None:
            raise ImageMissing(f"{tag} was built, and has disappeared since.", hint="Deploy again.", imageTag=tag)
        return image

    async def begin(self, transaction: Fenced) -> None:
        await transaction.update_deployment(status=Status.BUILDING.value, started_at=NOW)

    async def clone(self, run: Run) -> None:
        """Write the commit's files into the work directory."""
        sha = run.operation.params["sha"]
        if await self._services.images.find(run.app, self._tag(run)):
            run.output.line(f"{self._tag(run)} is built already")
            return
        work = self._work_dir(run)
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        await asyncio.to_thread(work.mkdir, parents=True, mode=0o755)
        app = await self._services.source.app(run.app)
        await self._services.source.export(app, sha, work / "context", run.output.write)
        run.output.line(f"{sha[:TAG_LENGTH]} is cloned")

    async def build(self, run: Run) -> None:
        """Make the image, unless there is one of this commit."""
        sha = run.operation.params["sha"]
        spec = await self._spec(run)
        image = await self._services.images.find(run.app, self._tag(run))
        made = image is None or bool(run.state.get("contextUsed"))
        if image is None:
            context = self._work_dir(run) / "context"
            if run.state.get("contextUsed") or not await asyncio.to_thread(context.exists):
                await self.clone(run)  # a build that was interrupted has been at it, or it was cloned on another server
            await run.checkpoint(contextUsed=True)
            image = await self._services.images.build(spec, sha, context, run.output.write)
        run.output.line(f"{image.tag} is {image.digest}")
        force = bool(run.operation.params["force"])
        await refuse_quarantined(self._services, run.app, image.tag, image.digest, force=force)
        async with run.transaction() as transaction:
            await transaction.update_deployment(digest=image.digest, template=Template.of(spec).to_json())
            if made:
                await transaction.image_built(image.tag, image.digest)

    async def test(self, run: Run) -> None:
        """Run the app's own tests on the image."""
        spec = await self._spec(run)
        if spec.build.test is None:
            run.output.line("no build.test in the infraspec")
            return
        scratch = self._work_dir(run) / "test"
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        await asyncio.to_thread(scratch.parent.mkdir, parents=True, exist_ok=True)
        try:
            await self._services.images.test(spec, await self._image(run), scratch, run.output.write)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _database(self, spec: Infraspec) -> AppDatabase | None:
        return await self._services.databases.ensure(spec.app, spec.postgres) if spec.postgres else None

    async def snapshot(self, run: Run) -> None:
        """Dump the database as it is before the migration: the way back of what is live."""
        spec = await self._spec(run)
        database = await self._database(spec)
        if database is None or spec.migrations is None:
            run.output.line("no migrations in the infraspec: no snapshot is needed")
        else:
            await self._make_sure_it_is_the_apps(run, spec, database)
            if run.operation.params["snapshot"]:
                await self._take_snapshot(run, database)
            else:
                run.output.line(f"left out as asked for: {run.operation.reason}")
        await note_surroundings(run, self._services, BEFORE, database)

    async def _take_snapshot(self, run: Run, database: AppDatabase) -> None:
        await self._exclusive.have(run, database)
        sha = run.operation.params["sha"][:TAG_LENGTH]
        order = SnapshotOrder(run.app, sha, run.id, f"before the migration of {sha}", await self._services.store.now())
        taken = await take_noted(run, self._services, database, order)
        async with run.transaction() as transaction:
            await transaction.add_snapshot(taken)
            await transaction.update_deployment(snapshot=taken.name)
        run.output.line(f"{taken.name}: {taken.size_bytes} bytes")

    async def _make_sure_it_is_the_apps(self, run: Run, spec: Infraspec, database: AppDatabase) -> None:
        """The database that Norn dumps is the one that the app writes to. Raises SnapshotFailed."""
        url = await self._services.runtime.database_url(spec)
        theirs = await self._services.databases.identity(url) if url is not None else None
        if theirs is None:
            why = "the app's DATABASE_URL cannot be read" if url is None else "it cannot be reached the app's way"
            finding = Finding(
                "database_unverified",
                Level.CAUTION,
                f"Whether {database.name} is the database that {run.app} uses could not be found out: {why}.",
                {"database": database.name},
            )
            run.output.line(f"caution {finding.code}: {finding.message}")
            async with run.transaction() as transaction:
                await transaction.update_deployment(verdict=Verdict((finding,)).to_json())
        elif theirs != await self._services.databases.identity(database.admin_url):
            raise SnapshotFailed(
                f"{run.app} uses another database than {database.name} on the server that Norn knows: a snapshot of "
                "that would be no way back.",
                hint="Put the app's own URL into services.postgres.url, or unset its DATABASE_URL.",
            )

    async def migrate(self, run: Run) -> None:
        """Run the app's migration with the new image; the old one is still live."""
        spec = await self._spec(run)
        database = await self._database(spec)
        if database is None or spec.migrations is None:
            run.output.line("no migrations in the infraspec")
        else:
            await self._run_migration(run, spec, spec.migrations, database)
        await note_surroundings(run, self._services, AFTER, database)
        await foresee(run, self._services)

    async def _run_migration(self, run: Run, spec: Infraspec, migrations: Migrations, database: AppDatabase) -> None:
        await self._exclusive.have(run, database)
        if not await self._services.runtime.job_runs(run.app, MIGRATION_JOB, run.id):
            ended = await self._services.databases.end_sessions(database, MIGRATION_APPLICATION)
            if ended:
                run.output.line(f"ended {ended} sessions of an interrupted migration")
        lock_timeout_ms = round(migrations.lock_timeout_s * 1000)
        env = {"PGOPTIONS": f"-c lock_timeout={lock_timeout_ms}", "PGAPPNAME": _application(run)}
        try:
            release = Release(run.app, run.id, await self._image(run), Template.of(spec))
            job = self._services.runtime.run_job(
                release, run.turn, MIGRATION_JOB, migrations.command, env, run.output.write
            )
            await _given_time_to_end(run, job)
        except ProgramFailed as failed:
            hint = "What was live is still live. Look at the migration's output."
            if "lock timeout" in str(failed.facts.get("output", "")):
                waited = format_duration(migrations.lock_timeout_s)
                hint = f"It waited {waited} for a lock (migrations.lockTimeout): deploy when the database is quieter."
            raise MigrationFailed(f"The migration failed: {failed.message}", hint=hint, **failed.facts) from failed
        await self._exclusive.let_go(run)

    async def let_go(self, run: Run) -> None:
        await self._exclusive.let_go(run)
        await forget_unrecorded(run, self._services)

    async def end_migration(self, run: Run) -> None:
        """End what still runs of it, its sessions too: a statement outlives whoever sent it. What it did stays."""
        await self._services.runtime.end_job(run.app, run.turn, MIGRATION_JOB)
        spec = await self._spec(run)
        if spec.migrations is not None and (database := await self._database(spec)) is not None:
            ended = await self._services.databases.end_sessions(database, _application(run))
            if ended:
                run.output.line(f"ended {ended} sessions of the migration: what they had not committed is undone")
            await note_unfinished(run, self._services, database)
            run.state["stays"] = await what_stays(run, self._services)
            run.output.line(run.state["stays"])
        await self._exclusive.let_go(run)

    async def deploy(self, run: Run) -> None:
        """Bring the new image to life beside the old one, and switch when it is healthy."""
        spec, image = await self._spec(run), await self._image(run)
        template = Template.of(spec)
        # Now: once it has rolled out, nothing is undone, and a bake that fails or is stopped never gets to the cleanup.
        await asyncio.to_thread(shutil.rmtree, self._work_dir(run), ignore_errors=True)
        if "previous" not in run.state:  # the first note counts: later on, what is live may be our own already
            live = await live_version(self._services, run.app)
            await note_health_before(run, self._services)
            await run.checkpoint(previous=await rollouts.remembered(self._services, run.app, live))
        force = bool(run.operation.params["force"])
        await self._services.runtime.apply(Release(run.app, run.id, image, template, force=force), run.turn)
        async with run.transaction() as transaction:
            await transaction.mark(accepted=True)
        await rollouts.see_through(run, self._services, image, template.rollout_timeout_s)
        await note_configuration(run, self._services, spec)
        previous = run.state["previous"]
        async with run.transaction() as transaction:
            await rollouts.rolled_out(run, self._services, transaction)
            await transaction.mark(committed=True)
            before = previous["imageTag"] if previous else None
            await transaction.update_deployment(from_image_tag=before)
            if run.operation.params["force"]:
                await transaction.lift_quarantine(image.tag, image.digest, run.operation.requested_by)

    async def put_back(self, run: Run) -> None:
        await rollouts.undo_rollout(run, self._services)

    async def bake(self, run: Run) -> None:
        """Watch its health; where it fails, decide whether it is rolled back by itself."""
        spec = await self._spec(run)
        await rollouts.note_way_back(run, self._services)
        if (failure := run.state.get("bakeFailed")) is None:
            try:
                await bake(run, self._services, spec.rollback.bake_s)
                run.state["proven"] = True
                return
            except BakeFailed as failed:
                failure = failed.message
                await run.checkpoint(bakeFailed=failure)
        run.output.line(failure)
        raise await fail_bake(run, self._services, failure, enabled=spec.rollback.auto)

    async def finish(self, run: Run) -> None:
        """Tidy up, and let go of what retention does not keep any more; that it cannot is no failure of the deploy."""
        await self.cleanup(run)
        try:
            await apply_retention(run, self._services)
        except (LeaseLost, DatabaseUnavailable):
            raise
        except NornError as error:
            run.output.line(f"[retention could not be applied: {error.message}]")

    async def cleanup(self, run: Run) -> None:
        """Remove the work directory; nothing else is left of a build."""
        await asyncio.to_thread(shutil.rmtree, self._work_dir(run), ignore_errors=True)
        run.output.line("work directory removed")


def _application(run: Run) -> str:
    """What the sessions of an operation's migration call themselves: another app on the database may migrate, too."""
    return f"{MIGRATION_APPLICATION} {run.id}"


async def _given_time_to_end(run: Run, job: Coroutine[None, None, None]) -> None:
    """A migration that is cancelled has a moment to come to its end: half of one is worse than either.

    A server that merely stops does not wait.
    """
    task = asyncio.ensure_future(job)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if run.cancelled and not task.done():
            run.output.line(f"to be stopped: the migration has {format_duration(MIGRATION_GRACE_S)} to end by itself")
            await asyncio.wait({task}, timeout=MIGRATION_GRACE_S)
        raise
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
