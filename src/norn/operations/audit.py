"""Who did what: reading it, and writing down what no transaction of an operation does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from norn.domain.access import Grant, Permission
from norn.domain.audit import OTHERS, WINDOW_S, Entry, Outcome, Recorded, Tally, Who
from norn.domain.ports.audit import Audit
from norn.errors import DatabaseUnavailable, NotAllowed
from norn.operations.services import Caller, Services

log = structlog.get_logger(__name__)


def _visible(grant: Grant, app: str | None) -> Collection[str] | None:
    """The apps whose entries may be shown; None: all, and what concerns no app. Raises NotAllowed."""
    if app is None:
        return grant.apps
    why = grant.refusal(Permission.VIEW, app)
    if why:
        raise NotAllowed(f"{why}.")
    return (app,)


async def entries(
    services: Services, grant: Grant, app: str | None = None, before: int | None = None, limit: int = 50
) -> Sequence[Recorded]:
    """The newest first, below the number `before`; of an app, or of all that the grant sees. Raises NotAllowed."""
    return await services.store.audit.entries(_visible(grant, app), before, limit)


def everything(services: Services, grant: Grant, app: str | None = None) -> AsyncIterator[Recorded]:
    """All of it, the oldest first, as `entries`."""
    return services.store.audit.all(_visible(grant, app))


# ---- writing -----------------------------------------------------------------------------------------------------


async def record(
    services: Services,
    caller: Caller,
    action: str,
    subject: str,
    outcome: Outcome = Outcome.DONE,
    *,
    app: str | None = None,
    reason: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write down what was done. Raises DatabaseUnavailable: what cannot be written down is not to be done."""
    await services.store.audit.record(Entry(caller.who, action, subject, outcome, app, reason, before, after))


@dataclass
class Attempts:
    """What is tried in vain: sign-ins, tokens nobody knows, what a role does not permit.

    One entry a minute for each address, and for each thing that one token may not do, with how often, and no more than
    `norn.domain.audit.MOST_TALLIED` of them: whoever is let in by nobody cannot fill the disk.
    """

    audit: Audit
    _tallies: Mapping[bool, Tally] = field(default_factory=lambda: {False: Tally(), True: Tally()})
    """Of strangers, and of those with a token."""
    _last: dict[tuple[bool, str], Entry] = field(default_factory=dict)

    async def note(self, who: Who, action: str, subject: str, reason: str, *, app: str | None = None) -> None:
        """Write it down, or count it. Never fails."""
        entry = Entry(who, action, subject, Outcome.REFUSED, app, reason)
        known = bool(who.token)  # each kind has its own bound: neither hides the other
        what = f" {subject}" if known else ""
        key, now = self._tallies[known].note(
            f"{who.address} {who.token} {action}{what}", asyncio.get_running_loop().time()
        )
        self._last[known, key] = entry
        if now:
            await self._write(known, key, 1)

    async def run(self) -> None:
        """For ever: write down what was counted."""
        while True:
            await asyncio.sleep(WINDOW_S / 4)
            await self.write_due(asyncio.get_running_loop().time())

    async def write_due(self, now: float) -> None:
        """Write down what was counted until now, where its minute is over."""
        for known, tally in self._tallies.items():
            for key, count in tally.due(now).items():
                await self._write(known, key, count)
        self._last = {
            (known, key): entry for (known, key), entry in self._last.items() if self._tallies[known].knows(key)
        }

    async def _write(self, known: bool, key: str, count: int) -> None:
        last = self._last[known, key]
        who = Who(OTHERS, "", OTHERS) if key == OTHERS else last.who
        entry = Entry(who, last.action, last.subject, last.outcome, last.app, last.reason, None, {"attempts": count})
        try:
            await self.audit.record(entry)
        except DatabaseUnavailable as error:
            log.warning("audit_not_written", action=last.action, address=who.address, error=error.message)
