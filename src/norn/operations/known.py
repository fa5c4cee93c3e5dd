"""What must not be seen: the values of secrets that this server knows, each app's and Norn's own.

Values are learnt as they are set here, before each step that may print them, and every minute besides; those that
were replaced stay known for as long as the server runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from norn.domain.operations import Operation, OperationKind
from norn.domain.scrubbing import Scrubber
from norn.errors import InfraspecInvalid, NornError, NotAllowed, NotFound

if TYPE_CHECKING:
    from norn.operations.services import Services

log = structlog.get_logger(__name__)

RENEW_S = 60.0
_HURRIED_S = 0.5
"""So long a step of a rollback waits for values that nothing is known of yet."""
_UNREADABLE_HINT = (
    "Those set before this server started, or on another one, are not scrubbed from what it prints: see the optional "
    "role norn-read-secrets in deploy/kubernetes/rbac.yaml."
)


class KnownSecrets:
    def __init__(self, own: Iterable[str] = ()) -> None:
        """`own`: Norn's, which no app's output may show either."""
        self._own = Scrubber(own)
        self._apps: dict[str, Scrubber] = {}
        self._whole: set[str] = set()
        self._unreadable: set[str] = set()
        self._all: Scrubber | None = self._own

    def learn(self, app: str, values: Iterable[str], *, whole: bool = False) -> None:
        """These are an app's, too. `whole`: there are no others."""
        if whole:
            self._whole.add(app)
        known = self.of(app)
        added = known.values | frozenset(values)
        if added != known.values or app not in self._apps:
            self._apps[app] = Scrubber(added)
            self._all = None

    def learn_own(self, values: Iterable[str]) -> None:
        """These are Norn's own, too."""
        added = self._own.values | frozenset(values)
        if added != self._own.values:
            self._own = Scrubber(added)
            self._apps = {app: Scrubber(known.values | added) for app, known in self._apps.items()}
            self._all = None

    def of(self, app: str | None) -> Scrubber:
        """What must not be seen of an app, and of Norn itself."""
        return self._apps.get(app or "", self._own)

    def knows(self, app: str) -> bool:
        """Whether all of an app's have been read."""
        return app in self._whole

    def unreadable(self, app: str) -> bool:
        """An app's are not to be read; whether that is new."""
        new = app not in self._unreadable
        self._unreadable.add(app)
        return new

    def error(self, app: str, error: NornError) -> NornError:
        """The same error without what must not be seen of an app: for what is shown, or written down."""
        scrubber, shown = self.of(app), copy.copy(error)
        shown.message, shown.hint = scrubber.text(error.message), scrubber.text(error.hint)
        shown.facts = scrubber.json(error.facts)
        return shown

    @property
    def everything(self) -> Scrubber:
        """Of all apps: for logs."""
        if self._all is None:
            self._all = Scrubber(self._own.values.union(*(scrubber.values for scrubber in self._apps.values())))
        return self._all


async def renew(services: Services, app: str) -> None:
    """Learn an app's values as they are now, as far as they can be read. Never fails."""
    values: list[str] = []
    whole = True
    for read in (_password, _database_url, _secrets):
        try:
            values += await read(services, app)
        except NotAllowed:  # in a cluster: what is set through this server is known all the same
            if services.known.unreadable(app):
                log.warning("secrets_not_readable", app=app, hint=_UNREADABLE_HINT)
        except (NornError, OSError, ValueError) as error:  # what the others say is known all the same
            log.warning("secrets_not_read", app=app, error=str(error))
            whole = False
    services.known.learn(app, values, whole=whole)


async def _password(services: Services, app: str) -> list[str]:
    return [await services.databases.password(app)]


async def _database_url(services: Services, app: str) -> list[str]:
    try:
        spec = await services.source.infraspec(await services.source.app(app))
    except (NotFound, InfraspecInvalid):  # without an infraspec there is no URL in it
        return []
    return [spec.postgres.url] if spec.postgres is not None and spec.postgres.url is not None else []


async def _secrets(services: Services, app: str) -> list[str]:
    return list((await services.secrets.values(app)).values())


async def renew_all(services: Services) -> None:
    """As `renew`, for every app that there is."""
    for app in await services.source.apps():
        await renew(services, app.name)


async def scrubber_of(services: Services, operation: Operation) -> Scrubber:
    """For what a step is about to print. A rollback builds and runs nothing that could print more: it hardly waits."""
    if operation.kind is not OperationKind.ROLLBACK:
        await renew(services, operation.app)
    elif not services.known.knows(operation.app):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HURRIED_S):
                await renew(services, operation.app)
    return services.known.of(operation.app)
