"""What pods print: the end of it, and more as it comes, over dropped connections and a rollout."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable

from norn.adapters.kubernetes.client import Cluster, translated
from norn.adapters.kubernetes.pods import newest_replica_set, pods_of
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Object, name_of
from norn.adapters.kubernetes.workload import Workload
from norn.errors import ClusterRefused, NornError, RuntimeUnavailable

_STAMP = re.compile(r"\d{4}-\d\d-\d\dT")
_AGAIN_S = 1.0
_LOOK_EVERY_S = 2.0


async def container_lines(
    cluster: Cluster, pod: str, container: str, *, tail: int | None, ended: Callable[[], bool]
) -> AsyncIterator[str]:
    """The lines of one container from its `tail` on, until it has `ended`; none twice, none left out.

    A connection that drops is made again; what was read already is known by the node's time stamp of each line.
    """
    last, began = "", time.monotonic()
    while True:
        over = ended()  # before reading: all that it printed is there by now
        since = None if not last else max(int(time.monotonic() - began) + 2, 1)
        try:
            async with translated():
                lines = cluster.client.log(
                    pod,
                    container=container,
                    follow=not over,
                    since=since,
                    tail_lines=tail if not last else None,
                    timestamps=True,
                    newlines=False,
                )
                async for line in lines:
                    stamp, _, text = line.partition(" ")
                    if _STAMP.match(stamp) and stamp > last:  # else it is the kubelet that speaks, of a log long gone
                        last, began = stamp, time.monotonic()
                        yield text
        except RuntimeUnavailable:
            pass  # dropped, or the container has not started yet
        if over:
            return
        await asyncio.sleep(_AGAIN_S)


async def app_lines(
    cluster: Cluster, mirror: Mirror, app: str, containers: Iterable[str], *, follow: bool, tail: int
) -> AsyncIterator[str]:
    """The lines of all pods of an app, each with its pod's name in front; following goes on across a rollout."""
    names = [key.partition("/")[2] for key in containers if key.startswith("containers/")]
    pods = await _live_pods(mirror, app)
    if not follow:
        share = -(-tail // max(len(pods) * len(names), 1))
        for pod in pods:
            for name in names:
                with contextlib.suppress(ClusterRefused):
                    async for line in container_lines(cluster, name_of(pod), name, tail=share, ended=lambda: True):
                        yield f"{name_of(pod)} {line}"
        return
    queue: asyncio.Queue[str] = asyncio.Queue(1_000)
    tasks: dict[str, asyncio.Task[None]] = {}
    first = True
    try:
        while True:
            pods = await _live_pods(mirror, app) if first else list(mirror.pods.of(app).values())
            part = -(-tail // max(len(pods) * len(names), 1)) if first else None
            for pod in pods:
                for name in names:
                    key = f"{name_of(pod)}/{name}"
                    if key not in tasks:
                        reading = _read(cluster, mirror, app, name_of(pod), name, part, queue)
                        tasks[key] = asyncio.create_task(reading)
            first = False
            looked = time.monotonic()
            while (left := looked + _LOOK_EVERY_S - time.monotonic()) > 0:
                heard: str | None = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        heard = await queue.get()
                if heard is not None:  # outside of the time-out: it is for waiting, not for whoever reads
                    yield heard
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _read(
    cluster: Cluster, mirror: Mirror, app: str, pod: str, container: str, tail: int | None, queue: asyncio.Queue[str]
) -> None:
    def ended() -> bool:
        return pod not in mirror.pods.of(app)

    try:
        async for line in container_lines(cluster, pod, container, tail=tail, ended=ended):
            await queue.put(f"{pod} {line}")
    except NornError as error:
        await queue.put(f"{pod} [{error.message}]")


async def _live_pods(mirror: Mirror, app: str) -> list[Object]:
    obj = await mirror.deployment(app)
    if obj is None:
        return []
    replica_set = newest_replica_set(Workload(obj), mirror.replica_sets.of(app).values())
    pods = pods_of(replica_set, mirror.pods.of(app).values())
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
