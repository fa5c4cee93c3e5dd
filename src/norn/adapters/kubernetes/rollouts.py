"""Watches a change to its end: complete and what was meant, or failed with the pod's own words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from norn.adapters.kubernetes.client import MANAGER, Cluster, Refusals, translated
from norn.adapters.kubernetes.pods import (
    Mark,
    newest_replica_set,
    pod_state,
    pods_of,
    rollout_state,
    running_digests,
)
from norn.adapters.kubernetes.preconditions import superseded
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Autoscaler, Object
from norn.adapters.kubernetes.warnings import last_warning
from norn.adapters.kubernetes.workload import Note, Workload, digest_of, last_manager
from norn.domain.ports import Output
from norn.domain.rollout import Attempts, Phase, Progress, RolloutState, is_behind, judge
from norn.errors import ClusterRefused, NornError, RolloutFailed, RuntimeUnavailable

_LOOK_EVERY_S = 5.0
"""Besides every change that the watches tell: they may have died without a word."""
_BEHIND_S = 1.0
"""How long ReplicaSets and pods may be behind their Deployment: the watches are a moment apart."""
_LIST_EVERY_S = 3.0
"""How often they are listed anew while they stay behind."""
_LOG_LINES = 20


class RolloutWatch:
    """One change of one app, from its acceptance to its end."""

    def __init__(self, cluster: Cluster, mirror: Mirror, app: str, change_id: str, output: Output) -> None:
        self._cluster = cluster
        self._mirror = mirror
        self._app = app
        self._change_id = change_id
        self._output = output
        self._attempts = Attempts()
        self._refusals, self._list_refusals = Refusals(), Refusals()
        self._list_at: float | None = None
        self._said = ""
        self._ready: list[str] = []
        self._replicas: int | None = None
        self._generation: int | None = None
        self._note: Note | None = None
        self._workload: Workload | None = None

    async def to_the_end(self, mark: Mark | None, timeout_s: float) -> Workload:
        """The Deployment as it is once all of the change is live. Raises RolloutFailed as soon as it is certain.

        `mark` is what stood there before the change; None (Norn was interrupted): what stands there now is no news.
        """
        loop = asyncio.get_running_loop()
        deadline, looked = loop.time() + timeout_s, loop.time()
        progress: Progress | None = None
        async with self._mirror.changes(self._app) as wait:
            while True:
                workload = await self._look(refresh=loop.time() - looked >= _LOOK_EVERY_S)
                if loop.time() - looked >= _LOOK_EVERY_S:
                    looked = loop.time()
                if workload is not None:
                    self._workload = workload
                    mark = mark or Mark.of(workload)
                    self._notice_edits(workload)
                    await self._notice_scaling(workload)
                    state = rollout_state(workload, self._pods(workload), mark)
                    listed = await self._listed_anew(workload, state)
                    pods = self._pods(workload)
                    state = rollout_state(workload, pods, mark)
                    self._attempts = self._attempts.after(state.pods)
                    progress = judge(state, self._attempts)
                    self._say_ready(state)
                    self._say(progress)
                    seen = listed or not is_behind(state)
                    if progress.phase is Phase.COMPLETE and seen and self._verified(workload, pods):
                        return workload
                    if progress.phase is Phase.FAILED:
                        raise await self._failed(progress)
                left = deadline - loop.time()
                if left <= 0:
                    raise await self._failed(progress, f"not complete after {timeout_s:g} s")
                await wait(min(left, _LOOK_EVERY_S if self._list_at is None else _BEHIND_S))

    async def _look(self, *, refresh: bool) -> Workload | None:
        """The Deployment now; None while the API server does not answer."""
        try:
            obj = await (self._mirror.refresh(self._app) if refresh else self._mirror.deployment(self._app))
        except (RuntimeUnavailable, ClusterRefused) as error:
            self._bear(error, self._refusals)
            return None
        self._refusals.over()
        try:
            return self._own(obj)
        except RolloutFailed:
            if refresh:
                raise
            return await self._look(refresh=True)  # it ends the change: the copy's word is not enough

    def _own(self, obj: Object | None) -> Workload:
        """Raises RolloutFailed where it is no longer this change that rolls out."""
        if obj is None:
            raise RolloutFailed(
                f"The Kubernetes Deployment {self._app} was deleted while it rolled out.",
                reason="deleted",
                hint=f"`norn deploy {self._app}` makes it again.",
            )
        workload = Workload(obj)
        self._refuse_others(workload)
        return workload

    async def _listed_anew(self, workload: Workload, state: RolloutState) -> bool:
        """Whether ReplicaSets and pods have just been listed: they have been behind what the Deployment says."""
        now = asyncio.get_running_loop().time()
        if not is_behind(state):
            self._list_at = None
            return False
        if self._list_at is None:
            self._list_at = now + _BEHIND_S
        if now < self._list_at:
            return False
        self._list_at = now + _LIST_EVERY_S
        try:
            await self._mirror.look(workload.obj)
        except (RuntimeUnavailable, ClusterRefused) as error:
            self._bear(error, self._list_refusals)
            return False
        self._list_refusals.over()
        return True

    def _bear(self, error: RuntimeUnavailable | ClusterRefused, refusals: Refusals) -> None:
        """Raises a refusal that does not pass."""
        if isinstance(error, ClusterRefused):
            refusals.bear(error)
        self._line(f"{error.message} The rollout goes on without Norn; waiting")

    def _refuse_others(self, workload: Workload) -> None:
        if workload.change_id != self._change_id or workload.change is None:
            raise superseded(workload)
        self._note = workload.change
        if not workload.runs(workload.change):
            now = ", ".join(workload.images(list(workload.change.containers)).values())
            raise RolloutFailed(
                f"{last_manager(workload, MANAGER)} has changed the image of {self._app} to {now} meanwhile.",
                reason="superseded",
                hint="Something else changes this app, too: look for another deploy tool, or for a colleague.",
            )
        if workload.paused:
            raise RolloutFailed(
                f"The rollouts of the Kubernetes Deployment {self._app} are paused.",
                reason="paused",
                hint=f"`norn rollback {self._app} --resume`, or `kubectl rollout resume deployment/{self._app}`.",
            )

    # ---- what else is going on -----------------------------------------------------------------------------------

    def _notice_edits(self, workload: Workload) -> None:
        before, self._generation = self._generation, workload.generation
        scaled = self._replicas is not None and self._replicas != workload.replicas
        if before is not None and before < workload.generation and not scaled:
            self._line(f"{last_manager(workload, MANAGER)} has edited the Kubernetes Deployment meanwhile; going on")

    async def _notice_scaling(self, workload: Workload) -> None:
        before, self._replicas = self._replicas, workload.replicas
        if before == workload.replicas:
            return
        if before is not None:
            who = await autoscaler_of(self._cluster, self._app) or "somebody"
            self._line(f"{who} has changed the replicas from {before} to {workload.replicas} meanwhile")
        elif workload.replicas == 0 and not workload.halted:
            self._line(f"{self._app} is scaled to 0 replicas: nothing of it runs, and nothing will")

    def _pods(self, workload: Workload) -> Sequence[Object]:
        replica_set = newest_replica_set(workload, self._mirror.replica_sets.of(self._app).values())
        return pods_of(replica_set, self._mirror.pods.of(self._app).values())

    def _say_ready(self, state: RolloutState) -> None:
        """Pod by pod: which of the new ones have become ready, and which are so no more."""
        if state.observed_generation < state.generation:
            return  # where the image stays, the pods of before are still those of the newest ReplicaSet
        ready = {pod.name for pod in state.pods if pod.ready and not pod.going}
        for name in [name for name in self._ready if name not in ready]:
            self._ready.remove(name)
            self._output(f"{name} is not ready any more ({len(self._ready)} of {state.desired})\n")
        for name in sorted(ready.difference(self._ready)):
            self._ready.append(name)
            self._output(f"{name} is ready ({len(self._ready)} of {state.desired})\n")

    def _say(self, progress: Progress) -> None:
        self._line(progress.summary + (f"; {progress.trouble}" if progress.trouble else ""))

    def _line(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._output(f"{text}\n")

    # ---- the end -------------------------------------------------------------------------------------------------

    def _verified(self, workload: Workload, pods: Sequence[Object]) -> bool:
        """Whether the pods run what was meant; False: the copy has not seen all pods yet. Raises RolloutFailed."""
        there = [pod for pod in pods if pod["metadata"].get("deletionTimestamp") is None]
        if len(there) < workload.replicas:
            return False
        assert self._note is not None
        for key, image in self._note.containers.items():
            wanted, runs = digest_of(image), running_digests(there, key.partition("/")[2])
            if not runs and workload.replicas:
                self._line(f"the nodes do not say which digest {key} runs; the pod template names the right one")
            if wanted and runs - {wanted}:
                raise RolloutFailed(
                    f"{key} was to run {wanted}, but a pod runs {', '.join(sorted(runs - {wanted}))}.",
                    reason="not_what_was_meant",
                    hint="A registry mirror, or something that changes pods on their way (an admission webhook)?",
                )
        return True

    async def _failed(self, progress: Progress | None, why: str = "") -> RolloutFailed:
        if progress is None:
            return RolloutFailed(
                f"The Kubernetes API server did not answer while {self._app} rolled out: {why}.", reason="unreachable"
            )
        log_end = await self._last_lines(progress) if progress.reason == "crash" else ""
        if log_end:
            self._output(f"{log_end}\n")
        trouble = progress.trouble or await self._unready()
        message = trouble or f"{progress.summary}, {why}"
        facts = {"output": log_end} if log_end else {}
        return RolloutFailed(
            f"{self._app} does not roll out: {message}." + (f" ({why})" if why and trouble else ""),
            reason=progress.reason or "timeout",
            hint=_HINTS.get(progress.reason, f"`kubectl describe pods` says more; `norn logs {self._app}`."),
            **facts,
        )

    async def _unready(self) -> str:
        """What a pod says that runs and does not become ready."""
        for pod in self._pods(self._workload) if self._workload else ():
            state = pod_state(pod)
            if not state.ready and not state.going and (words := await last_warning(self._cluster, state.name)):
                return f"{state.name}: {words}"
        return ""

    async def _last_lines(self, progress: Progress) -> str:
        try:
            async with translated():
                lines = self._cluster.client.log(
                    progress.pod, container=progress.container, tail_lines=_LOG_LINES, newlines=False
                )
                return "\n".join([line async for line in lines])
        except NornError:
            return ""


_HINTS: Mapping[str, str] = {
    "image_not_found": "The image is not in its registry, or there is none of it for this kind of node: deploy its "
    "commit again, built for that.",
    "image_not_pulled": "Can the nodes reach the registry, and may they pull (imagePullSecrets)?",
    "config_error": "A Secret or ConfigMap that the pod wants is missing, or has no such key.",
    "crash": "See the end of its log above.",
    "unschedulable": "No node has room for it, or none may take it: `kubectl describe pods`.",
    "quota": "The namespace has no room for more pods: look at its ResourceQuota.",
}


async def autoscaler_of(cluster: Cluster, app: str) -> str | None:
    """The HorizontalPodAutoscaler of the app's Deployment, where Norn may look for one and finds one."""
    try:
        for autoscaler in await cluster.list(Autoscaler):
            target = autoscaler["spec"].get("scaleTargetRef") or {}
            if target.get("kind") == "Deployment" and target.get("name") == app:
                return f"the HorizontalPodAutoscaler {autoscaler['metadata']['name']}"
    except (RuntimeUnavailable, ClusterRefused):
        return None
    return None
