"""Who comes in: whoever shows a token, or a browser that has signed in with one.

The routes find in `request.state`: `grant` (what is permitted), `actor` (who is written into the history), `address`
(where from) and `session` (where it is a browser). What a route wants is in `norn.http.permissions`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar
from urllib.parse import parse_qs

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from norn.domain.access import NORN
from norn.domain.ports.access import Known
from norn.errors import DatabaseUnavailable, Malformed, NornError, NotAllowed, NotAuthenticated, TooManyAttempts
from norn.http.cookies import (
    SAFE_METHODS,
    SIGN_IN,
    Session,
    headers_of,
    other_site,
    same_origin,
    secret_of,
    sign_in_url,
)
from norn.http.limits import WrongTokens, replaying, retry_after
from norn.http.problems import note_refused, problem_response
from norn.http.requests import Context
from norn.operations.access import Gate
from norn.ui.errors import page_of, wants_page

OPEN_PATHS = frozenset({"/api/health", SIGN_IN})
OPEN_PREFIX = "/static/"
_K = TypeVar("_K")
_ACTOR = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,127}\Z")
_DEFAULT_ACTOR = "admin"
_ELSEWHERE = "The browser says that another site sent this."
_FROM_HERE = "Do it from a page of this server."
_LOOK_S = 5.0
"""How often it is looked whether a stream's token has expired; what is revoked is seen at once."""


async def admit(gate: Gate, wrong: WrongTokens, secret: str | bytes, address: str) -> Known:
    """Whom a token lets in. Raises NotAuthenticated, TooManyAttempts, DatabaseUnavailable."""
    known = await _look_up(wrong, address, lambda ask: gate.token(secret, ask=ask))
    if known is None:
        raise NotAuthenticated("The token is not known here: it never was, was revoked, or has expired.")
    return known


async def _look_up(wrong: WrongTokens, address: str, look: Callable[[bool], Awaitable[_K | None]]) -> _K | None:
    """What is found, or None for what is wrong. Raises TooManyAttempts, DatabaseUnavailable.

    An attempt is taken from the address beforehand: else any number of them could be looked up at once.
    """
    wait_s = wrong.wait_s(address)
    ask = wait_s == 0
    if ask:
        wrong.came_from(address)
    found: _K | None = None
    failed = True
    try:
        found = await look(ask)
        failed = False
    finally:
        if ask and (failed or found is not None):
            wrong.give_back(address)
    if found is None and not ask:
        raise TooManyAttempts(
            "Too many wrong tokens came from this address.",
            hint=f"Another one is looked at in {retry_after(wait_s)} s; a right one is let in at once.",
            retryAfterS=retry_after(wait_s),
        )
    return found


class Access:
    """Lets requests with a token or a session through, and ends their answers when they lose their access."""

    def __init__(self, app: ASGIApp, wrong: WrongTokens) -> None:
        self._app = app
        self._wrong = wrong

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state |= {"address": scope["client"][0] if scope.get("client") else "unknown", "session": None}
        path: str = scope["path"]
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            await self._app(scope, receive, send)
            return
        gate = _context(scope).gate
        headers = headers_of(scope)
        try:
            if "authorization" in headers:
                await self._by_token(gate, scope, headers)
            elif not await _by_session(gate, self._wrong, scope, headers):
                if wants_page(path):
                    redirect = RedirectResponse(sign_in_url(scope, headers), 303, {"Cache-Control": "no-store"})
                    await redirect(scope, receive, send)
                    return
                raise NotAuthenticated("This wants a token (Authorization: Bearer …).")
        except NornError as error:
            await note_refused(scope, error)
            await refusal(scope, error)(scope, receive, send)
            return
        still = _Still(gate, scope, headers, send)
        try:
            await self._app(scope, receive, still.send)
        except Exception:
            if not still.ended:
                raise

    async def _by_token(self, gate: Gate, scope: Scope, headers: Mapping[str, str]) -> None:
        secret = _bearer(headers)
        if not secret:
            raise NotAuthenticated("This wants a token (Authorization: Bearer …).")
        known = await admit(gate, self._wrong, secret.encode("latin-1"), scope["state"]["address"])
        actor = headers.get("norn-actor", "").strip() if known.home else ""
        if actor and not _ACTOR.match(actor):
            raise Malformed("Norn-Actor is not a name.", hint="At most 128 printable ASCII characters.")
        if actor.lower() == NORN:
            raise Malformed("Norn-Actor is the name of what Norn does by itself.", hint="Say who asks.")
        scope["state"]["grant"] = known.grant
        scope["state"]["actor"] = actor or (_DEFAULT_ACTOR if known.home else known.grant.token_name)


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, secret = headers["authorization"].partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


async def _by_session(gate: Gate, wrong: WrongTokens, scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether the browser has signed in. Raises NotAllowed for what a session is not enough for, TooManyAttempts."""
    secret = secret_of(scope, headers)
    if not secret or gate.knows_not(secret):
        return False
    address: str = scope["state"]["address"]
    session = await _look_up(wrong, address, lambda ask: gate.session(secret, ask=ask))
    if session is None:
        return False
    if not wants_page(scope["path"]) and other_site(headers):
        raise NotAllowed(_ELSEWHERE, hint=_FROM_HERE)
    if scope["method"] not in SAFE_METHODS and not wants_page(scope["path"]):
        raise NotAuthenticated("What changes something here wants a token (Authorization: Bearer …), not a session.")
    grant = session.token.grant
    scope["state"] |= {"grant": grant, "actor": grant.token_name, "session": Session(secret)}
    return True


def refusal(scope: Scope, error: NornError) -> Response:
    """The error as a problem document, or as a page for who looks at pages."""
    problem = problem_response(error)
    by_browser = wants_page(scope["path"]) and not any(name == b"authorization" for name, _ in scope["headers"])
    return page_of(Request(scope), problem) if by_browser else problem


class _Ended(OSError):
    """Whoever gets this answer has lost the right to it."""


class _Still:
    """Sends on what a route answers, for as long as whoever asked is let in: streams go on for hours."""

    def __init__(self, gate: Gate, scope: Scope, headers: Mapping[str, str], send: Send) -> None:
        self._gate = gate
        self._scope = scope
        self._headers = headers
        self._send = send
        self._drops = gate.drops
        self._looked_at = time.monotonic()
        self.ended = False

    async def send(self, message: Message) -> None:
        if message.get("more_body") and not await self._let_in():
            self.ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            raise _Ended("the token was revoked, or the session is over")
        await self._send(message)

    async def _let_in(self) -> bool:
        now = time.monotonic()
        if self._drops == self._gate.drops and now < self._looked_at + _LOOK_S:
            return True
        self._drops, self._looked_at = self._gate.drops, now
        try:
            if self._scope["state"]["session"] is None:
                return await self._gate.token(_bearer(self._headers).encode("latin-1")) is not None
            secret = secret_of(self._scope, self._headers)
            return secret is not None and await self._gate.session(secret) is not None
        except DatabaseUnavailable:
            return True  # who was let in before stays until it is known whether that still holds


def _context(scope: Scope) -> Context:
    context: Context = scope["app"].state.context
    return context


class CrossSite:
    """Refuses what a session's browser sends to change something, unless a page of that session sent it.

    Stands behind the limit of the body, since a form carries the proof in it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        session: Session | None = scope["state"]["session"]
        signs_in = scope["path"] == SIGN_IN
        if scope["method"] in SAFE_METHODS or (session is None and not signs_in):
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        message = await receive()
        body: bytes = message.get("body", b"")
        if not same_origin(headers):
            error = NotAllowed(_ELSEWHERE, hint=_FROM_HERE)
        elif session is not None and not session.proves(_proof(headers, body)):
            error = NotAllowed(
                "The proof that a page of this session sent this is missing.", hint="Load the page again."
            )
        else:
            await self._app(scope, replaying(body, receive), send)
            return
        await note_refused(scope, error)
        await refusal(scope, error)(scope, receive, send)


def _proof(headers: Mapping[str, str], body: bytes) -> str:
    given = headers.get("x-csrf-token", "")
    if given or not headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return given
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=1_000).get("csrf", [""])[-1]
    except ValueError:
        return ""
