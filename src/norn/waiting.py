"""Waiting for something to happen, but not for ever."""

from __future__ import annotations

import asyncio
import contextlib


async def wait_set(event: asyncio.Event, at_most_s: float) -> bool:
    """Whether the event was set within so many seconds; returns as soon as it is.

    Not asyncio.wait_for, which before Python 3.12 loses a cancellation that comes with the event (bpo-37658).
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()
    return event.is_set()
