"""What works in a thread has ended before whoever asked for it goes on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from norn.threads import go_on, to_its_end


async def test_whoever_is_cancelled_goes_on_only_when_the_thread_has_ended() -> None:
    begun, may_end, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait()
        done.set()

    task = asyncio.create_task(to_its_end(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.wait({task}, timeout=0.05)
    waited = not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (waited, done.is_set()) == (True, True)


async def test_work_that_asks_ends_when_nobody_waits_for_it_any_more() -> None:
    begun = threading.Event()

    def work() -> None:
        while True:
            begun.set()
            go_on()

    task = asyncio.create_task(to_its_end(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_results_and_errors_are_passed_on() -> None:
    assert await to_its_end(max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        await to_its_end(lambda: 1 / 0)


def test_work_that_nobody_can_cancel_may_always_go_on() -> None:
    go_on()
