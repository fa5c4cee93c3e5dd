"""What else in the namespace runs an app's image, and stays on it when the app goes back: workers, scheduled jobs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog

from norn.adapters.kubernetes.client import REFUSED_S, Cluster
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
from norn.waiting import wait_set

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
    forbidden: Sequence[str] = ()
    """The kinds that Norn may not list."""
    unseen: Sequence[str] = ()
    """The kinds of which the API server has not told for a while."""


class Others:
    """Deployments as the copy has them; StatefulSets, DaemonSets and CronJobs as they were at the last look."""

    def __init__(self, cluster: Cluster, mirror: Mirror) -> None:
        self._cluster = cluster
        self._mirror = mirror
        self._images: dict[str, dict[str, frozenset[str]]] = {}
        self._heard: dict[str, float] = {}
        self._forbidden: dict[str, float] = {}
        """Since when, by kind."""
        self._tried = asyncio.Event()
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
            await self._look()
            await asyncio.sleep(_EVERY_S)

    async def on_image_of(self, workload: Workload) -> Found:
        """What else runs an image of the app, by the reference that Norn runs or by its tag."""
        if self._task is None:
            await self._look()
        else:
            await wait_set(self._tried, _FIRST_S)
        own = set(workload.images(workload.managed).values())
        own |= {note.image_tag for note in (workload.live, workload.change) if note is not None and workload.runs(note)}
        deployments = map(Workload, self._mirror.deployments.everything())
        names = [f"deployment/{one.name}" for one in deployments if one.uid != workload.uid and own & _images(one)]
        for found in self._images.values():
            names += [name for name, images in found.items() if own & images]
        now = asyncio.get_running_loop().time()
        forbidden = [kind for kind, since in self._forbidden.items() if self._is_forbidden(kind, now - since)]
        unseen = [
            kind for kind, _ in _KINDS if kind not in forbidden and now - self._heard.get(kind, -math.inf) > _STALE_S
        ]
        return Found(sorted(names), forbidden, unseen)

    def _is_forbidden(self, kind: str, for_s: float) -> bool:
        """An API server that has just started does not know its roles: where the right was there before, see."""
        return kind not in self._heard or for_s >= REFUSED_S

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for kind, versions in _KINDS:
            try:
                found = await self._list(versions)
            except ClusterRefused as refused:
                if refused.facts.get("clusterStatus") in (401, 403):
                    self._forbidden.setdefault(kind, now)
                log.info("others_not_listed", kind=kind, error=refused.message)
            except NornError as error:
                log.info("others_not_listed", kind=kind, error=error.message)
            else:
                self._images[kind] = {f"{kind}/{name_of(obj)}": _images(_as_workload(obj)) for obj in found}
                self._heard[kind] = now
                self._forbidden.pop(kind, None)
        self._tried.set()

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
