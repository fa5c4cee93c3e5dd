"""The local runtime: apps as processes of this machine, behind a proxy that switches without losing a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from norn.adapters import accounts, programs
from norn.adapters.local.app import DRAIN_S, Environment, LocalApp, Machine
from norn.adapters.local.images import LocalImages
from norn.adapters.local.instances import Tuning
from norn.adapters.local.logs import follow_logs
from norn.adapters.local.readiness import ask_replica
from norn.adapters.local.state import Active, Desired, is_app_name
from norn.domain.configuration import Shape, Texts
from norn.domain.images import Image
from norn.domain.infraspec import Infraspec
from norn.domain.ports import Direct, Health, Live, Output, Release, Switch, Template, Turn, Workload
from norn.domain.verdict import Finding
from norn.errors import ImageMissing, NornError, NotPossible, RolloutFailed, Stale
from norn.threads import to_its_end

log = structlog.get_logger(__name__)


class LocalRuntime:
    """The protocol `Runtime`, and `reconcile_all`, `stop`, `stop_all` for the server.

    `environment` is asked whenever a process is started. Of a turn only the operation counts: a home has one server at
    a time (its lock says so), and no other one works on what runs there.
    """

    name = "local"

    def __init__(
        self,
        *,
        home: Path,
        apps_address: str,
        images: LocalImages,
        environment: Environment,
        tuning: Tuning = Tuning(),
        drain_s: float = DRAIN_S,
    ) -> None:
        self._machine = Machine(home, apps_address, images, environment, tuning, drain_s, asyncio.Lock())
        self._apps: dict[str, LocalApp] = {}

    def _app(self, name: str) -> LocalApp:
        if name not in self._apps:
            self._apps[name] = LocalApp(self._machine, name)
        return self._apps[name]

    # ---- looking ---------------------------------------------------------------------------------------------

    async def live(self, app: str) -> Live | None:
        """What requests are answered by now; None where nothing was ever rolled out."""
        active = self._app(app).files.active()
        if active is None:
            return None
        return Live(active.image.tag, active.image.digest, active.deployment_id, active.since)

    async def health(self, app: str) -> Health | None:
        """Asks each replica now, with a limit of 2 s; None where nothing was ever rolled out."""
        found = self._app(app)
        active = found.files.active()
        if active is None:
            return None
        answers = await asyncio.gather(*(self._health_of(found, item.instance, active) for item in active.upstreams))
        reasons = [f"{item.instance}: {why}" for item, (why, *_) in zip(active.upstreams, answers, strict=True) if why]
        times = [took_ms for _, _, took_ms in answers if took_ms is not None]
        return Health(
            wanted=active.template.replicas,
            ready=len(answers) - len(reasons),
            restarts=sum(restarts for _, restarts, _ in answers),
            message=reasons[0] if reasons else "",
            response_ms=max(times, default=None),
        )

    @staticmethod
    async def _health_of(app: LocalApp, name: str, active: Active) -> tuple[str, int, float | None]:
        """Why it is not well, how often it was restarted, and the milliseconds that it took to answer."""
        instance = app.instance(name)
        status = instance.status()
        if status is None:
            return "it does not run", 0, None
        if status.state != "running":
            return f"it ended ({status.last_exit}) and is started again", status.restarts, None
        began = time.perf_counter()
        answer = await ask_replica(instance, active.template)
        took_ms = (time.perf_counter() - began) * 1000
        return answer or "", status.restarts, took_ms if answer is not None else None

    async def findings(self, app: str) -> Sequence[Finding]:
        """Nothing: nobody else changes what runs here."""
        return ()

    async def configuration(self, app: str) -> Texts:
        """The variables of its template, and those that come with it."""
        active = self._app(app).files.active()
        if active is None:
            return {}
        environment = await self._machine.environment(app, active.template)
        secret = set(active.template.secrets)
        return {f"{'secret' if name in secret else 'env'} {name}": value for name, value in environment.items()}

    def shape(self, workload: Workload, template: Template | None) -> Shape:
        """Only what is asked of it: which port it gets is told to each process."""
        if template is None:
            return {}
        return {"role": template.role} | ({"healthcheck": template.healthcheck} if template.healthcheck else {})

    async def refuse_paused(self, app: str) -> None:
        """Rollouts of this runtime cannot be paused."""

    async def foreign(self, app: str) -> bool:
        """Never: what others run on this machine is no app."""
        return False

    async def adopt(self, app: str, turn: Turn, container: str | None) -> Image:
        """Raises NotPossible: there is nothing to be adopted on this runtime."""
        raise NotPossible(
            "Adopting is for Kubernetes Deployments that somebody else has made.",
            hint=f"This server runs apps as local processes: `norn deploy {app}`.",
        )

    async def workload(self, app: str) -> Workload:
        """Empty: image and template say it all."""
        return {}

    async def note_way_back(self, app: str, turn: Turn, live: str | None, way_back: Release | None) -> None:
        """Nothing: without its server nobody could do anything with it."""

    async def direct(self, app: str) -> Direct | None:
        """None: without its server nothing can be changed here."""
        return None

    async def forget_direct(self, app: str, operation_id: str) -> None:
        """There is none."""

    async def preflight(self, spec: Infraspec, *, force: bool) -> None:
        """Whether the app's port could be had. Raises PortInUse, RolloutFailed."""
        if spec.role == "webserver" and spec.port is not None:
            await asyncio.to_thread(self._app(spec.app).front.check_port, spec.port)

    # ---- changing what runs ----------------------------------------------------------------------------------

    async def apply(self, release: Release, turn: Turn) -> None:
        """A deploy: durable on return; `watch` brings it about. Raises Stale, ImageMissing."""
        found = self._app(release.app)
        if not _accepted(found, release):
            _refuse_unseen(found, release)
        await self._accept(found, _Change(release.deployment_id, release))

    async def set_image(self, switch: Switch, turn: Turn) -> None:
        """A rollback: the template stays as it is live. Raises Stale, ImageMissing, RolloutFailed."""
        app, image, deployment_id = switch.app, switch.image, switch.deployment_id
        found = self._app(app)
        if _accepted(found, switch):
            return  # before the server was interrupted
        _refuse_unseen(found, switch)
        if (active := found.files.active()) is None:
            raise _nothing_live(app)
        await self._accept(found, _Change(deployment_id, Release(app, deployment_id, image, active.template)))

    async def restart(self, app: str, turn: Turn) -> None:
        """All processes anew, the same image and template. Raises RolloutFailed where nothing is live."""
        found = self._app(app)
        active = found.files.active()
        if active is None:
            raise _nothing_live(app)
        release = Release(app, active.deployment_id, active.image, active.template)
        await self._accept(found, _Change(turn.operation_id, release))

    async def halt(self, app: str, turn: Turn, output: Output) -> None:
        """End all processes; the port answers 503 until `bring_back`."""
        found = self._app(app)
        async with found.lock:
            await asyncio.to_thread(found.prepare)
            await asyncio.to_thread(found.files.halt)
            await found.settle(found.files.active(), output)

    async def bring_back(self, app: str, turn: Turn | None, timeout_s: float, output: Output) -> None:
        """What is live, as many processes as its template says. Raises RolloutFailed."""
        found = self._app(app)
        async with found.lock:
            await found.start(timeout_s, output)

    async def halted(self) -> Sequence[str]:
        """Those whose processes are to stay ended."""
        return [app for app in await asyncio.to_thread(self._known) if self._app(app).files.halted]

    async def _accept(self, app: LocalApp, change: _Change) -> None:
        release = change.release
        async with app.lock:
            image = await self._machine.images.find(app.name, release.image.tag)
            if image is None or image.digest != release.image.digest:
                raise ImageMissing(
                    f"The image {release.image.tag} ({release.image.digest}) does not exist.",
                    hint="Deploy its commit again.",
                    imageTag=release.image.tag,
                )
            await asyncio.to_thread(app.prepare)
            wanted = Desired(
                app.files.next_generation(), change.id, release.deployment_id, release.image, release.template
            )
            active = app.files.active()
            latest = app.files.pending() or (active.as_desired() if active else None)
            if latest is None or not wanted.same(latest):
                await to_its_end(app.files.write_desired, wanted)

    async def watch(self, app: str, deployment_id: str, turn: Turn | None, timeout_s: float, output: Output) -> None:
        """Bring the accepted change to its end: new processes up and well, the proxy switched, the old ones gone.

        May be called again after a crash at any moment. Raises RolloutFailed, PortInUse, ImageMissing; what was live
        is live then.
        """
        found = self._app(app)
        async with found.lock:
            active, pending = found.files.active(), found.files.pending()
            if pending is not None and pending.change_id == deployment_id:
                active = await found.roll_out(pending, timeout_s, output)
            elif active is None or active.change_id != deployment_id:
                raise RolloutFailed(
                    f"Another change of {app} was accepted since.",
                    reason="superseded",
                    hint=f"`norn status {app}` shows what is live.",
                )
            await found.settle(active, output)

    async def available(self, app: str, deployment_id: str) -> int:
        """None, ever: the proxy switches to all of a version or to nothing of it."""
        return 0

    async def put_back(self, app: str, turn: Turn, previous: Workload | None, output: Output) -> None:
        """What is live stays live, alone: a change that is not live yet is forgotten, its processes are stopped."""
        found = self._app(app)
        async with found.lock:
            active = found.files.active()
            await asyncio.to_thread(found.files.write_desired, active.as_desired() if active else None)
            await found.settle(active, output)

    # ---- using an image --------------------------------------------------------------------------------------

    async def job_runs(self, app: str, name: str, operation_id: str) -> bool:
        """Never: a job ends with the server that began it."""
        return False

    async def run_job(
        self, release: Release, turn: Turn, name: str, command: Sequence[str], env: Mapping[str, str], output: Output
    ) -> None:
        """Run a command in an image to its end, with the environment that the image's own infraspec gives the app.

        Ends with the caller: cancelled, or its server killed, nothing of it is left. Raises ProgramFailed,
        ProgramMissing, ImageMissing.
        """
        app, image = release.app, release.image
        found = self._app(app)
        await asyncio.to_thread(found.prepare)
        template = self._machine.images.template(app, image.tag)
        cwd = self._machine.images.directory(app, image.tag)
        whole = await found.environment(template) | dict(env)
        output(f"{name}: running in {image.tag}\n")
        await programs.run(command, env=whole, cwd=cwd, account=accounts.for_apps(), output=output, tethered=True)

    async def end_job(self, app: str, turn: Turn, name: str) -> None:
        """Nothing is left of a job."""

    async def database_url(self, spec: Infraspec) -> str | None:
        """DATABASE_URL as the app's processes get it."""
        environment = await self._machine.environment(spec.app, Template.of(spec))
        return environment.get("DATABASE_URL")

    def logs(self, app: str, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """The last `tail` lines of the live processes' output, then, with `follow`, more as it comes."""
        return follow_logs(self._app(app).files, follow=follow, tail=tail)

    # ---- for the server --------------------------------------------------------------------------------------

    async def reconcile(self, app: str) -> None:
        """Make what is live run, and nothing else; an app that is being changed is left alone."""
        found = self._app(app)
        if found.lock.locked():
            return
        async with found.lock:
            await found.reconcile(programs.ignore)

    async def reconcile_all(self) -> Mapping[str, NornError]:
        """Reconcile all apps; those where it failed, and why. To be called at the start and every few seconds."""
        failed: dict[str, NornError] = {}
        for app in await asyncio.to_thread(self._known):
            try:
                await self.reconcile(app)
            except NornError as error:
                failed[app] = error
                log.warning("app_not_reconciled", app=app, error=error.message)
        return failed

    async def stop(self, app: str) -> None:
        """End all processes of an app. What was live is remembered, and runs again with the next `reconcile`."""
        found = self._app(app)
        async with found.lock:
            await found.stop()

    async def stop_all(self) -> None:
        """End all processes of all apps: `norn serve --stop-all`."""
        for app in await asyncio.to_thread(self._known):
            await self.stop(app)

    def _known(self) -> list[str]:
        apps = self._machine.home / "apps"
        if not apps.is_dir():
            return []
        return sorted(path.name for path in apps.iterdir() if path.is_dir() and is_app_name(path.name))


@dataclass(frozen=True, slots=True)
class _Change:
    id: str
    """What `watch` is called with."""
    release: Release


def _accepted(app: LocalApp, change: Switch | Release) -> bool:
    """Whether it is the change that was accepted last."""
    active, pending = app.files.active(), app.files.pending()
    latest = pending or (active.as_desired() if active else None)
    if latest is None:
        return False
    return latest.change_id == change.deployment_id and latest.image.digest == change.image.digest


def _refuse_unseen(app: LocalApp, change: Switch | Release) -> None:
    """Raises Stale where what is live is not what the caller saw."""
    active, expected = app.files.active(), change.expected_digest
    if expected is not None and (active is None or active.image.digest != expected):
        now = active.image.tag if active else "nothing"
        raise Stale(
            f"{app.name} was to be changed from {expected}, but {now} is live.",
            hint="Look again at what is live, and decide anew.",
            expected=expected,
            live=active.image.digest if active else None,
        )


def _nothing_live(app: str) -> RolloutFailed:
    return RolloutFailed(
        f"Nothing of {app} is live.", reason="nothing_live", hint=f"Deploy it first: `norn deploy {app}`."
    )
