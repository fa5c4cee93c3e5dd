"""The right to work on an operation: how it is got, kept and lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from norn.domain.operations import Operation


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on an operation, as long as nobody else has a higher fence."""

    operation: Operation
    fence: int
    """Higher than that of every earlier claim, of this operation and of all others of the app."""
    state: dict[str, Any]
    undoing: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """An operation that its acceptor works on itself, at once: what is done by then, and which step comes next."""

    server_id: str
    lease_s: float
    state: Mapping[str, Any]
    done: Sequence[tuple[str, str]]
    """Name and output of each step that is done."""
    next: str


class Worker(Protocol):
    """The engine of this server, as those see it who accept requests."""

    server_id: str
    lease_s: float

    def ready(self) -> bool:
        """Whether it could work on one more operation at once."""
        ...

    def take(self, claim: Claim) -> None:
        """Work on what was just accepted."""
        ...


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat: what is still ours, and which of it is to be cancelled."""

    held: frozenset[str]
    cancelled: frozenset[str]
    others: int = 0
    """Servers besides this one that were heard of in the last minute."""
