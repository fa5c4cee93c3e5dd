"""The verdict of each app's next rollback, kept up to date, so that nobody has to wait for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog

from norn.domain.targets import NoTarget, Question
from norn.domain.verdict import Finding, Level
from norn.errors import NornError
from norn.operations.assessment import assess
from norn.operations.services import Services
from norn.operations.versions import find_target, live_version

log = structlog.get_logger(__name__)

FRESH_S = 60.0
"""What was found so long ago still counts, unless Norn itself has changed something since."""
_RENEW_S = 40.0
_UNDER_WAY_S = 2.0
"""The same while a deploy or a restore is at work somewhere, which may be on the same database."""

_Key = tuple[str, str, str | None, str | None, bool, bool, str]


@dataclass(frozen=True, slots=True)
class _Known:
    findings: tuple[Finding, ...]
    at: float

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.at

    @property
    def wants_another_look(self) -> bool:
        """Somebody may have helped meanwhile, or what did not answer may do so now."""
        return any(finding.level is Level.UNSAFE or finding.code == "not_checked" for finding in self.findings)


class KeptReadiness:
    """What is known of each app, in this server's memory."""

    def __init__(self) -> None:
        self._known: dict[_Key, _Known] = {}
        self._renewed: dict[str, tuple[str, str, float]] = {}
        """When each app was looked at last, and what was true of it then."""
        self._looking: dict[_Key, asyncio.Future[tuple[Finding, ...]]] = {}

    async def findings(
        self, services: Services, question: Question, change: tuple[str, bool] | None = None
    ) -> tuple[Finding, ...]:
        """What is known already, or what can be found out in time; `change` is asked for where it is not given."""
        key, under_way = _key(question, change or await services.store.newest_change())
        known = self._known.get(key)
        if known is not None:
            at_most = _UNDER_WAY_S if under_way or known.wants_another_look else FRESH_S
            if known.age_s < at_most:
                return known.findings
        looking = self._looking.get(key)
        if looking is None:  # whoever asks meanwhile waits for the same
            looking = self._looking[key] = asyncio.ensure_future(assess(services, question))
            looking.add_done_callback(lambda _: self._looking.pop(key, None))
        found = await asyncio.shield(looking)
        self._known[key] = _Known(found, time.monotonic())
        return found

    async def keep(self, services: Services, question: Question, findings: tuple[Finding, ...]) -> None:
        """What was found out elsewhere."""
        key, _ = _key(question, await services.store.newest_change())
        self._known[key] = _Known(findings, time.monotonic())

    async def renew(self, services: Services) -> None:
        """Find out anew what is old, app by app; what does not answer is for the next time."""
        for key in [key for key, known in self._known.items() if known.age_s > FRESH_S]:
            del self._known[key]
        newest, _ = await services.store.newest_change()
        for app in await services.source.apps():
            try:
                await self._renew(services, app.name, newest)
            except NornError as error:  # whoever asks is told why
                log.debug("readiness_failed", app=app.name, error=error.message)
            except Exception:  # one app's defect is no reason to leave the others alone
                log.exception("readiness_failed", app=app.name)

    async def _renew(self, services: Services, app: str, newest: str) -> None:
        runs = await services.runtime.live(app)
        if runs is None:
            return
        now, last = time.monotonic(), self._renewed.get(app)
        if last is not None and last[:2] == (newest, runs.digest) and now - last[2] < _RENEW_S:
            return  # nothing has changed that Norn knows of: no need to look at history and registry again
        self._renewed[app] = (newest, runs.digest, now)
        live = await live_version(services, app)
        choice = await find_target(services, app, live)
        if not isinstance(choice, NoTarget):
            question = Question(app, choice.deployment, live)
            change = await services.store.newest_change()
            self._known.pop(_key(question, change)[0], None)
            await self.findings(services, question, change)


async def findings_of(
    services: Services, question: Question, change: tuple[str, bool] | None = None
) -> tuple[Finding, ...]:
    """What is known of a change, or can be found out in time. `change`: `Store.newest_change`, where it is known."""
    if services.readiness is not None:
        return await services.readiness.findings(services, question, change)
    return await assess(services, question)


def _key(question: Question, change: tuple[str, bool]) -> tuple[_Key, bool]:
    newest, under_way = change
    live = question.live
    return (
        question.app,
        question.target.id,
        live.deployment.id if live is not None and live.deployment is not None else None,
        live.digest if live is not None else None,
        question.template,
        question.with_data,
        newest,
    ), under_way
