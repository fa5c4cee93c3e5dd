"""What the proxy makes of an app's response: its head, and where its content ends (RFC 9112, 6)."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from enum import Enum

from norn.adapters.local.proxy.requests import HOP_BY_HOP

MAX_HEAD_BYTES = 65_536
_MAX_CHUNK_LINE = 4_096
_DIGITS = frozenset(b"0123456789abcdefABCDEF")


class BadResponse(Exception):
    """The app does not speak HTTP/1."""


class Framing(Enum):
    NONE = "none"
    """No content: HEAD, 204, 304, an interim response."""
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    """Up to the end of the connection."""


@dataclass(slots=True)
class Response:
    status: int
    head: bytes
    """Status line and fields as the client gets them, without those that concern one connection, without line end."""
    framing: Framing
    length: int
    """Of the content in bytes, where the framing is LENGTH."""
    keep_alive: bool
    """Whether the app's connection may be used again after it."""
    upgrade: bytes
    """The protocol that a 101 switches to."""


_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n\x00]*)?")
_FIELDS = re.compile(rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00]*)*\Z")
_CONNECTION_FIELDS = re.compile(
    rb"\r\n(content-length|%b):([^\r\n]*)" % b"|".join(sorted(HOP_BY_HOP - {b"trailer"})), re.IGNORECASE
)


def read_response(head: bytes, method: bytes) -> Response:
    """Read a head, from the status line to before the blank line. Raises BadResponse."""
    first = _STATUS.match(head)
    if first is None:
        raise BadResponse("no status line of HTTP/1")
    if not _FIELDS.match(head, first.end()):
        raise BadResponse("a field without a name, or over several lines")
    status = int(first[2])
    fields = head[first.end() :]
    keep_alive = first[1] == b"1"
    special: dict[bytes, list[bytes]] = {}
    for name, value in _CONNECTION_FIELDS.findall(fields):
        special.setdefault(name.lower(), []).append(value.strip())
    lengths = special.pop(b"content-length", None)
    if lengths is not None and not (lengths[0].isdigit() and all(value == lengths[0] for value in lengths)):
        raise BadResponse("Content-Length is not one number")
    if special or (lengths and len(lengths) > 1):
        fields = _CONNECTION_FIELDS.sub(b"", fields)
        if lengths and b"transfer-encoding" not in special:
            fields += b"\r\nContent-Length: " + lengths[0]
    if b"connection" in special:
        named = {token.strip().lower() for value in special[b"connection"] for token in value.split(b",")}
        keep_alive = b"close" not in named and (keep_alive or b"keep-alive" in named)
        fields = _without(fields, named - {b"close", b"keep-alive", b"upgrade", b"content-length", b""})
    framing, length = Framing.CLOSE, int(lengths[0]) if lengths else 0
    if method == b"HEAD" or status < 200 or status in (204, 304):
        framing = Framing.NONE
    elif codings := special.get(b"transfer-encoding"):
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadResponse("a transfer coding that is not chunked")
        framing = Framing.CHUNKED
    elif lengths is not None:
        framing = Framing.LENGTH
    if framing is Framing.CLOSE or (lengths is not None and b"transfer-encoding" in special):
        keep_alive = False  # RFC 9112, 6.3: where both are there, the coding counts, and the connection ends
    status_line = b"HTTP/1.1" + head[8 : first.end()]
    return Response(status, status_line + fields, framing, length, keep_alive, special.get(b"upgrade", [b""])[0])


def _without(fields: bytes, names: Set[bytes]) -> bytes:
    if not names:
        return fields
    lines = fields.split(b"\r\n")[1:]
    return b"".join(b"\r\n" + line for line in lines if line.partition(b":")[0].lower() not in names)


class Chunks:
    """Finds the end of chunked content, and takes the chunks apart (RFC 9112, 7.1)."""

    __slots__ = ("_left", "_line", "_state", "done")

    def __init__(self) -> None:
        self._state = "size"
        self._left = 0
        self._line = b""
        self.done = False

    def feed(self, data: bytes) -> tuple[int, list[bytes]]:
        """How many of the bytes belong to the content, and the payload among them. Raises BadResponse."""
        at, size = 0, len(data)
        payload: list[bytes] = []
        while at < size and not self.done:
            if self._state == "data":
                taken = min(self._left, size - at)
                payload.append(data[at : at + taken])
                at += taken
                self._left -= taken
                if not self._left:
                    self._state = "end"
                continue
            newline = data.find(b"\n", at)
            end = newline + 1 if newline >= 0 else size
            self._line += data[at:end]
            at = end
            if len(self._line) > _MAX_CHUNK_LINE:
                raise BadResponse("a chunk's line is too long")
            if newline >= 0:
                line, self._line = self._line, b""
                if not line.endswith(b"\r\n"):
                    raise BadResponse("a line of a chunk does not end with CR LF")
                self._take_line(line[:-2])
        return at, payload

    def _take_line(self, line: bytes) -> None:
        if self._state == "end":
            if line:
                raise BadResponse("a chunk is longer than it says")
            self._state = "size"
        elif self._state == "size":
            digits = line.partition(b";")[0].rstrip(b" \t")
            if not digits or len(digits) > 15 or not _DIGITS.issuperset(digits):
                raise BadResponse("a chunk's size is not a number")
            self._left = int(digits, 16)
            self._state = "data" if self._left else "trailer"
        elif not line:
            self.done = True
