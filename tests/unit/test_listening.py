"""Where the server may listen, with which certificate, and how long it waits for whom."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from fastapi import FastAPI, Request
from tests.fixtures.certificates import make_certificate

from norn.bootstrap import listening
from norn.bootstrap.listening import check_listening, http_server, is_loopback, keep_certificate, listen
from norn.config import Settings, load_settings
from norn.errors import ServerNotStarted, SettingInvalid
from norn.http.limits import BodyLimit


def settings(**given: str) -> Settings:
    return load_settings({"NORN_HOME": "/nonexistent", "NORN_LISTEN": "127.0.0.1:0"} | given)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.0.2.1", False), ("norn.example.com", False), ("localhost.example.com", False), ("", False)],
)  # fmt: skip
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


BOTH = {"NORN_TLS_CERT": "/c", "NORN_TLS_KEY": "/k"}
EVERYWHERE = {"NORN_LISTEN": "0.0.0.0:8800"}


@pytest.mark.parametrize("given", [{}, BOTH, EVERYWHERE | BOTH, EVERYWHERE | {"NORN_INSECURE": "1"}])
def test_it_may_listen(given: dict[str, str]) -> None:
    check_listening(settings(**given))


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (EVERYWHERE, "--insecure"),
        ({"NORN_LISTEN": "[::]:8800"}, "--insecure"),
        ({"NORN_LISTEN": "norn.example.com:8800"}, "--tls-cert"),
        ({"NORN_TLS_CERT": "/c"}, "--tls-key"),
        ({"NORN_TLS_KEY": "/k"}, "--tls-cert"),
    ],
)
def test_it_may_not_listen_and_says_what_to_do(given: dict[str, str], hint: str) -> None:
    with pytest.raises(ServerNotStarted) as refused:
        check_listening(settings(**given))
    assert hint in refused.value.hint


@pytest.mark.parametrize("given", [{"NORN_INSECURE": "perhaps"}, {"NORN_PROXIES": "10.0.0.1, proxy"}])
def test_a_setting_that_says_nothing_clear_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(SettingInvalid, match=next(iter(given))):
        settings(**given)


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    cert, _ = make_certificate(tmp_path)
    with pytest.raises(ServerNotStarted, match="cannot be used"):
        http_server(FastAPI(), settings(NORN_TLS_CERT=str(cert), NORN_TLS_KEY=str(cert)))


@asynccontextmanager
async def serving(given: Settings, app: FastAPI | None = None) -> AsyncIterator[tuple[int, ssl.SSLContext | None]]:
    """The port of a server that answers every path with 404 unless it is told another app, and its side of TLS."""
    listener = listen(given)
    server = http_server(app or FastAPI(), given)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1], server.config.ssl
    finally:
        server.should_exit = True
        await task


HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
WHOLE = HEAD + b"\r\n"


async def answer_to(port: int, *parts: bytes) -> bytes:
    """All that is said before the connection is closed; what comes behind a whole request is sent after its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    try:
        async with asyncio.timeout(30):
            for part in parts:
                writer.write(part)
                await writer.drain()
                if part == WHOLE:
                    said += await reader.readuntil(b"}")
            return said + await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((), id="nothing"),
        pytest.param((b"GET",), id="a method"),
        pytest.param((HEAD,), id="a line"),
        pytest.param((HEAD + b"X-Slow: ",), id="a header"),
        pytest.param((b"\r\n",), id="a blank line"),
        pytest.param((WHOLE, b"\r\n"), id="a blank line after a request"),
        pytest.param((WHOLE, b"GET /"), id="half a second one"),
    ],
)
async def test_who_does_not_send_the_head_of_a_request_is_disconnected(
    monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(listening, "HEAD_S", 0.5)
    async with serving(settings()) as (port, _):
        said = await answer_to(port, *parts)
    assert b"HTTP/1.1 408 Request Timeout" in said


async def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEAD_S", 1.0)
    app = FastAPI()

    @app.get("/")
    async def get() -> None:
        await asyncio.sleep(1.5)

    async with serving(settings(), app) as (port, _):
        said = await answer_to(port, HEAD + b"Connection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [HEAD + b"X: " + b"x" * 70_000, HEAD + b"X: y\r\n" * 20_000, b"GET /" + b"x" * 70_000, b"G" * 3_000_000],
    ids=["a long header", "many headers", "a long path", "a method without end"],
)
async def test_a_head_of_more_than_64_kibibytes_is_refused(head: bytes) -> None:
    async with serving(settings()) as (port, _):
        said = await answer_to(port, head, b" HTTP/1.1\r\n\r\n" if head.startswith(b"GET /x") else b"\r\n\r\n")
    assert said[9:12] in (b"431", b"400", b"")  # nothing where the refusal is overtaken by what was still being sent


async def test_a_body_that_does_not_arrive_in_time_is_refused() -> None:
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError("it was let through")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"9")]}
    await BodyLimit(app, body_s=0.01)(scope, receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_length_of_very_many_digits_is_a_body_that_is_too_large() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> Any:
        raise AssertionError("it was let through")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"9" * 5_000)]}
    await BodyLimit(never)(scope, never, send)
    assert sent[0]["status"] == 413


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [("", "127.0.0.1 http"), ("192.0.2.0/24", "127.0.0.1 http"), ("127.0.0.0/8", "203.0.113.9 https")],
)
async def test_a_proxys_word_counts_where_it_is_named(proxies: str, seen: str) -> None:
    app = FastAPI()

    @app.get("/")
    async def get(request: Request) -> str:
        return f"{request.client.host if request.client else ''} {request.url.scheme}"

    async with serving(settings(NORN_PROXIES=proxies), app) as (port, _):
        more = b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
        said = await answer_to(port, HEAD + more)
    assert f'"{seen}"'.encode() in said


async def certificate_at(port: int, cert: Path) -> int:
    """The serial number of what the server shows, whoever it is."""
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return x509.load_der_x509_certificate(shown).serial_number


def serial(cert: Path) -> int:
    return x509.load_pem_x509_certificate(cert.read_bytes()).serial_number


async def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    given = settings(NORN_TLS_CERT=str(cert), NORN_TLS_KEY=str(key))
    async with serving(given) as (port, context):
        assert context is not None
        first = serial(cert)
        task = asyncio.create_task(keep_certificate(context, cert, key, every_s=0.01))
        assert await certificate_at(port, cert) == first
        whole = key.read_bytes()
        make_certificate(tmp_path)
        renewed, new_key = cert.read_bytes(), key.read_bytes()
        key.write_bytes(whole)  # one of the two has been written, the other has not
        assert await certificate_at(port, cert) in (first, serial(cert))
        key.write_bytes(new_key)
        cert.write_bytes(renewed)
        async with asyncio.timeout(30):
            while await certificate_at(port, cert) != serial(cert):
                await asyncio.sleep(0.01)
        task.cancel()
