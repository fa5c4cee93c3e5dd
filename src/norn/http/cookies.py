"""The cookie of a session, and what a browser has to show besides it, since it sends cookies for whoever asks.

A request that changes something has to carry a token that only a page of this session knows, and to come from a page
of this server by the browser's own word.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from starlette.requests import cookie_parser
from starlette.types import Scope

SIGN_IN = "/sign-in"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SECRET = re.compile(r"[A-Za-z0-9_-]{32,128}")
_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}")
"""A path of this server in printable ASCII: neither `//host` nor `/\\host`, which browsers take for another server."""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that has signed in."""

    _secret: str = field(repr=False)

    def proof(self) -> str:
        """What a page's forms carry as `csrf`, and its scripts as the header X-CSRF-Token; another text every time, so
        that nothing is learnt from how well a page packs.
        """
        salt = secrets.token_hex(16)
        return salt + self._proof(salt)

    def proves(self, text: str) -> bool:
        """Whether it is a proof of this session."""
        return hmac.compare_digest(text[32:].encode(), self._proof(text[:32]).encode())

    def _proof(self, salt: str) -> str:
        return hmac.new(self._secret.encode(), b"norn csrf " + salt.encode(), hashlib.sha256).hexdigest()


def headers_of(scope: Scope) -> dict[str, str]:
    """By lower-case name; of a name that comes twice the last one."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def is_tls(scope: Scope) -> bool:
    return bool(scope.get("scheme") == "https")


def cookie_name(scope: Scope) -> str:
    """Behind TLS a name that browsers take from this very host only, and with Secure and Path=/ (RFC 6265bis)."""
    return "__Host-norn-session" if is_tls(scope) else "norn-session"


def secret_of(scope: Scope, headers: Mapping[str, str]) -> str | None:
    """The session's secret that the request carries, where it can be one."""
    secret = cookie_parser(headers.get("cookie", "")).get(cookie_name(scope), "")
    return secret if _SECRET.fullmatch(secret) else None


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether the browser says that a page of this server sent this: by Sec-Fetch-Site, else by Origin.

    Which scheme it came by is not compared: before this server there may be a proxy that ends TLS.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return False
    if origin is None or (origin == "null" and site is not None):  # `null`: the page does not want to be named
        return site is not None
    here = _place(f"{origin.partition('://')[0]}://{headers.get('host', '')}")
    return here is not None and here == _place(origin)


def other_site(headers: Mapping[str, str]) -> bool:
    """Whether the browser says that a page of another server sent this. Of what only reads it may say nothing."""
    return ("origin" in headers or "sec-fetch-site" in headers) and not same_origin(headers)


def _place(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        default = {"http": 80, "https": 443}[parts.scheme]
        return (parts.hostname or "", parts.port or default)
    except (KeyError, ValueError):
        return None


def _path_here(url: str, headers: Mapping[str, str]) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "/"
    return parts.path if parts.netloc == headers.get("host") else "/"


def local_path(path: str) -> str:
    """The path where it is one of this server, else `/`: nobody is sent on to another host."""
    return path if _LOCAL.fullmatch(path) and not path.startswith(SIGN_IN) else "/"


def sign_in_url(scope: Scope, headers: Mapping[str, str]) -> str:
    """The sign-in page, which leads back to the page that was asked for, or from which something was sent."""
    if scope["method"] in ("GET", "HEAD"):
        query = scope["query_string"].decode("latin-1")
        back = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    else:
        back = _path_here(headers.get("referer", ""), headers)
    back = local_path(back)
    return SIGN_IN if back == "/" else f"{SIGN_IN}?{urlencode({'next': back})}"
