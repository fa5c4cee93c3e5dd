"""What comes now and then, with its pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from norn.waiting import uninterrupted, with_pauses


async def test_pauses_are_told_of_and_no_item_is_lost_by_them() -> None:
    released, closed = asyncio.Event(), asyncio.Event()

    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await released.wait()
            yield 2
        finally:
            closed.set()

    seen: list[int | None] = []
    async with asyncio.timeout(20):
        async for item in with_pauses(items(), 0.001):
            seen.append(item)
            if len(seen) == 4:
                released.set()
    assert seen[:4] == [1, None, None, None]
    assert [item for item in seen if item is not None] == [1, 2]
    assert closed.is_set()


async def test_whoever_stops_in_a_pause_stops_the_source_as_well() -> None:
    waiting, closed = asyncio.Event(), asyncio.Event()

    async def items() -> AsyncGenerator[int, None]:
        try:
            waiting.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.set()

    async def follow() -> None:
        async for _ in with_pauses(items(), 60):
            raise AssertionError

    following = asyncio.create_task(follow())
    async with asyncio.timeout(20):
        await waiting.wait()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert closed.is_set()


async def test_what_must_not_be_interrupted_has_ended_when_its_caller_is_cancelled() -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        begun.set()
        await may_end.wait()
        ended = True

    waiting = asyncio.create_task(uninterrupted(work()))
    await begun.wait()
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=0.01)
    assert not waiting.done()
    may_end.set()
    await asyncio.wait({waiting})
    assert (waiting.cancelled(), ended) == (True, True)
