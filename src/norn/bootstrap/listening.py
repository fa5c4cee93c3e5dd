"""Where the server listens, with TLS or without, and that nobody keeps it waiting."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from norn.config import Settings
from norn.errors import ServerNotStarted

log = structlog.get_logger(__name__)

HEAD_S = 10.0
"""Within which the head of a request has to arrive."""
HEAD_BYTES = 65_536
_SHUTDOWN_S = 3
_RENEWED_S = 60.0


def check_listening(settings: Settings) -> None:
    """Raises ServerNotStarted where a token could be read on its way, or where half of TLS is missing."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ServerNotStarted(
            "TLS wants a certificate and its key.", hint="Give both: --tls-cert FILE --tls-key FILE, or neither."
        )
    if settings.tls_cert is None and not settings.insecure and not is_loopback(settings.listen_host):
        raise ServerNotStarted(
            f"Without TLS a token that comes to {settings.listen_host} from another machine could be read on the way.",
            hint="Give --tls-cert and --tls-key; or --insecure where a proxy or a private network sees to it.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it. A name other than localhost may mean anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(settings: Settings) -> socket.socket:
    """Raises ServerNotStarted."""
    check_listening(settings)
    host, port = settings.listen_host, settings.listen_port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ServerNotStarted(
            f"Norn cannot listen on {host}:{port}: {error.strerror}.",
            hint="Set NORN_LISTEN to another HOST:PORT, or end what listens there.",
        ) from error


def http_server(app: FastAPI, settings: Settings) -> HttpServer:
    """Raises ServerNotStarted where the certificate or its key cannot be used."""
    config = uvicorn.Config(
        app,
        http=PromptProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        lifespan="off",
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ServerNotStarted(
            f"The certificate {settings.tls_cert} and the key {settings.tls_key} cannot be used: {error}.",
            hint="Both in PEM; the certificate first and after it those that lead to its authority.",
        ) from error
    return HttpServer(config)


class HttpServer(uvicorn.Server):
    """Ends when told to; uvicorn's own way ends the process before anything can be handed over."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        self.force_exit = self.should_exit  # the second time: without waiting for connections
        self.should_exit = True


async def keep_certificate(context: ssl.SSLContext, cert: Path, key: Path, every_s: float = _RENEWED_S) -> None:
    """For ever: new connections get the certificate that lies there, also when it was renewed."""
    seen = _version(cert, key)
    while True:
        await asyncio.sleep(every_s)
        found = _version(cert, key)
        if found in (seen, None):
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)  # half a pair would end the old one, too
            context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            log.warning("certificate_not_renewed", error=str(error))  # the two may be in the middle of being written
        else:
            seen = found
            log.info("certificate_renewed")


def _version(*paths: Path) -> tuple[tuple[int, int], ...] | None:
    try:
        return tuple((found.st_ino, found.st_mtime_ns) for found in (path.stat() for path in paths))
    except OSError:
        return None


class PromptProtocol(HttpToolsProtocol):
    """HTTP whose clients have to send the head of a request in time, and not too much of it."""

    _waiting: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if self._waiting is None and (cycle is None or cycle.response_complete):
            self._wait_for_head()
        super().data_received(data)
        if self._waiting is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")
        else:
            super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        self._waiting = self.loop.call_later(HEAD_S, self._refuse, b"408 Request Timeout")

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _refuse(self, status: bytes) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
