"""What else in the namespace runs an app's image, and stays on it when the app goes back: workers, scheduled jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog

from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import (
    CronJob,
    CronJobBefore121,
    DaemonSet,
    Kind,
    Object,
    StatefulSet,
    name_of,
)
from norn.adapters.kubernetes.workload import Workload
from norn.errors import ClusterRefused, NornError

log = structlog.get_logger(__name__)

_EVERY_S = 30.0
_STALE_S = 300.0
_FIRST_S = 1.0
"""How long somebody who asks before the first look waits for it."""
_KINDS: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("statefulset", (StatefulSet,)),
    ("daemonset", (DaemonSet,)),
    ("cronjob", (CronJob, CronJobBefore121)),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What runs an app's image."""

    names: Sequence[str]
    """As kubectl takes them: `cronjob/nightly`."""
    unseen: str = ""
    """Why not all was looked at."""


class Others:
    """Deployments as the copy has them; StatefulSets, DaemonSets and CronJobs as they were at the last look."""

    def __init__(self, cluster: Cluster, mirror: Mirror) -> None:
        self._cluster = cluster
        self._mirror = mirror
        self._images: dict[str, frozenset[str]] = {}
        self._refused: tuple[str, ...] = ()
        self._looked_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look every half a minute: a rollback does not wait for it."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except NornError as error:
                log.info("others_not_looked_at", error=error.message)
            await asyncio.sleep(_EVERY_S)

    async def on_image_of(self, workload: Workload) -> Found:
        """What else runs an image of the app, by the reference that Norn runs or by its tag."""
        if self._looked_at is None:
            try:
                async with asyncio.timeout(_FIRST_S):
                    await self._look()
            except (NornError, TimeoutError) as error:
                log.info("others_not_looked_at", error=str(error))
        own = set(workload.images(workload.managed).values())
        own |= {note.image_tag for note in (workload.live, workload.change) if note is not None}
        deployments = map(Workload, self._mirror.deployments.everything())
        names = [f"deployment/{one.name}" for one in deployments if one.uid != workload.uid and own & _images(one)]
        names += [name for name, images in self._images.items() if own & images]
        return Found(sorted(names), self._unseen())

    def _unseen(self) -> str:
        now = asyncio.get_running_loop().time()
        if self._looked_at is None or now - self._looked_at > _STALE_S:
            return "the API server has not said which StatefulSets, DaemonSets and CronJobs there are"
        if self._refused:
            kinds = " and ".join(f"{kind}s" for kind in self._refused)
            return f"Norn may not list {kinds} (deploy/kubernetes/rbac.yaml)"
        return ""

    async def _look(self) -> None:
        """Raises RuntimeUnavailable."""
        images: dict[str, frozenset[str]] = {}
        refused = []
        for name, versions in _KINDS:
            try:
                images |= {f"{name}/{name_of(obj)}": _images(_as_workload(obj)) for obj in await self._list(versions)}
            except ClusterRefused:
                refused.append(name)
        self._images, self._refused = images, tuple(refused)
        self._looked_at = asyncio.get_running_loop().time()

    async def _list(self, versions: Iterable[Kind]) -> Sequence[Object]:
        """Of the first of these versions that the API server has; nothing where it has none of them."""
        for kind in versions:
            try:
                return await self._cluster.list(kind)
            except ClusterRefused as refused:
                if refused.facts.get("clusterStatus") != 404:
                    raise
        return ()


def _as_workload(obj: Object) -> Workload:
    """A CronJob has its pod template further in."""
    spec = obj["spec"].get("jobTemplate", obj).get("spec", {})
    return Workload({"metadata": obj["metadata"], "spec": spec})


def _images(workload: Workload) -> frozenset[str]:
    return frozenset(container.image for container in workload.containers.values())
