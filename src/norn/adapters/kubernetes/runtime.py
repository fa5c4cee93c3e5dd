"""The Kubernetes runtime: apps as Kubernetes Deployments of one namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from norn.adapters.kubernetes import manifests
from norn.adapters.kubernetes.adoption import plan_adoption
from norn.adapters.kubernetes.changes import Changes
from norn.adapters.kubernetes.client import MANAGER, Cluster, Conflict
from norn.adapters.kubernetes.configuration import declared_shape, shape_of, texts_of
from norn.adapters.kubernetes.direct import forget_direct, read_direct
from norn.adapters.kubernetes.halts import Halts
from norn.adapters.kubernetes.health import ask_pods
from norn.adapters.kubernetes.jobs import JobRun, delete_job, job_runs
from norn.adapters.kubernetes.logs import app_lines
from norn.adapters.kubernetes.others import Others
from norn.adapters.kubernetes.pod_environment import ELSEWHERE, given_to_pods
from norn.adapters.kubernetes.pods import Mark, newest_replica_set, pods_of, running_digests, template_of
from norn.adapters.kubernetes.preconditions import always_changed, paused, refuse_unseen
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Object, Pod, Secret, Service
from norn.adapters.kubernetes.rollouts import RolloutWatch
from norn.adapters.kubernetes.workload import (
    WAY_BACK,
    Note,
    Workload,
    digest_of,
    last_manager,
    live_of,
    main_container,
    recorded,
    reference_of,
)
from norn.domain import workloads
from norn.domain.configuration import Shape, Texts
from norn.domain.images import Image
from norn.domain.infraspec import Infraspec
from norn.domain.ports import Direct, Health, Live, Output, Release, Switch, Template, Turn
from norn.domain.ports import Workload as Recorded
from norn.domain.verdict import Finding
from norn.errors import NotPossible, RolloutFailed

log = structlog.get_logger(__name__)

_DATABASE_URL = "DATABASE_URL"
_PUT_BACK_S = 30.0
_NO_DIGEST = "sha256:" + "0" * 64

Environment = Callable[[str, Template], Awaitable[Mapping[str, str]]]
"""What goes into the Secret `<app>-norn`: DATABASE_URL, as pods reach it."""


class KubernetesRuntime:
    """The protocol `Runtime`; `start` and `stop` for the server."""

    name = "kubernetes"

    def __init__(self, cluster: Cluster, own_environment: Environment) -> None:
        self._cluster = cluster
        self._mirror = Mirror(cluster)
        self._changes = Changes(cluster, self._mirror)
        self._others = Others(cluster, self._mirror)
        self._halts = Halts(cluster, self._mirror, self._changes)
        self._own_environment = own_environment
        self._marks: dict[str, Mark] = {}
        self._reached: set[str] = set()

    def start(self) -> None:
        self._mirror.start()
        self._others.start()

    async def stop(self) -> None:
        await self._others.stop()
        await self._mirror.stop()
        await self._cluster.close()

    async def reachable(self) -> None:
        """Raises RuntimeUnavailable, ClusterRefused."""
        await self._cluster.reachable()

    # ---- looking -------------------------------------------------------------------------------------------------

    async def _workload(self, app: str) -> Workload | None:
        obj = await self._mirror.deployment(app)
        return Workload(obj) if obj is not None else None

    async def _waited_for(self, app: str) -> Workload | None:
        """As a change sees it: an API server that is away is waited for."""
        return await self._cluster.patiently(lambda: self._workload(app))

    async def _pods(self, workload: Workload) -> Sequence[Object]:
        """The pods of the present pod template. Asks the API server where the copy may be out of date."""
        app = workload.name
        if self._mirror.current:
            sets, pods = self._mirror.replica_sets.of(app).values(), self._mirror.pods.of(app).values()
            return pods_of(newest_replica_set(workload, sets), pods)
        selector = workload.obj["spec"]["selector"].get("matchLabels") or {}
        found = await self._cluster.list(Pod, selector)
        wanted = workload.images(list(workload.containers))
        return [pod for pod in found if template_of(pod).images(list(wanted)) == wanted]

    async def live(self, app: str) -> Live | None:
        """What rolled out last; an image changed by hand where somebody did. None where nothing ever rolled out."""
        workload = await self._workload(app)
        if workload is None:
            return None
        return live_of(workload, await self._running_digest(workload))

    async def _running_digest(self, workload: Workload) -> str:
        key = main_container(workload) if workload.foreign else workload.own_container
        if key is None or digest_of(workload.containers[key].image):
            return ""
        digests = running_digests(await self._pods(workload), key.partition("/")[2])
        return next(iter(digests)) if len(digests) == 1 else ""

    async def health(self, app: str) -> Health | None:
        """What the kubelets say of the pods of the present template, and what these answer themselves."""
        workload = await self._workload(app)
        if workload is None or (workload.live is None and not workload.foreign):
            return None
        return await ask_pods(self._cluster, workload, await self._pods(workload), self._reached)

    async def findings(self, app: str) -> Sequence[Finding]:
        """Another deploy tool, no replicas, others that run the same image and would stay on it."""
        workload = await self._workload(app)
        if workload is None:
            return ()
        others = await self._others.on_image_of(workload)
        return workloads.findings(
            app,
            managers=[str(entry.get("manager")) for entry in workload.obj["metadata"].get("managedFields") or ()],
            labels=workload.obj["metadata"].get("labels") or {},
            replicas=workload.replicas,
            left_behind=others.names,
            forbidden=others.forbidden,
            unseen=others.unseen,
        )

    async def configuration(self, app: str) -> Texts:
        workload = await self._workload(app)
        return await texts_of(self._cluster, workload) if workload is not None else {}

    def shape(self, workload: Recorded, template: Template | None) -> Shape:
        """Containers, ports, probes, commands; of what has never run, what its infraspec says of that."""
        return shape_of(workload) if workload else declared_shape(template)

    async def refuse_paused(self, app: str) -> None:
        workload = await self._workload(app)
        if workload is not None and workload.paused:
            raise paused(app)

    async def preflight(self, spec: Infraspec, *, force: bool) -> None:
        """Whether the API server would take what the infraspec declares. Raises Paused, ForeignFields."""
        await self.refuse_paused(spec.app)
        workload = await self._workload(spec.app)
        if workload is None or workload.foreign or workload.adopted:
            return
        image = Image(f"{spec.app}:preflight", _NO_DIGEST, "")
        await self._changes.preview(Release(spec.app, "preflight", image, Template.of(spec), force=force))

    async def workload(self, app: str) -> Recorded:
        workload = await self._workload(app)
        return recorded(workload) if workload is not None and not workload.foreign else {}

    # ---- adopting ------------------------------------------------------------------------------------------------

    async def foreign(self, app: str) -> bool:
        workload = await self._workload(app)
        return workload is not None and workload.foreign

    async def adopt(self, app: str, turn: Turn, container: str | None) -> Image:
        """Write Norn's notes on a Deployment that somebody else has made. Raises NotPossible."""
        obj = await self._mirror.refresh(app)
        if obj is None:
            raise NotPossible(
                f"There is no Kubernetes Deployment {app} in the namespace {self._cluster.namespace}.",
                hint=f"`norn deploy {app}` makes it.",
            )
        workload = Workload(obj)
        adoption = plan_adoption(workload, await self._pods(workload), turn.operation_id, container)
        await turn.confirm()  # there is no fence yet
        if not await self._changes.note(app, turn, adoption.notes, lambda found: found.obj["spec"] == obj["spec"]):
            raise always_changed(app)
        return adoption.image

    # ---- changing what runs --------------------------------------------------------------------------------------

    async def apply(self, release: Release, turn: Turn) -> None:
        """What the infraspec declares; of an adopted Deployment the image alone. Raises ForeignFields, Paused, …"""
        workload = await self._waited_for(release.app)
        await self._remember_mark(release.app)
        if workload is not None and release.workload:
            template, images = release.workload.get("podTemplate"), release.workload.get("containers")
            if template and images:
                await self._changes.restore(release, turn, template, images, _refusal(release))
                return
        if workload is not None and (workload.adopted or workload.foreign):
            if workload.foreign:
                raise NotPossible(
                    f"The Kubernetes Deployment {release.app} is somebody else's.", hint=f"`norn adopt {release.app}`"
                )
            seen = (release.expected_digest, release.expected_tag, release.resume)
            await self.set_image(Switch(release.app, release.deployment_id, release.image, None, *seen), turn)
            return
        await turn.confirm()  # Secret and Service have no fence
        await self._ensure_secret(release.app, release.template)
        await self._ensure_service(release)
        await self._changes.apply(release, turn, _refusal(release))

    async def _ensure_service(self, release: Release) -> None:
        """The Service for `hosts.internal`; one of somebody else's stays as it is."""
        template = release.template
        if template.internal_host is None or template.port is None or template.role != "webserver":
            return
        selector = {manifests.APP_LABEL: release.app}
        wanted = manifests.service(release.app, template.internal_host, template.port, selector)

        async def attempt() -> None:
            there = await self._cluster.get(Service, wanted["metadata"]["name"])
            try:
                if there is None or manifests.is_own(there, release.app):
                    await self._cluster.apply(Service, wanted)
                    return
            except Conflict:
                pass
            log.warning("service_is_anothers", app=release.app, service=template.internal_host)

        await self._cluster.patiently(attempt)

    async def _ensure_secret(self, app: str, template: Template) -> None:
        """The Secret `<app>-norn`: written without being read."""
        values = await self._own_environment(app, template)
        if not values:
            return
        name = manifests.own_secret(app)
        wanted = manifests.secret(name, app, values)
        await self._cluster.patiently(lambda: self._cluster.apply(Secret, wanted, force=True))

    async def set_image(self, switch: Switch, turn: Turn) -> None:
        """A rollback: the images of the containers recorded for the target, by name, and nothing else."""
        await self._remember_mark(switch.app)
        await self._changes.switch(switch, turn, partial(refuse_unseen, switch))

    async def restart(self, app: str, turn: Turn) -> None:
        await self._remember_mark(app)
        live = await self._cluster.patiently(lambda: self.live(app))
        await self._changes.restart(app, turn, live.digest if live is not None else "")

    async def _remember_mark(self, app: str) -> None:
        workload = await self._waited_for(app)
        if workload is not None:
            self._marks[app] = Mark.of(workload)

    async def halt(self, app: str, turn: Turn, output: Output) -> None:
        """No replicas; an autoscaler leaves an app alone that has none."""
        await self._halts.halt(app, turn, output)

    async def bring_back(self, app: str, turn: Turn | None, timeout_s: float, output: Output) -> None:
        """The replicas that `halt` has written down, all of them healthy. Raises RolloutFailed."""
        await self._remember_mark(app)
        workload = await self._halts.give_back(app, turn, output)
        await self.watch(app, workload.change_id or "", turn, timeout_s, output)

    async def halted(self) -> Sequence[str]:
        """Those that Norn has scaled to none, and not back."""
        return self._halts.halted()

    async def watch(self, app: str, deployment_id: str, turn: Turn | None, timeout_s: float, output: Output) -> None:
        """Raises RolloutFailed as soon as it is certain; complete means that every pod runs what was meant."""
        watch = RolloutWatch(self._cluster, self._mirror, app, deployment_id, output)
        workload = await watch.to_the_end(self._marks.pop(app, None), timeout_s)
        await self._changes.note_live(workload, turn)

    async def available(self, app: str, deployment_id: str) -> int:
        """Replicas of the new ReplicaSet that are available."""
        obj = await self._cluster.patiently(lambda: self._mirror.refresh(app), allowed=True)
        if obj is None or (workload := Workload(obj)).change_id != deployment_id:
            return 0
        await self._cluster.patiently(lambda: self._mirror.look(obj), allowed=True)  # what it decides is final
        replica_set = newest_replica_set(workload, self._mirror.replica_sets.of(app).values())
        return int(((replica_set or {}).get("status") or {}).get("availableReplicas", 0))

    async def put_back(self, app: str, turn: Turn, previous: Recorded | None, output: Output) -> None:
        """What was live before, its template included, where this operation's change is what was accepted last.

        A Deployment that nothing has ever rolled out on is removed: nothing was live, nothing is. Raises RolloutFailed
        where what is put back does not become healthy either.
        """
        workload = await self._changes.take_turn(app, turn)
        if workload is None or workload.change_id != turn.operation_id:
            return
        if not workload.runs(workload.change):
            output(f"{last_manager(workload, MANAGER)} has changed the image since: it stays as it is\n")
            return
        live = workload.live
        if live is None:
            if await self._changes.remove(app, turn):
                output(f"the Kubernetes Deployment {app}, which nothing had rolled out on, is removed\n")
            return
        if workload.paused:
            output(f"its rollouts are paused: `kubectl rollout resume deployment/{app}` lets it go back\n")
        image = Image(live.image_tag, live.digest, "")
        template = (previous or {}).get("podTemplate")
        await self._remember_mark(app)
        if template and template != workload.pod_template:
            release = Release(app, live.deployment_id, image, _NO_TEMPLATE)
            await self._changes.restore(release, turn, template, live.containers, _whatever_it_is)
        else:
            back = Switch(app, live.deployment_id, image, {"containers": dict(live.containers)})
            await self._changes.switch(back, turn, _whatever_it_is)
        output(f"the image is put back to {live.image_tag}\n")
        try:
            await self.watch(app, live.deployment_id, turn, _PUT_BACK_S, output)
        except RolloutFailed as failed:
            raise RolloutFailed(
                f"The image is put back to {live.image_tag}, which is not healthy either: {failed.message}",
                hint=f"It may not be the version: `kubectl describe pods`, `norn logs {app}`.",
                **failed.facts,
            ) from failed

    async def note_way_back(self, app: str, turn: Turn, live: str | None, way_back: Release | None) -> None:
        """For `norn rollback --direct`."""
        text = None
        if way_back is not None:
            containers = (way_back.workload or {}).get("containers")
            if not containers:
                workload = await self._workload(app)
                containers = dict.fromkeys(workload.managed if workload else (), reference_of(way_back.image))
            image = way_back.image
            text = Note(way_back.deployment_id, image.tag, image.digest, containers).to_text()
        await self._changes.note(app, turn, {WAY_BACK: text}, lambda found: found.live_id == live)

    async def direct(self, app: str) -> Direct | None:
        workload = await self._workload(app)
        return read_direct(workload) if workload is not None else None

    async def forget_direct(self, app: str, operation_id: str) -> None:
        await forget_direct(self._cluster, self._mirror, app, operation_id)

    # ---- jobs, logs ----------------------------------------------------------------------------------------------

    async def job_runs(self, app: str, name: str, operation_id: str) -> bool:
        return await self._cluster.patiently(lambda: job_runs(self._cluster, operation_id))

    async def run_job(
        self, release: Release, turn: Turn, name: str, command: Sequence[str], env: Mapping[str, str], output: Output
    ) -> None:
        """As a Job; one that an interrupted server began is followed to its end. Raises ProgramFailed."""
        workload = await self._waited_for(release.app)
        pod = workload.pod_template["spec"] if workload is not None else None
        container = None
        if workload is not None and workload.adopted and pod is not None:
            own = workload.own_container
            if own is None:
                raise NotPossible(
                    f"The pod template of {release.app} no longer has {', '.join(workload.managed)}.",
                    hint=f"`norn rollback {release.app} --template` brings back one that has.",
                )
            container = pod["containers"][workload.containers[own].position]
        else:
            await turn.confirm()  # a Secret has no fence
            await self._ensure_secret(release.app, release.template)
        job = manifests.job(release, turn, name, command, env, pod=pod, container=container)
        output(f"{name}: running in {release.image.tag}, as the Job {job['metadata']['name']}\n")
        await JobRun(self._cluster, job, output).run(turn)

    async def end_job(self, app: str, turn: Turn, name: str) -> None:
        await delete_job(self._cluster, manifests.job_name(name, turn.operation_id), turn)

    async def database_url(self, spec: Infraspec) -> str | None:
        """DATABASE_URL as the app's pods get it; None where it is in a place that Norn may not read."""
        given = await given_to_pods(self._cluster, await self._workload(spec.app), spec, _DATABASE_URL)
        if given is not ELSEWHERE:
            return given
        return (await self._own_environment(spec.app, Template.of(spec))).get(_DATABASE_URL)

    async def logs(self, app: str, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """The lines of all pods, each with its pod's name in front."""
        workload = await self._workload(app)
        if workload is None:
            return
        containers = workload.managed or [key for key in workload.containers if key.startswith("containers/")]
        async for line in app_lines(self._cluster, self._mirror, app, containers, follow=follow, tail=tail):
            yield line


def _refusal(release: Release) -> Callable[[Workload], None]:
    return partial(refuse_unseen, release) if release.expected_digest is not None else _whatever_it_is


def _whatever_it_is(_workload: Workload) -> None:
    """Putting back wants no precondition of its own: not even that rollouts go on."""


_NO_TEMPLATE = Template("webserver", 1, None, None, {}, (), 300.0)
