"""A copy of the namespace's Deployments, ReplicaSets and pods that is kept up to date: listed once, then watched.

A watch ends: with 410 Gone, with a dropped connection, after some minutes by itself; then all is listed anew. While a
watch is broken its copy counts as out of date, and whoever needs certainty asks the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping

import structlog
from lightkube.core.exceptions import ApiError

from norn.adapters.kubernetes.client import Cluster, translated
from norn.adapters.kubernetes.resources import (
    Deployment,
    Kind,
    Object,
    Pod,
    ReplicaSet,
    name_of,
    owner_of,
    resource_version,
)
from norn.errors import NornError
from norn.waiting import wait_set

log = structlog.get_logger(__name__)

_WATCH_S = 240
_SILENCE_S = _WATCH_S + 30.0
"""A watch that is longer silent than the server lets one last is dead, whatever its connection says."""
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0)
_PULSE_S = 3.0
_GONE = 410

_News = dict[tuple[str, str], tuple[int, Object | None]]
"""What was heard of objects while a list was under way, by app and name: the version, and the object (None: gone)."""


class Reflector:
    """The objects of one kind, by app and name. `app_of` says which app an object belongs to (None: to none)."""

    def __init__(
        self, cluster: Cluster, kind: Kind, app_of: Callable[[Object], str | None], changed: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._app_of = app_of
        self._changed = changed
        self._objects: dict[str, dict[str, Object]] = defaultdict(dict)
        self._listening: list[_News] = []
        self.current = False
        """Everything up to a moment ago is in the copy."""
        self.error: NornError | None = None

    def of(self, app: str) -> Mapping[str, Object]:
        return self._objects.get(app, {})

    def everything(self) -> Iterator[Object]:
        """All of that kind in the namespace."""
        for objects in self._objects.values():
            yield from objects.values()

    def put(self, obj: Object) -> None:
        """Take over an object, unless a newer state of it is known."""
        app = self._app_of(obj)
        if app is None:
            return
        known = self._objects[app].get(name_of(obj))
        if known is None or resource_version(known) <= resource_version(obj):
            self._objects[app][name_of(obj)] = self._kept(obj)
            self._heard(app, obj, obj)

    def _kept(self, obj: Object) -> Object:
        """Without who has set which field: there are many ReplicaSets and pods, and nobody asks."""
        if self._kind is not Deployment:
            obj["metadata"].pop("managedFields", None)
        return obj

    def drop(self, obj: Object) -> None:
        app = self._app_of(obj)
        if app is not None:
            self._objects[app].pop(name_of(obj), None)
            self._heard(app, obj, None)

    def _heard(self, app: str, obj: Object, now: Object | None) -> None:
        for news in self._listening:
            news[app, name_of(obj)] = (resource_version(obj), now)
        self._changed(app)

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            try:
                async with translated():
                    version = await self._list()
                    self.current, self.error, failures = True, None, 0
                    await self._watch(version)
            except NornError as error:
                self.error = error
                if failures == 0:
                    log.warning("watch_lost", kind=self._kind.__name__, error=error.message)
                failures += 1
            except TimeoutError:
                log.warning("watch_silent", kind=self._kind.__name__)
            finally:
                self.current = False
            await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])

    async def _list(self) -> str:
        with self._hearing() as news:
            found = self._cluster.client.list(self._kind)
            objects = [obj async for obj in found]
        self._take(objects, news)
        return found.resourceVersion

    async def look(self, app: str, labels: Mapping[str, str]) -> None:
        """List anew what belongs to one app. Raises RuntimeUnavailable, ClusterRefused."""
        with self._hearing() as news:
            objects = await self._cluster.list(self._kind, labels)
        self._take(objects, news, app)

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[_News]:
        """What is heard within."""
        news: _News = {}
        self._listening.append(news)
        try:
            yield news
        finally:
            self._listening = [others for others in self._listening if others is not news]

    def _take(self, listed: Iterable[Object], news: _News, only: str | None = None) -> None:
        """What a list says, of one app or of all; what was heard since it began is newer, unless its version says no.

        A change that was accepted meanwhile would else seem to be undone.
        """
        there: dict[str, dict[str, Object]] = defaultdict(dict)
        for obj in listed:
            if (app := self._app_of(obj)) is not None:
                there[app][name_of(obj)] = self._kept(obj)
        for (app, name), (version, now) in news.items():
            told = there[app].pop(name, None)
            if told is not None and resource_version(told) > version:
                now = told
            if now is not None:
                there[app][name] = now
        for app in (set(self._objects) | set(there)) if only is None else (only,):
            self._objects[app] = there[app]
            self._changed(app)

    async def _watch(self, version: str) -> None:
        events = self._cluster.client.watch(self._kind, server_timeout=_WATCH_S, resource_version=version)
        async for event, obj in _each(aiter(events)):
            (self.drop if event == "DELETED" else self.put)(obj)


async def _each(iterator: AsyncIterator[tuple[str, Object]]) -> AsyncIterator[tuple[str, Object]]:
    """The events of a watch, until it is gone (then nothing is wrong) or silent for too long (TimeoutError)."""
    try:
        while True:
            async with asyncio.timeout(_SILENCE_S):
                event = await anext(iterator)
            yield event
    except StopAsyncIteration:
        return
    except ApiError as error:
        if error.status.code != _GONE:
            raise
    finally:
        await iterator.aclose()  # type: ignore[attr-defined]


class Mirror:
    """The three kinds together, and who waits for something to happen to an app."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self.deployments = Reflector(cluster, Deployment, name_of, self._wake)
        self.replica_sets = Reflector(cluster, ReplicaSet, lambda obj: owner_of(obj, "Deployment"), self._wake)
        self.pods = Reflector(cluster, Pod, app_of_pod, self._wake)
        self._reflectors = (self.deployments, self.replica_sets, self.pods)
        self._answers = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(reflector.run()) for reflector in self._reflectors]
        self._tasks.append(asyncio.create_task(self._pulse()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pulse(self) -> None:
        """A watch of a server that has stopped is merely silent: ask, too."""
        while True:
            try:
                await self._cluster.reachable()
            except NornError as error:
                if self._answers:
                    log.warning("cluster_lost", error=error.message)
                self._answers = False
            else:
                self._answers = True
            await asyncio.sleep(_PULSE_S)

    @property
    def current(self) -> bool:
        """The copies can be relied upon."""
        return self._answers and all(reflector.current for reflector in self._reflectors)

    async def deployment(self, app: str) -> Object | None:
        """The app's Kubernetes Deployment: the copy while that is up to date, else the API server's word.

        Raises RuntimeUnavailable.
        """
        if self.current:
            return self.deployments.of(app).get(app)
        return await self.refresh(app)

    async def refresh(self, app: str) -> Object | None:
        """Ask the API server now."""
        obj = await self._cluster.get(Deployment, app)
        if obj is not None:
            self.deployments.put(obj)
        elif (known := self.deployments.of(app).get(app)) is not None:
            self.deployments.drop(known)
        return obj

    async def look(self, deployment: Object) -> None:
        """List anew the ReplicaSets and pods of a Kubernetes Deployment: their watches may have died without a word.

        Raises RuntimeUnavailable, ClusterRefused.
        """
        labels = deployment["spec"]["selector"].get("matchLabels") or {}
        for reflector in (self.replica_sets, self.pods):
            await reflector.look(name_of(deployment), labels)

    def _wake(self, app: str) -> None:
        for event in self._waiting.get(app, ()):
            event.set()

    @contextlib.asynccontextmanager
    async def changes(self, app: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Within: a function that waits for the next change of anything of the app, at most so many seconds."""
        event = asyncio.Event()
        self._waiting[app].add(event)

        async def wait(at_most_s: float) -> None:
            await wait_set(event, at_most_s)
            event.clear()

        try:
            yield wait
        finally:
            self._waiting[app].discard(event)
            if not self._waiting[app]:
                del self._waiting[app]


def app_of_pod(pod: Object) -> str | None:
    """A pod belongs to a ReplicaSet `<app>-<hash>`."""
    replica_set = owner_of(pod, "ReplicaSet")
    return replica_set.rpartition("-")[0] if replica_set else None
