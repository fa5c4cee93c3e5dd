"""What operations are given to work with, and who asks."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from norn.domain.access import Grant
from norn.domain.audit import Asked, Entry, Outcome, Who
from norn.domain.claims import Worker
from norn.domain.operations import Accept, Operation, OperationKind, Refuse, Remembered, admit
from norn.domain.ports import (
    Databases,
    Dependencies,
    Images,
    Restores,
    Runtime,
    Schemas,
    Secrets,
    Snapshots,
    Source,
    Verification,
)
from norn.domain.store import Accepting, AppState, Store
from norn.domain.targets import Question
from norn.domain.verdict import Finding, Level
from norn.errors import Busy, DatabaseUnavailable, IdempotencyKeyReused, NornError
from norn.operations.known import KnownSecrets

log = structlog.get_logger(__name__)

_REFUSALS = (403, 409, 507)
"""HTTP statuses of errors that say no to what was asked for, and not that it was asked wrongly."""
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """26 characters that sort by time: 48 bits of milliseconds, 80 random ones (the layout of a ULID)."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


class Readiness(Protocol):
    """What `norn.operations.readiness` knows already."""

    async def findings(
        self, services: Services, question: Question, change: tuple[str, bool] | None = None
    ) -> tuple[Finding, ...]:
        """What is known, or can be found out in time."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    store: Store
    source: Source
    images: Images
    runtime: Runtime
    databases: Databases
    snapshots: Snapshots
    restores: Restores
    verification: Verification
    secrets: Secrets
    schemas: Schemas
    dependencies: Dependencies
    work_dir: Path
    """Where operations keep files while they run: one directory each."""
    readiness: Readiness | None = None
    """The verdicts that this server keeps up to date, where it does."""
    judged: Callable[[Level], None] = lambda _level: None
    """Told of each verdict on a rollback that was asked for, and not only looked at."""
    known: KnownSecrets = field(default_factory=KnownSecrets)
    """What must not be seen in anything that is printed."""
    worker: Worker | None = None
    """The engine of this server, where requests can be handed to it at once."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what makes the request the same when it is sent again."""

    name: str
    idempotency_key: str | None = None
    request_hash: str = ""
    token: str = ""
    """The name of the token that was shown; empty for Norn itself."""
    address: str = ""
    grant: Grant | None = None
    """What the token permits, for what turns out to be wanted on the way; None for Norn itself."""

    @property
    def who(self) -> Who:
        return Who(self.name, self.token, self.address)


class _SameRequest(Exception):
    """This very request was taken before; `once` answers with its operation."""

    def __init__(self, remembered: Remembered) -> None:
        super().__init__(remembered.operation_id)
        self.remembered = remembered


async def once(services: Services, caller: Caller, asked: Asked, take: Callable[[], Awaitable[str]]) -> str:
    """The id of the operation that `take` accepts, or of the one that the same request made before.

    What is refused gets into the audit. Raises IdempotencyKeyReused where the caller's key came with another request.
    """
    return (await answered_once(services, caller, asked, take)).operation_id


async def answered_once(
    services: Services, caller: Caller, asked: Asked, take: Callable[[], Awaitable[str]]
) -> Remembered:
    """As `once`, and whether the same request made that operation; `take` itself knows that of its own.

    What is refused gets into the audit. Raises IdempotencyKeyReused where the caller's key came with another request.
    """
    try:
        async with noting_refusal(services, caller, asked):
            await answer_again(services, caller)
            return Remembered(caller.request_hash, await take(), unchanged=False)
    except _SameRequest as same:
        return same.remembered


@asynccontextmanager
async def noting_refusal(services: Services, caller: Caller, asked: Asked) -> AsyncIterator[None]:
    """Writes down that what is asked for within was refused, and why; once, however it is nested."""
    try:
        yield
    except NornError as error:
        if error.status in _REFUSALS and not error.noted:
            error.noted = True
            scrubber = services.known.of(asked.app)
            said = scrubber.text(f"{error.code}: {error.message}")
            after = {"asked": scrubber.text(asked.reason)} if asked.reason else None
            entry = Entry(caller.who, asked.action, asked.subject, Outcome.REFUSED, asked.app, said, after=after)
            try:
                await services.store.audit.record(entry)
            except DatabaseUnavailable as unavailable:
                log.warning("audit_not_written", action=entry.action, app=asked.app, error=unavailable.message)
        raise


async def once_operation(
    services: Services, caller: Caller, asked: Asked, take: Callable[[], Awaitable[str]]
) -> Operation:
    """As `once`: the operation itself."""
    operation = await services.store.operation(await once(services, caller, asked, take))
    assert operation is not None
    return operation


async def answer_again(services: Services, caller: Caller) -> None:
    """Within `once`: if this very request was taken before, that is the answer. Raises IdempotencyKeyReused."""
    if caller.idempotency_key is None:
        return
    remembered = await services.store.remembered(caller.idempotency_key)
    if remembered is None:
        return
    if remembered.request_hash != caller.request_hash:
        raise IdempotencyKeyReused(
            "This Idempotency-Key was used for another request.", hint="Use a new key for a new request."
        )
    raise _SameRequest(remembered)


@asynccontextmanager
async def accepting(
    services: Services, app: str, caller: Caller, operation_id: str, seen: AppState | None = None
) -> AsyncIterator[Accepting]:
    """Take a request for an app, alone; the operation is remembered under the caller's Idempotency-Key.

    Raises Changed where the world is not as `seen` any more, or the same request was taken meanwhile.
    """
    async with services.store.accepting(app, caller.who, seen) as transaction:
        if seen is None:
            await answer_again(services, caller)  # the same request may have been taken while this one waited
        yield transaction
        if caller.idempotency_key is not None:
            await transaction.remember(caller.idempotency_key, caller.request_hash, operation_id)


def busy(refused: Refuse) -> Busy:
    """The error for a request that another operation does not let through."""
    id_, app = refused.operation.id, refused.operation.app
    back = f", `norn rollback {app}` goes back at once" if refused.operation.kind is OperationKind.DEPLOY else ""
    return Busy(
        f"{refused.why} ({id_}).",
        hint=f"`norn watch {id_}` follows it, `norn cancel {id_}` stops it{back}.",
        operationId=id_,
    )


async def take_alone(
    services: Services,
    app: str,
    kind: OperationKind,
    caller: Caller,
    reason: str,
    params: Mapping[str, Any] | None = None,
) -> str:
    """Accept an operation that waits for nobody and stops at most a verification; its id. Raises Busy."""
    operation_id = new_id()
    async with accepting(services, app, caller, operation_id) as transaction:
        admission = admit(kind, await transaction.active())
        if isinstance(admission, Refuse):
            raise busy(admission)
        said = services.known.of(app).text(reason)
        await transaction.add_operation(operation_id, kind, params or {}, caller.name, said)
        for operation in admission.stop if isinstance(admission, Accept) else ():
            why = f"a {kind.value} takes over"
            await transaction.cancel(operation.id, caller.name, why, preempted_by=operation_id)
    return operation_id
