"""What pods print: the end of it, and more as it comes, over dropped connections and a rollout."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from norn.adapters.kubernetes.client import Cluster, translated
from norn.adapters.kubernetes.pods import newest_replica_set, pods_of
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Object, name_of
from norn.adapters.kubernetes.workload import Workload
from norn.errors import ClusterRefused, NornError, RuntimeUnavailable
from norn.waiting import with_pauses

_STAMP = re.compile(r"\d{4}-\d\d-\d\dT")
_AGAIN_S = 1.0
_LOOK_EVERY_S = 2.0
_SILENCE_S = 20.0
"""After which a stream is asked for anew: a quiet app and a connection that has died without a word look the same."""


@dataclass(slots=True)
class Position:
    """How far the log of one container has been read."""

    last: str = ""
    """The node's time stamp of the last line; none is shown twice."""
    at: float = 0.0
    """When that was, by this machine's monotonic clock."""
    said: str = ""
    """What the API server has refused with, shown once."""


async def container_lines(
    cluster: Cluster, pod: str, container: str, read: Position, *, tail: int | None, ended: Callable[[], bool]
) -> AsyncIterator[str]:
    """The lines of one container from its `tail` on, until it has `ended`; none twice, none left out.

    A connection that drops, falls silent or is refused is made again.
    """
    while True:
        over = ended()  # before reading: all that it printed is there by now
        try:
            async with translated():
                lines = cluster.client.log(
                    pod,
                    container=container,
                    follow=not over,
                    since=max(int(time.monotonic() - read.at) + 2, 1) if read.last else None,
                    tail_lines=None if read.last else tail,
                    timestamps=True,
                    newlines=False,
                )
                async for line in _until_silent(cast("AsyncGenerator[str, None]", lines)):
                    stamp, _, text = line.partition(" ")
                    if _STAMP.match(stamp) and stamp > read.last:  # else the kubelet speaks, of a log long gone
                        read.last, read.at = stamp, time.monotonic()
                        yield text
        except RuntimeUnavailable:
            pass  # dropped, or the container has not started yet
        except ClusterRefused as refused:
            if over:
                raise
            if refused.message != read.said:
                read.said = refused.message
                yield f"[{refused.message}]"
        if over:
            return
        await asyncio.sleep(_AGAIN_S)


async def _until_silent(lines: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    """The lines, until there are no more or none has come for a while."""
    async with aclosing(with_pauses(lines, _SILENCE_S)) as heard:
        async for line in heard:
            if line is None:
                return
            yield line


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
                    async for line in container_lines(
                        cluster, name_of(pod), name, Position(), tail=share, ended=lambda: True
                    ):
                        yield f"{name_of(pod)} {line}"
        return
    queue: asyncio.Queue[str] = asyncio.Queue(1_000)
    read: dict[str, Position] = {}
    tasks: dict[str, asyncio.Task[None]] = {}
    heard = asyncio.ensure_future(queue.get())
    first = True
    try:
        while True:
            pods = await _live_pods(mirror, app) if first else list(mirror.pods.of(app).values())
            part = -(-tail // max(len(pods) * len(names), 1)) if first else None
            for pod in pods:
                for name in names:
                    key = f"{name_of(pod)}/{name}"
                    if key not in tasks or tasks[key].done():
                        progress = read.setdefault(key, Position())
                        reading = _read(cluster, mirror, app, name_of(pod), name, progress, part, queue)
                        tasks[key] = asyncio.create_task(reading)
            first = False
            looked = time.monotonic()
            while (left := looked + _LOOK_EVERY_S - time.monotonic()) > 0:
                done, _ = await asyncio.wait({heard}, timeout=left)
                if done:
                    yield heard.result()
                    heard = asyncio.ensure_future(queue.get())
    finally:
        for task in (heard, *tasks.values()):
            task.cancel()
        await asyncio.gather(heard, *tasks.values(), return_exceptions=True)


async def _read(
    cluster: Cluster,
    mirror: Mirror,
    app: str,
    pod: str,
    container: str,
    progress: Position,
    tail: int | None,
    queue: asyncio.Queue[str],
) -> None:
    def ended() -> bool:
        return pod not in mirror.pods.of(app)

    try:
        async for line in container_lines(cluster, pod, container, progress, tail=tail, ended=ended):
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
