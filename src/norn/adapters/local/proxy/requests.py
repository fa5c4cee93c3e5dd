"""What the proxy makes of a request's head: which are refused, and what the app gets to see (RFC 9110, RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_HEAD_BYTES = 65_536
Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"trailer"}
)
"""Fields that concern one connection only (RFC 9110, 7.6.1). Trailers are not passed on, so neither is their list."""
_OWN = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"})
_FRAMING = frozenset({b"content-length", b"host"})
_SPECIAL = HOP_BY_HOP | _OWN | _FRAMING | {b"proxy", b"http2-settings", b"expect"}
"""Fields that the proxy leaves out or writes itself."""
_HTTP = [b"http"]
_SESSION = b"norn-session"
_SESSIONS = frozenset({_SESSION, b"__Host-norn-session"})
"""The cookies of Norn's own pages: browsers give them to every port of a host, and no app is to have them."""
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110, 9.2.2"""


class RequestRefused(Exception):
    """The request is answered by the proxy itself; its connection ends after that."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(slots=True)
class Request:
    head: bytes
    """What is sent to the app: request line, fields, blank line."""
    method: bytes
    http11: bool
    """False: the client speaks HTTP/1.0, and knows neither chunks nor interim responses."""
    keep_alive: bool
    chunked: bool
    upgrade: bool
    replayable: bool
    """Idempotent and without content: may be sent again where a connection closed before any answer."""


def _tokens(values: list[bytes]) -> list[bytes]:
    return [token.strip().lower() for value in values for token in value.split(b",") if token.strip()]


_NO_AUTHORITY = re.compile(rb"""[\x00-\x20/?#@,\\"<>]""")


def _authority(value: bytes) -> bytes:
    if _NO_AUTHORITY.search(value):
        raise RequestRefused(400, "The Host field is not a host.")
    return value


def _target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """The request target in origin form, and the host that an absolute one names (RFC 9112, 3.2)."""
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, None
    if target[:7].lower() == b"http://" or target[:8].lower() == b"https://":
        try:
            parts = urlsplit(target)
        except ValueError as error:
            raise RequestRefused(400, "The request target is not a URL.") from error
        path = parts.path or (b"*" if method == b"OPTIONS" else b"/")
        return path + (b"?" + parts.query if parts.query else b""), _authority(parts.netloc)
    raise RequestRefused(400, "The request target is neither a path nor a URL.")


def read_request(
    method: bytes,
    target: bytes,
    version: str,
    headers: list[Header],
    *,
    keep_alive: bool,
    client: bytes,
    address: bytes,
) -> Request:
    """Check a head that httptools has parsed and write the one for the app.

    `client` is the client's address, for X-Forwarded-For; `address` is what a client of HTTP/1.0 that sends no Host
    is taken to have asked. Raises RequestRefused.
    """
    if version not in ("1.1", "1.0"):
        raise RequestRefused(505, "This server speaks HTTP/1.1.")
    if method == b"CONNECT":
        raise RequestRefused(405, "CONNECT is not for this server.")
    http11 = version == "1.1"
    origin, host = (target, None) if target.startswith(b"/") else _target(method, target)

    special: dict[bytes, list[bytes]] = {}
    plain: list[Header] = []
    for header in headers:
        key = header[0].lower()
        if key in _SPECIAL:
            special.setdefault(key, []).append(header[1])
        elif key == b"cookie" and _SESSION in header[1]:
            if kept := _without_session(header[1]):
                plain.append((header[0], kept))
        elif b"_" not in key or not _looks_like_own(key):
            plain.append(header)

    lines = [method + b" " + origin + b" HTTP/1.1", b"Host: " + _host(special.get(b"host"), host, http11, address)]
    length, chunked = _framing(special, http11)
    upgrade = False
    if named := _tokens(special[b"connection"]) if b"connection" in special else []:
        upgrade = http11 and not chunked and not length and b"upgrade" in named and _may_switch(special)
        plain = [(name, value) for name, value in plain if name.lower() not in named]
        for name in _OWN.intersection(named):
            special.pop(name, None)
    lines += [name + b": " + value for name, value in plain]
    if upgrade:
        lines.append(b"Connection: Upgrade\r\nUpgrade: " + b", ".join(special[b"upgrade"]))
    if b"expect" in special and http11:
        lines.append(b"Expect: " + special[b"expect"][0])
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif length is not None:
        lines.append(b"Content-Length: %d" % length)
    lines.append(b"X-Forwarded-For: " + b", ".join([*special.get(b"x-forwarded-for", ()), client]))
    lines.append(b"X-Forwarded-Proto: " + special.get(b"x-forwarded-proto", _HTTP)[-1])
    lines.append(b"X-Forwarded-Host: " + (special[b"x-forwarded-host"][-1] if b"x-forwarded-host" in special
                                          else lines[1][6:]))  # fmt: skip
    lines.append(b"\r\n")
    return Request(
        head=b"\r\n".join(lines),
        method=method,
        http11=http11,
        keep_alive=keep_alive,
        chunked=chunked,
        upgrade=upgrade,
        replayable=method in _IDEMPOTENT and not chunked and not length and not upgrade,
    )


def _host(given: list[bytes] | None, of_target: bytes | None, http11: bool, address: bytes) -> bytes:
    if given is None:
        if http11:
            raise RequestRefused(400, "A request has one Host field.")
        return of_target or address
    if len(given) > 1:
        raise RequestRefused(400, "A request has one Host field.")
    _authority(given[0])
    return given[0] if of_target is None else of_target


def _without_session(cookies: bytes) -> bytes:
    """The others stay as they are."""
    kept = [pair for pair in cookies.split(b";") if pair.partition(b"=")[0].strip() not in _SESSIONS]
    return b";".join(kept).strip()


def _framing(special: Mapping[bytes, list[bytes]], http11: bool) -> tuple[int | None, bool]:
    """Content-Length, and whether the content comes in chunks (RFC 9112, 6)."""
    lengths, codings = special.get(b"content-length"), special.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None or not http11:
            raise RequestRefused(400, "The length of the request is given in two ways.")
        if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
            raise RequestRefused(501, "Chunked is the only transfer coding that is known here.")
        return None, True
    if lengths is None:
        return None, False
    if len(lengths) > 1 or not lengths[0].strip().isdigit():
        raise RequestRefused(400, "Content-Length is not one number.")
    return int(lengths[0]), False


def _may_switch(special: Mapping[bytes, list[bytes]]) -> bool:
    protocols = _tokens(special.get(b"upgrade", []))
    return bool(protocols) and not any(name.startswith(b"h2") for name in protocols)


def _looks_like_own(key: bytes) -> bool:
    """Whether an app that knows no difference between `_` and `-` (CGI, WSGI) takes the field for one of ours."""
    return key.replace(b"_", b"-") in _SPECIAL


_REASONS = {
    400: "Bad Request", 405: "Method Not Allowed", 408: "Request Timeout", 431: "Request Header Fields Too Large",
    501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip


def own_answer(status: int, why: str, *, close: bool, head_only: bool = False) -> bytes:
    """A whole response of the proxy itself, as plain text."""
    body = f"{why}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *(["Retry-After: 1"] if status == 503 else []),
        *(["Connection: close"] if close else []),
        "\r\n",
    ]
    return "\r\n".join(lines).encode() + (b"" if head_only else body)
