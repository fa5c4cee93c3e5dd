"""Wakes those who wait for something to change; what has changed they read from the store."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from norn.domain.operations import Operation
from norn.domain.store import Store
from norn.errors import UnknownOperation
from norn.waiting import wait_set

ANYTHING = ""
_POLL_S = 2.0
_SOON_S = 0.2


class Changes:
    """One for a server: whoever follows events or waits for an operation does so here, with a poll behind it."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    def wake(self, operation_id: str = ANYTHING) -> None:
        """There are new events; or: an operation has passed a point that is waited for, or has ended."""
        for event in self._waiting.get(operation_id, ()):
            event.set()

    async def wait(self, timeout_s: float, operation_id: str = ANYTHING) -> None:
        """Until it is woken, or the time is over."""
        with self.watching(operation_id) as changed:
            await changed(timeout_s)

    @contextmanager
    def watching(self, operation_id: str) -> Iterator[Callable[[float], Awaitable[None]]]:
        """Within: a function that waits until it is woken, or has been since it was last called, so many seconds."""
        event = asyncio.Event()
        self._waiting[operation_id].add(event)

        async def wait(timeout_s: float) -> None:
            await wait_set(event, timeout_s)
            event.clear()

        try:
            yield wait
        finally:
            self._waiting[operation_id].discard(event)
            if not self._waiting[operation_id]:
                del self._waiting[operation_id]


async def wait_for(
    store: Store, changes: Changes, operation_id: str, until: Callable[[Operation], bool], timeout_s: float
) -> Operation:
    """The operation, once `until` holds for it, it has ended, or the time is over.

    It has been accepted a moment ago: looking at once would find nothing, and be in its way.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    with changes.watching(operation_id) as changed:
        await changed(min(timeout_s, _SOON_S))
        while True:
            operation = await store.operation(operation_id)
            if operation is None:
                raise UnknownOperation(f"There is no operation {operation_id!r}.")
            left = end - loop.time()
            if operation.status.ended or until(operation) or left <= 0:
                return operation
            await changed(min(left, _POLL_S))
