"""Work in threads that somebody tidies up after: nothing is written any more once its caller goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from threading import Event
from typing import ParamSpec, TypeVar

from norn.waiting import uninterrupted

P = ParamSpec("P")
T = TypeVar("T")

_unwanted: ContextVar[Event | None] = ContextVar("unwanted", default=None)


class GivenUp(Exception):
    """Nobody waits for this work any more."""


async def to_its_end(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread, which leaves its thread at work where the caller is cancelled: this waits until it has
    ended. Work that takes long is to ask `go_on` meanwhile.
    """
    unwanted = Event()

    def within() -> T:
        _unwanted.set(unwanted)  # in this thread's own copy of the context
        return work(*args, **kwargs)

    return await uninterrupted(asyncio.to_thread(within), unwanted.set)


def go_on() -> None:
    """To be called between two pieces of work. Raises GivenUp where `to_its_end` has been cancelled."""
    unwanted = _unwanted.get()
    if unwanted is not None and unwanted.is_set():
        raise GivenUp
