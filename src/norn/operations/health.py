"""Asks how the apps are doing, and keeps the answers for a day."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import datetime

import structlog

from norn.domain.ports import Health
from norn.errors import DatabaseUnavailable, NornError
from norn.operations.services import Services

log = structlog.get_logger(__name__)

EVERY_S = 10.0
"""How often an app is asked that nothing is being done with."""
_OLD_S = 2 * EVERY_S
_AT_ONCE = 8


async def health_of(services: Services, app: str) -> Health | None:
    """How what is live does now; None where nothing is. Raises RuntimeUnavailable."""
    health = await services.runtime.health(app)
    return replace(health, message=services.known.of(app).text(health.message, cut=True)) if health else None


async def kept_health(services: Services, app: str, since: datetime) -> Health | None:
    """What the last check said, where it is of what is live since then and not old; else it is asked.

    For who looks at many apps, or again and again: each answer of `health_of` is a request to each replica.
    """
    newest = await services.store.health_checks(app, _OLD_S, 1)
    if newest and newest[0].at > since:
        return newest[0].health
    return await health_of(services, app)


async def check_health(services: Services, app: str) -> Health | None:
    """How what is live does now, written down; None where nothing is. Raises RuntimeUnavailable."""
    health = await health_of(services, app)
    if health is not None:
        with contextlib.suppress(DatabaseUnavailable):  # whoever asked wants the answer, not the record of it
            await services.store.note_health(app, health)
    return health


async def check_all(services: Services) -> None:
    """Ask each app that nobody, on whatever server, has asked for a while."""
    asked = await services.store.health_asked(EVERY_S * 0.9)
    room = asyncio.Semaphore(_AT_ONCE)

    async def check(app: str) -> None:
        async with room:
            try:
                await check_health(services, app)
            except NornError as error:  # a runtime that is away says nothing of the app
                log.debug("health_unknown", app=app, error=error.message)

    await asyncio.gather(*(check(app.name) for app in await services.source.apps() if app.name not in asked))
