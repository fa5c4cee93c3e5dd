"""What an operation is made of: steps that can be run again, and the run that they are given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from norn.domain.claims import Claim
from norn.domain.operations import Operation, OperationStatus
from norn.domain.ports import Turn
from norn.domain.scrubbing import NOTHING
from norn.domain.store import Fenced, Store
from norn.operations.output import StepOutput


class Run:
    """What a step gets: its operation, what earlier steps left, a place to print to, and a way to write."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self.state: dict[str, Any] = claim.state
        """What the steps of this operation know; kept with each finished step, and by `checkpoint`."""
        self.output = StepOutput()
        self.scrubber = NOTHING
        """Takes the secrets out of what is said of this operation."""
        self.cancellable = False
        """It can still be cancelled: it is neither ending nor being undone."""
        self.cancelled = False
        """Somebody has cancelled it; else a step that is interrupted goes on elsewhere, or after a restart."""
        self.ending = False
        """Its end is being written, or has been: a heartbeat that finds it gone comes too late."""
        self._leaving: list[Callable[[], Awaitable[None]]] = []

    def on_leave(self, action: Callable[[], Awaitable[None]]) -> None:
        """Do that once this server is at work on the operation no longer, for whatever reason."""
        self._leaving.append(action)

    async def leave(self) -> None:
        while self._leaving:
            await self._leaving.pop()()

    @property
    def operation(self) -> Operation:
        return self._claim.operation

    @property
    def id(self) -> str:
        return self._claim.operation.id

    @property
    def app(self) -> str:
        return self._claim.operation.app

    @property
    def turn(self) -> Turn:
        """What a runtime is told with each change."""
        return Turn(self.id, self._claim.fence, self.confirm)

    async def confirm(self) -> None:
        """Raises LeaseLost once another server has taken over."""
        async with self.transaction():
            pass

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Fenced]:
        """Write, as long as the claim holds. Raises LeaseLost once another server has taken over."""
        async with self._store.fenced(self._claim) as transaction:
            yield transaction

    async def checkpoint(self, **facts: Any) -> None:
        """Remember facts at once, so that they are there after a crash within the step."""
        self.state.update(facts)
        async with self.transaction() as transaction:
            await transaction.save(self.state)


Action = Callable[[Run], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    run: Action
    undo: Action | None = None
    """None: there is nothing to undo, or it cannot be undone (the step's own documentation says which)."""
    tidy: Action | None = None
    """In place of `undo`, where what the step did stays: ends and removes what is left of its work."""
    begins: Callable[[Fenced], Awaitable[None]] | None = None
    """What else becomes true, in the same transaction, when the step begins."""


@dataclass(frozen=True, slots=True)
class Outcome:
    status: OperationStatus
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Procedure:
    """An operation's steps, and what becomes true, in the same transaction, when it ends."""

    steps: Sequence[Step]
    ends: Callable[[Run, Fenced, Outcome], Awaitable[None]] | None = None
    whole: bool = False
    """Half an undo would do harm: one that fails is tried again for a while, and those before it wait for it."""


Procedures = Callable[[Operation], Procedure]
"""What an operation is made of, by its kind and what was asked for; the same for as long as the operation lives."""
