"""The outbox of notifications, and the way out of it.

A notification gets into the outbox with the end of its operation, in the same transaction (`Fenced.end`). What is here
takes it out again; whatever a crash interrupts is done once more, so that a receiver may hear of it twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from norn.domain.notifications import Answer, Judgement


@dataclass(frozen=True, slots=True)
class Unaddressed:
    """A notification whose receivers are not known yet."""

    id: str
    app: str
    event: str
    attempts: int
    """Before this one."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The right to send a notification to one receiver, for a few seconds."""

    notification_id: str
    url: str
    attempt: int
    """From 1."""
    at: datetime
    """By the database's clock."""
    payload: Mapping[str, Any]


class Outbox(Protocol):
    async def unaddressed(self, limit: int) -> Sequence[Unaddressed]:
        """Those whose receivers can be looked for now. Two servers may get the same: addressing is no harm twice."""
        ...

    async def address(self, id_: str, urls: Sequence[str]) -> None:
        """These are its receivers; those that have it already are left alone."""
        ...

    async def address_later(self, id_: str, urls: Sequence[str], pause_s: float | None, why: str) -> None:
        """These are receivers, and others could not be found out: look again after a pause; None: not any more."""
        ...

    async def claim(self, claim_s: float, limit: int) -> Sequence[Delivery]:
        """Deliveries that are due, and nobody else's for so many seconds."""
        ...

    async def settle(self, delivery: Delivery, judgement: Judgement) -> None: ...

    async def next_due_s(self) -> float | None:
        """Seconds until something is due; None where nothing waits."""
        ...

    async def recent(self, limit: int, apps: Collection[str] | None = None) -> Sequence[Mapping[str, Any]]:
        """Notifications with their `deliveries`, as rows; those first of which something is not delivered. Of these
        apps alone; None: of all.
        """
        ...


class Webhooks(Protocol):
    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One POST, for five seconds at most; redirects are answers, too. Never raises."""
        ...
