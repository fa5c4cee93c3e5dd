"""Set and forget an app's secrets. Who does it is written down before it is done, and how that went after it.

Values are written down nowhere, nor is what is no name: somebody may have written the value behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable

from norn.domain.audit import Outcome
from norn.domain.secrets import check_name
from norn.errors import NornError
from norn.operations.audit import record
from norn.operations.services import Caller, Services


async def set_secret(services: Services, app_name: str, name: str, value: str, caller: Caller) -> None:
    """Processes get it when they start the next time. Raises UnknownApp, Invalid."""
    app = (await services.source.app(app_name)).name
    check_name(name)
    services.known.learn(app, [value])
    await _noted(services, caller, "secret.set", app, name, services.secrets.set(app, name, value))


async def unset_secret(services: Services, app_name: str, name: str, caller: Caller) -> None:
    """Raises UnknownApp, UnknownSecret, Invalid."""
    app = (await services.source.app(app_name)).name
    check_name(name)
    await _noted(services, caller, "secret.unset", app, name, services.secrets.unset(app, name))


async def _noted(services: Services, caller: Caller, action: str, app: str, name: str, change: Awaitable[None]) -> None:
    await record(services, caller, action, name, Outcome.ACCEPTED, app=app)
    try:
        await change
    except NornError as error:
        reason = services.known.of(app).text(error.message)
        await record(services, caller, action, name, Outcome.FAILED, app=app, reason=reason)
        raise
    await record(services, caller, action, name, Outcome.DONE, app=app)  # what was found out before is old now
