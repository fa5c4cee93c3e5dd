"""Halts an app on the cluster for a while: no replicas, their number written down on the object, and given back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from norn.adapters.kubernetes.changes import Changes
from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.patches import halt_patch, start_patch
from norn.adapters.kubernetes.preconditions import nothing_there
from norn.adapters.kubernetes.reflector import Mirror, app_of_pod
from norn.adapters.kubernetes.resources import Object, Pod, name_of
from norn.adapters.kubernetes.workload import REPLICAS_BEFORE, Workload
from norn.domain.ports import Output, Turn
from norn.errors import RolloutFailed

_GRACE_S = 30
"""What Kubernetes gives a pod to end where its template says nothing (terminationGracePeriodSeconds)."""
_SPARE_S = 90.0
"""Beyond which a pod that is being deleted is stuck (its node is gone, say), or the controllers are."""
_LOOK_EVERY_S = 2.0


class Halts:
    def __init__(self, cluster: Cluster, mirror: Mirror, changes: Changes) -> None:
        self._cluster = cluster
        self._mirror = mirror
        self._changes = changes

    async def halt(self, app: str, turn: Turn, output: Output) -> None:
        """No replicas; returns once no pod is left. Raises RolloutFailed where one does not go."""
        workload = await self._changes.scale(app, turn, _halting)
        output(f"{app} is scaled to 0 replicas, from {workload.annotations[REPLICAS_BEFORE]}\n")
        grace_s = int(workload.pod_template["spec"].get("terminationGracePeriodSeconds", _GRACE_S))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s + _SPARE_S
        async with self._mirror.changes(app) as wait:
            while left := await self._left(app):
                if loop.time() >= deadline:
                    raise RolloutFailed(
                        f"{left[0]} does not end within {grace_s + _SPARE_S:g} s.",
                        reason="not_stopped",
                        hint="`kubectl describe pods` says more: is its node still there?",
                    )
                await wait(_LOOK_EVERY_S)
        output(f"nothing of {app} runs\n")

    async def _left(self, app: str) -> Sequence[str]:
        """What still runs, or may still be made. By the API server's word: a copy can be out of date."""
        obj = await self._cluster.patiently(lambda: self._mirror.refresh(app))
        if obj is None:
            raise nothing_there(app)
        status = obj.get("status") or {}
        if int(status.get("observedGeneration", 0)) < Workload(obj).generation or status.get("replicas"):
            return (f"the Kubernetes Deployment {app} ({status.get('replicas', 0)} replicas by its controller's word)",)
        labels = obj["spec"]["selector"].get("matchLabels") or {}
        return _running(app, await self._cluster.patiently(lambda: self._cluster.list(Pod, labels)))

    async def give_back(self, app: str, turn: Turn | None, output: Output) -> Workload:
        """As many replicas as before `halt`, where they are not there; the object as it is then."""
        given = False

        def patch(workload: Workload) -> Sequence[Object]:
            nonlocal given
            given = given or workload.halted
            return start_patch(workload) if workload.halted else ()

        workload = await self._changes.scale(app, turn, patch)
        if given:
            output(f"{app} is scaled to {workload.replicas} replicas again\n")
        return workload

    def halted(self) -> Sequence[str]:
        """Of those that are known."""
        known = map(Workload, self._mirror.deployments.everything())
        return sorted(workload.name for workload in known if workload.halted)


def _halting(workload: Workload) -> Sequence[Object]:
    return () if workload.halted and workload.replicas == 0 else halt_patch(workload)


def _running(app: str, pods: Iterable[Object]) -> Sequence[str]:
    ended = ("Succeeded", "Failed")
    return sorted(
        name_of(pod) for pod in pods if app_of_pod(pod) == app and (pod.get("status") or {}).get("phase") not in ended
    )
