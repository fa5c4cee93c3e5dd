"""What routes are given: the services, who asks, and how long the caller wants to wait."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request

from norn.domain.access import Grant
from norn.domain.audit import Who
from norn.errors import Malformed, NotAuthenticated
from norn.http.cookies import Session
from norn.operations.access import Gate
from norn.operations.audit import Attempts
from norn.operations.events import Changes
from norn.operations.feed import Feed
from norn.operations.notifications import Notifications
from norn.operations.services import Caller, Services

T = TypeVar("T")
MAX_WAIT_S = 60.0
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*(\d{1,6})\s*(?:,|$)", re.IGNORECASE)
_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")


@dataclass(frozen=True, slots=True)
class Context:
    """What the server has put together for its routes (`app.state.context`)."""

    services: Services
    changes: Changes
    feed: Feed
    notifications: Notifications
    attempts: Attempts
    """Writes down what is tried in vain."""
    gate: Gate


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def services_of(request: Request) -> Services:
    return context_of(request).services


def grant_of(request: Request) -> Grant:
    """What whoever asks may do. Raises NotAuthenticated where nobody is known (an open path)."""
    grant: Grant | None = getattr(request.state, "grant", None)
    if grant is None:
        raise NotAuthenticated("This wants a token (Authorization: Bearer …).")
    return grant


def who_of(request: Request) -> Who:
    """Who asks, as the audit names them."""
    return Who(request.state.actor, grant_of(request).token_name, request.state.address)


def session_of(request: Request) -> Session | None:
    """The session of the browser that asks; None where it is none."""
    session: Session | None = getattr(request.state, "session", None)
    return session


async def caller_of(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(description="The same key and body answer with the same operation (for a day).")
    ] = None,
) -> Caller:
    """Who asks; with an Idempotency-Key, what makes the request the same: method, path and body."""
    who = who_of(request)
    if idempotency_key is None:
        return Caller(who.actor, token=who.token, address=who.address, grant=grant_of(request))
    if not _KEY.match(idempotency_key):
        raise Malformed("Idempotency-Key is not one.", hint="1 to 255 printable ASCII characters without blanks.")
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + await request.body()).hexdigest()
    return Caller(who.actor, idempotency_key, digest, who.token, who.address, grant_of(request))


async def wait_of(
    prefer: Annotated[
        str | None,
        Header(
            description="`wait=N` (RFC 7240): answer once the runtime has accepted the change, after N seconds at most."
        ),
    ] = None,
) -> float:
    """Seconds that the caller wants to wait for the runtime to accept the change; 0: not at all."""
    match = _WAIT.search(prefer or "")
    return min(float(match.group(1)), MAX_WAIT_S) if match else 0.0


def _found(look: Callable[[Request], T]) -> Any:
    """A dependency of a route. A plain function would be called in a thread of its own, which takes far longer."""

    async def found(request: Request) -> T:
        return look(request)

    return Depends(found)


GrantOf = Annotated[Grant, _found(grant_of)]
ServicesOf = Annotated[Services, _found(services_of)]
ContextOf = Annotated[Context, _found(context_of)]
CallerOf = Annotated[Caller, Depends(caller_of)]
WaitOf = Annotated[float, Depends(wait_of)]
