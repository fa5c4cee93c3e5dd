"""Who may come in: every path but health wants the admin token."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from norn.errors import Malformed, NotAuthenticated, TooLarge
from norn.http.problems import problem_response

OPEN_PATHS = frozenset({"/api/health"})
MAX_BODY_BYTES = 1_048_576
_ACTOR = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,127}\Z")
_DEFAULT_ACTOR = "admin"


def admin_token(path: Path) -> str:
    """The token in `path`; made at the first start: 256 bits, in a file that only its owner reads."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # never over one that another server has just made
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    finally:
        temporary.unlink()
    return token


class Access:
    """Lets requests with the token through, and notes in `scope["state"]["actor"]` who asks.

    With the admin token the caller may say a name (`Norn-Actor`), so that the history shows a person.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._hash = hashlib.sha256(token.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        known = hmac.compare_digest(hashlib.sha256(token.strip()).digest(), self._hash)
        if scheme.lower() != b"bearer" or not known:
            said = "The token is not known here." if token else "This wants a token (Authorization: Bearer …)."
            await problem_response(NotAuthenticated(said))(scope, receive, send)
            return
        actor = headers.get(b"norn-actor", b"").decode("latin-1").strip()
        if actor and not _ACTOR.match(actor):
            error = Malformed("Norn-Actor is not a name.", hint="At most 128 printable ASCII characters.")
            await problem_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["actor"] = actor or _DEFAULT_ACTOR
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses a body over one mebibyte, by its declared length, or as soon as that much has come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
            await problem_response(_too_large())(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                await problem_response(_too_large())(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        given = False

        async def replay() -> dict[str, object]:
            nonlocal given
            if given:
                return dict(await receive())
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)


def _too_large() -> TooLarge:
    return TooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes.", hint="Norn's requests are a few hundred bytes.")
