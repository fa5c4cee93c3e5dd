"""What a step prints: without secrets, kept within bounds, and passed on while the step runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from norn.domain.scrubbing import NOTHING, Scrubber
from norn.errors import DatabaseUnavailable, LeaseLost

log = structlog.get_logger(__name__)

HEAD_CHARS = 32_768
TAIL_CHARS = 131_072
FLUSH_S = 0.2
CHUNK_CHARS = 16_384
_FOLLOWED_CHARS = 1_048_576

Flush = Callable[[str, str], Awaitable[None]]
"""Called with all of the (bounded) output, and with what is new since the last call."""


async def unheard(_kept: str, _new: str) -> None:
    """A Flush for what nobody follows while it is printed."""


class StepOutput:
    """Keeps the beginning and the end of what a step prints, and flushes what is new a few times a second.

    After one mebibyte those who follow are told that the rest is in the record; the record keeps the end.
    """

    def __init__(self, flush: Flush = unheard, kept: str = "", scrubber: Scrubber = NOTHING) -> None:
        self._flush = flush
        self._scrubbed = scrubber.stream()
        self._head = kept[:HEAD_CHARS]
        self._tail = kept[HEAD_CHARS:]
        self._dropped = 0
        self._new: list[str] = []
        self._followed = 0
        self._wake = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def write(self, text: str) -> None:
        """Take text; never blocks and never fails. NUL, which PostgreSQL cannot keep, becomes U+FFFD.

        What may be the beginning of a secret waits for what comes next.
        """
        self._take(self._scrubbed.write(text.replace("\x00", "\ufffd")))

    def end(self) -> None:
        """Nothing more comes: what has waited is taken."""
        self._take(self._scrubbed.rest())

    def _take(self, text: str) -> None:
        if not text:
            return
        room = HEAD_CHARS - len(self._head)
        self._head += text[:room] if room > 0 else ""
        self._tail += text[max(room, 0) :]
        if len(self._tail) > 2 * TAIL_CHARS:
            self._trim()
        if self._followed < _FOLLOWED_CHARS:
            self._followed += len(text)
            self._new.append(text if self._followed < _FOLLOWED_CHARS else "\n[more output is in the record]\n")
        self._wake.set()

    def line(self, text: str) -> None:
        self.write(text if text.endswith("\n") else f"{text}\n")

    def _trim(self) -> None:
        cut = len(self._tail) - TAIL_CHARS
        if cut > 0:
            self._dropped += cut
            self._tail = self._tail[cut:]

    @property
    def text(self) -> str:
        """The record: beginning, a mark where something was left out, end."""
        self._trim()
        mark = f"\n[… {self._dropped} characters left out …]\n" if self._dropped else ""
        return self._head + mark + self._tail

    async def __aenter__(self) -> StepOutput:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        async with self._flushing:  # what it has taken is passed on before it is ended
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except LeaseLost:
                return  # the step's own next write says so
            except DatabaseUnavailable as error:
                log.warning("output_not_followed", error=error.message)  # the record gets it with the next flush

    def rest(self) -> str:
        """What is new, for whoever passes it on himself, with the end of the step."""
        self._wake.clear()
        new, self._new = "".join(self._new), []
        return new

    async def flush(self, *, least: int = 1) -> None:
        """Pass on what is new, now, where it is at least so many characters."""
        async with self._flushing:
            if sum(map(len, self._new)) < least:
                return
            new = self.rest()
            for start in range(0, len(new), CHUNK_CHARS):
                await self._flush(self.text, new[start : start + CHUNK_CHARS])
