"""HTTP/1.1 (RFC 9112) over one socket, as much of it as a command line needs.

The standard http.client takes longer to import (it brings the whole of email and ssl) than a rollback takes to be
accepted; see docs/decisions/0002-command-line-start-up.md.
"""

from __future__ import annotations

import json
import socket

from norn.errors import NornError, ServerUnreachable, SettingInvalid, exit_status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, BinaryIO

_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 120.0
_MAX_LINE = 65_536


class Problem(NornError):
    """An error that the server answered with (RFC 9457)."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        facts = {k: v for k, v in document.items() if k not in ("type", "title", "status", "detail", "code", "hint")}
        super().__init__(str(document.get("detail", f"HTTP {status}")), hint=str(document.get("hint", "")), **facts)
        self.code = str(document.get("code", "internal"))  # type: ignore[misc]
        self.status = status  # type: ignore[misc]
        self.exit_status = exit_status_of(self.code)  # type: ignore[misc]
        self.document = dict(document)


def parse_url(url: str) -> tuple[bool, str, int, str]:
    """Whether TLS, host, port and prefix of `http[s]://host[:port][/prefix]`. Raises SettingInvalid."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, "443" if scheme == "https" else "80"
    if scheme not in ("http", "https") or not host or "@" in host or not port.isdecimal():
        raise SettingInvalid(f"{url!r} is not the URL of a server.", hint="For example http://127.0.0.1:8800.")
    return scheme == "https", host.strip("[]"), int(port), (slash + path).rstrip("/")


class Answer:
    """A response whose body is still to be read."""

    def __init__(self, connection: socket.socket, file: BinaryIO) -> None:
        self._connection = connection
        self._file = file
        version, _, rest = self._line().partition(" ")
        if not version.startswith("HTTP/1."):
            raise ServerUnreachable("What answers there is not an HTTP server.")
        self.status = int(rest[:3])
        self.headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def _line(self) -> str:
        line = self._file.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise ServerUnreachable("The server closed the connection in the middle of its answer.")
        return line.rstrip(b"\r\n").decode("latin-1")

    def chunks(self) -> Iterator[bytes]:
        """The body, in pieces as they come."""
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                while size := int(self._line().partition(";")[0], 16):
                    yield self._file.read(size)
                    self._line()
            elif "content-length" in self.headers:
                yield self._file.read(int(self.headers["content-length"]))
            else:
                while data := self._file.read(65_536):
                    yield data
        except (OSError, ValueError) as error:
            raise ServerUnreachable(f"The connection to the server broke: {error}.") from error
        finally:
            self.close()

    def close(self) -> None:
        self._file.close()
        self._connection.close()

    def json(self) -> Any:
        """The whole body. Raises Problem for an error."""
        text = b"".join(self.chunks())
        try:
            document = json.loads(text) if text else None
        except ValueError as error:
            raise ServerUnreachable(f"The answer (HTTP {self.status}) is not Norn's.") from error
        if self.status >= 400:
            raise Problem(self.status, document if isinstance(document, dict) else {})
        return document


class Client:
    """One server. Every request has a connection of its own."""

    def __init__(self, url: str, token: str | None, actor: str, ca: str | None = None) -> None:
        """`ca`: a PEM file with the authorities that an https server's certificate is checked against."""
        self.url = url
        self._ca = ca
        self._address = parse_url(url)
        self._token = token
        self._actor = actor

    def open(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _READ_TIMEOUT_S,
    ) -> Answer:
        """Send a request, and give the answer as soon as its head has come. Raises ServerUnreachable."""
        tls, host, port, prefix = self._address
        payload = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        lines = [
            f"{method} {prefix}{path} HTTP/1.1",
            f"Host: {f'[{host}]' if ':' in host else host}:{port}",
            "Connection: close",
            f"Content-Length: {len(payload)}",
            f"Norn-Actor: {self._actor}",
        ]
        if payload:
            lines.append("Content-Type: application/json")
        if self._token:
            lines.append(f"Authorization: Bearer {self._token}")
        lines.extend(f"{name}: {value}" for name, value in (headers or {}).items())
        if any("\r" in line or "\n" in line for line in lines):
            raise SettingInvalid("A line break is not possible there.")
        try:
            # As bytes it is looked up as it is; a text would bring the whole codec of RFC 3490 in.
            name: Any = host.encode() if host.isascii() else host
            connection: socket.socket = socket.create_connection((name, port), _CONNECT_TIMEOUT_S)
            if tls:
                connection = self._with_tls(connection, host)
            connection.settimeout(timeout_s)
            connection.sendall("\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + payload)
            return Answer(connection, connection.makefile("rb"))
        except OSError as error:
            raise ServerUnreachable(f"No server answers at {self.url} ({error.strerror or error}).") from error

    def _with_tls(self, connection: socket.socket, host: str) -> socket.socket:
        """Raises OSError, SettingInvalid."""
        import ssl

        try:
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:
            connection.close()
            raise SettingInvalid(
                f"The authorities in {self._ca} cannot be read: {error.strerror or error}.",
                hint="NORN_CA (--ca) is a file with certificates in PEM.",
            ) from error
        try:
            return context.wrap_socket(connection, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise ServerUnreachable(
                f"The certificate of {self.url} is not to be trusted: {error.verify_message}.",
                hint="NORN_CA (--ca FILE) names the authority that issued it; NORN_URL the name that is in it.",
            ) from error

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Send a request and read the whole answer. Raises Problem, ServerUnreachable."""
        return self.open(method, path, body, headers).json()

    def get(self, path: str) -> Any:
        return self.request("GET", path)


def quote(segment: str) -> str:
    """A path segment or query value, percent-encoded (RFC 3986)."""
    safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~"
    encoded = "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in segment.encode())
    # A lone dot or two would be taken for a step in the path, and is no name anywhere.
    return encoded.replace(".", "%2E") if segment.strip(".") == "" else encoded.replace("%2E", ".")
