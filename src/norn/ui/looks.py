"""Looks at apps that many pages want at once: each is taken once, and a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

AT_ONCE = 4
"""So few look at the same time: a rollback finds a connection free, whatever pages are open."""


class Looks:
    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    async def at(self, key: str, look: Callable[[], Awaitable[Any]], within_s: float) -> Any:
        """What is seen; None where that takes longer than so many seconds.

        It goes on all the same: whoever asks again for the same key gets what it finds.
        """
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._in_turn(look))
            task.add_done_callback(lambda ended: self._end(key, ended))
        done, _ = await asyncio.wait({task}, timeout=within_s)
        return task.result() if done else None

    def _end(self, key: str, ended: asyncio.Task[Any]) -> None:
        del self._under_way[key]
        if not ended.cancelled():
            ended.exception()  # those who wait raise it; where nobody does any more, it is no defect

    async def _in_turn(self, look: Callable[[], Awaitable[Any]]) -> Any:
        async with self._turn:
            return await look()
