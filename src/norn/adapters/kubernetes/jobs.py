"""Runs a command as a Kubernetes Job: its log as it comes, its end, and nothing of it left."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence

from norn.adapters.kubernetes.client import Cluster, PatchTestFailed
from norn.adapters.kubernetes.logs import Position, container_lines
from norn.adapters.kubernetes.manifests import JOB_LABEL
from norn.adapters.kubernetes.patches import pointer
from norn.adapters.kubernetes.pods import pod_state
from norn.adapters.kubernetes.preconditions import confirming
from norn.adapters.kubernetes.resources import Job, Object, Pod, annotations_of, name_of
from norn.adapters.kubernetes.workload import FENCE, fence_of
from norn.domain.ports import Output, Turn
from norn.domain.rollout import Attempts, Phase, PodState, RolloutState, judge
from norn.errors import Busy, ClusterRefused, ProgramFailed, RuntimeUnavailable

_LOOK_EVERY_S = 0.5
_LOOKS = 12
_UNREACHABLE_S = 120.0
_TAIL_CHARS = 16_384


class JobRun:
    """One Job, begun or found: whoever goes on after a crash goes on with the one that runs."""

    def __init__(self, cluster: Cluster, job: Object, output: Output) -> None:
        self._cluster = cluster
        self._job = job
        self._name = name_of(job)
        self._output = output
        self._attempts = Attempts()
        self._printed = ""
        self._over = False
        self._said = ""

    async def run(self, turn: Turn) -> None:
        """To its end. Raises ProgramFailed with the end of its log; the Job is deleted then as well. LeaseLost."""
        async with confirming(turn, lambda: delete_job(self._cluster, self._name, turn, begun=False)):
            await self._begin(turn)
        try:
            await self._to_the_end()
        except ProgramFailed:
            await delete_job(self._cluster, self._name, turn)
            raise
        await delete_job(self._cluster, self._name, turn)

    async def _begin(self, turn: Turn) -> None:
        """It is made without a pod, and gets one once the claim is confirmed.

        Of one that has come to its end nothing is left that would say so: whoever comes late would run it again.
        """
        for _ in range(_LOOKS):
            if await self._cluster.patiently(lambda: self._cluster.create(self._job, Job)) is None:
                self._output("[it is there already; going on with it]\n")
            job = await self._cluster.patiently(lambda: self._cluster.get(Job, self._name), allowed=True)
            if job is None:
                continue  # who comes late takes away again what he has made
            await turn.confirm()
            begin = [
                {"op": "test", "path": "/metadata/uid", "value": job["metadata"]["uid"]},
                {"op": "test", "path": pointer(FENCE), "value": annotations_of(job).get(FENCE)},
                {"op": "add", "path": pointer(FENCE), "value": str(turn.fence)},
                {"op": "replace", "path": "/spec/parallelism", "value": 1},
            ]
            with contextlib.suppress(PatchTestFailed):
                if await self._cluster.patiently(functools.partial(self._patch, begin)) is not None:
                    return
        raise Busy(f"Somebody else makes and removes the Job {self._name} all the time.")

    async def _patch(self, operations: Sequence[Object]) -> Object | None:
        return await self._cluster.json_patch(Job, self._name, operations)

    async def _to_the_end(self) -> None:
        reading: asyncio.Task[None] | None = None
        try:
            while True:
                job, pod = await self._look()
                if pod is not None:
                    if reading is None and _has_started(pod):
                        reading = asyncio.create_task(self._read(pod))
                    self._refuse_hopeless(pod_state(pod))
                if (ended := _ended(job, pod)) is not None:
                    if reading is None and pod is not None and _has_started(pod):
                        reading = asyncio.create_task(self._read(pod))
                    await self._finish(reading, ended)
                    return
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _look(self) -> tuple[Object, Object | None]:
        job = await self._cluster.patiently(lambda: self._cluster.get(Job, self._name), _UNREACHABLE_S, allowed=True)
        if job is None:
            raise ProgramFailed(f"The Job {self._name} was deleted while it ran.", reason="deleted")
        label = {"job-name": self._name}
        pods = await self._cluster.patiently(lambda: self._cluster.list(Pod, label), _UNREACHABLE_S, allowed=True)
        return job, pods[0] if pods else None

    async def _read(self, pod: Object) -> None:
        container = pod["spec"]["containers"][0]["name"]
        read = Position()
        name = name_of(pod)
        async for line in container_lines(self._cluster, name, container, read, tail=None, ended=lambda: self._over):
            self._printed = f"{self._printed}{line}\n"[-_TAIL_CHARS:]
            self._output(f"{line}\n")

    def _refuse_hopeless(self, pod: PodState) -> None:
        """An image that cannot be pulled would wait for ever: a Job has no progress deadline."""
        self._attempts = self._attempts.after([pod])
        ended = any(container.ended_now for container in pod.containers)
        progress = judge(RolloutState(0, 0, 1, 0, 1, 0, pods=[pod]), self._attempts)
        if progress.phase is Phase.FAILED and not ended:
            raise ProgramFailed(f"The Job {self._name} cannot run: {progress.trouble}.", reason=progress.reason)
        if progress.trouble and progress.trouble != self._said and not ended:
            self._said = progress.trouble
            self._output(f"{progress.trouble}\n")

    async def _finish(self, reading: asyncio.Task[None] | None, ended: str) -> None:
        self._over = True
        if reading is not None:
            try:
                async with asyncio.timeout(30):
                    await reading
            except (TimeoutError, RuntimeUnavailable, ClusterRefused):
                self._output("[the end of its log could not be read]\n")
        if ended:
            raise ProgramFailed(f"The Job {self._name} failed: {ended}.", output=self._printed, reason="job_failed")


def _has_started(pod: Object) -> bool:
    status = (pod.get("status") or {}).get("containerStatuses") or ()
    return any("running" in found.get("state", {}) or "terminated" in found.get("state", {}) for found in status)


def _ended(job: Object, pod: Object | None) -> str | None:
    """How it ended (empty: well); None while it runs. The pod's own word comes before the controller's."""
    for found in ((pod or {}).get("status") or {}).get("containerStatuses") or ():
        terminated = found.get("state", {}).get("terminated")
        if terminated is not None:
            return (
                ""
                if terminated.get("exitCode") == 0
                else next(
                    container.ended for container in pod_state(pod or {}).containers if container.name == found["name"]
                )
            )
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            why = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
            return "" if condition["type"] == "Complete" else why or "no reason given"
    return None


async def delete_job(cluster: Cluster, name: str, turn: Turn, *, begun: bool = True) -> None:
    """Delete a Job, and wait until no pod of it runs any longer (a minute at most).

    One that somebody with a later turn goes on with stays; with `begun=False` also one that has been begun.
    """

    async def attempt() -> bool:
        for _ in range(_LOOKS):
            job = await cluster.get(Job, name)
            if job is None:
                return True
            if fence_of(job) > turn.fence or (not begun and job["spec"]["parallelism"]):
                return False
            with contextlib.suppress(PatchTestFailed):  # its status changes with its pod's
                await cluster.delete_as_seen(Job, job)
                return True
        raise Busy(f"Somebody else changes the Job {name} all the time.")

    if not await cluster.patiently(attempt):
        return
    for _ in range(120):
        if not await cluster.patiently(lambda: cluster.list(Pod, {"job-name": name})):
            return
        await asyncio.sleep(_LOOK_EVERY_S)


async def job_runs(cluster: Cluster, operation_id: str) -> bool:
    """Whether a Job of that operation is there."""
    return bool(await cluster.list(Job, {JOB_LABEL: operation_id}))
