"""Events for many at once: read from the database once for a server, and handed on in memory.

Whoever follows has a place of its own, and takes what is kept here from there on; whoever has fallen behind what is
kept, or comes with an old Last-Event-ID, reads the database until it has caught up. So nobody misses anything, nobody
waits for somebody slow, and what is kept is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from norn.domain.store import Event, Store
from norn.errors import DatabaseUnavailable
from norn.operations.events import ANYTHING, Changes
from norn.waiting import wait_set

POLL_S = 2.0
PAGE = 200
KEPT_CHARS = 4_000_000
LEAST_PAUSE_S = 0.1
"""Between two readings: what happens in quick succession is handed on together, the first of it at once."""


@dataclass(frozen=True, slots=True)
class Rendered:
    event: Event
    text: str
    """As it is sent; made once for all who follow."""


class Feed:
    """One for a server. It reads for as long as somebody follows."""

    def __init__(self, store: Store, changes: Changes, render: Callable[[Event], str]) -> None:
        self._store = store
        self._changes = changes
        self._render = render
        self._kept: deque[Rendered] = deque()
        self._chars = 0
        self._low = self._newest = 0
        """All events above the first number and up to the second one are kept."""
        self._ready = False
        self._followers = 0
        self._reader: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()

    @property
    def reads(self) -> bool:
        """Whether it is at work for those who follow."""
        return self._ready

    async def follow(
        self,
        after: int,
        *,
        app: str | None = None,
        operation: str | None = None,
        sees: Callable[[str], bool] = lambda _app: True,
    ) -> AsyncGenerator[Sequence[Rendered], None]:
        """All events after a number, in the order of commits, for ever, as many at a time as there are.

        Of those apps that whoever follows `sees`. Nothing at all after each pause in which there was nothing for them,
        however much there was for others. A database that is away for a while delays the events; none is lost.
        """
        loop = asyncio.get_running_loop()
        said_at = loop.time()
        async with self._followed():
            while True:
                arrived = self._arrived
                behind = not self._ready or after < self._low
                if behind:
                    batch, after, caught_up = await self._from_store(after, app, operation)
                else:
                    batch, caught_up = self._from_memory(after, app, operation), True
                    after = max(after, self._newest)  # whoever has just come may know of newer ones than are read here
                batch = [one for one in batch if sees(one.event.app)]
                left_s = said_at + POLL_S - loop.time()
                if not batch and left_s > 0 and (not caught_up or await wait_set(arrived, left_s)):
                    continue
                yield batch
                said_at = loop.time()

    async def _from_store(
        self, after: int, app: str | None, operation: str | None
    ) -> tuple[Sequence[Rendered], int, bool]:
        """A page, where to go on, and whether there is nothing more by now."""
        read_until = self._newest if self._ready else 0  # all up to there is committed, and in what is read now
        try:
            events = await self._store.events_after(after, app=app, operation=operation, limit=PAGE)
        except DatabaseUnavailable:
            return (), after, True
        if events:
            after = events[-1].seq
        whole = len(events) < PAGE
        if whole:
            after = max(after, read_until)
        return [Rendered(event, self._render(event)) for event in events], after, whole and not self._ready

    def _from_memory(self, after: int, app: str | None, operation: str | None) -> Sequence[Rendered]:
        found: list[Rendered] = []
        for kept in reversed(self._kept):
            if kept.event.seq <= after:
                break
            if app in (None, kept.event.app) and operation in (None, kept.event.operation_id):
                found.append(kept)
        return found[::-1]

    @asynccontextmanager
    async def _followed(self) -> AsyncIterator[None]:
        self._followers += 1
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        try:
            yield
        finally:
            self._followers -= 1
            if self._followers == 0 and self._reader is not None:
                self._reader.cancel()
                self._reader, self._ready = None, False
                self._kept.clear()
                self._chars = 0

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        with self._changes.watching(ANYTHING) as changed:
            while True:
                read_at, events = loop.time(), await self._news()
                for event in events:
                    self._keep(event)
                if events:
                    self._tell()
                if len(events) < PAGE:
                    await changed(POLL_S)
                    await asyncio.sleep(max(0.0, read_at + LEAST_PAUSE_S - loop.time()))

    async def _news(self) -> Sequence[Event]:
        try:
            if not self._ready:
                _, newest = await self._store.kept_events()
                self._low = self._newest = newest
                self._ready = True
                self._tell()
            return await self._store.events_after(self._newest, limit=PAGE)
        except DatabaseUnavailable:
            return ()

    def _keep(self, event: Event) -> None:
        kept = Rendered(event, self._render(event))
        self._kept.append(kept)
        self._newest = event.seq
        self._chars += len(kept.text)
        while self._chars > KEPT_CHARS:
            oldest = self._kept.popleft()
            self._chars -= len(oldest.text)
            self._low = oldest.event.seq

    def _tell(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()
