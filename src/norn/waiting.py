"""Waiting for something to happen, but not for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def wait_set(event: asyncio.Event, at_most_s: float) -> bool:
    """Whether the event was set within so many seconds; returns as soon as it is.

    Not asyncio.wait_for, which before Python 3.12 loses a cancellation that comes with the event (bpo-37658).
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()
    return event.is_set()


async def uninterrupted(work: Coroutine[Any, Any, _T], unwanted: Callable[[], None] = lambda: None) -> _T:
    """The work, to its end, also where whoever waits for it is cancelled meanwhile; `unwanted` is called then."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        unwanted()
        await asyncio.gather(asyncio.shield(task), return_exceptions=True)
        raise


async def with_pauses(items: AsyncGenerator[_T, None], pause_s: float) -> AsyncGenerator[_T | None, None]:
    """The items as they come, and None whenever none has come for so many seconds.

    Not a time-out, which before Python 3.13 cancels what comes next when an item comes in the same moment.
    """
    coming: asyncio.Task[_T] | None = None
    try:
        while True:
            coming = asyncio.create_task(_next(items))
            while not (await asyncio.wait({coming}, timeout=pause_s))[0]:
                yield None
            yield coming.result()
    except StopAsyncIteration:
        return
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await items.aclose()


async def _next(items: AsyncIterator[_T]) -> _T:
    return await anext(items)
