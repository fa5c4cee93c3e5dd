"""What somebody might try who has no right to anything, or wants more than they have."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from http.client import HTTPConnection
from urllib.parse import urlencode

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer

from norn.http.limits import BURST


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    App(shared_norn, "shop").deploy("one")
    return shared_norn


def raw(server: NornServer, *lines: str, body: bytes = b"") -> bytes:
    """All that is answered to a request as it is; nothing where the connection is ended meanwhile."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        said = b""
        with suppress(ConnectionError):
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            while data := connection.recv(65_536):
                said += data
        return said


def status(said: bytes) -> bytes:
    """Of the first answer."""
    return said[9:12]


def from_address(server: NornServer, address: str, method: str, path: str, secret: str) -> tuple[int, str | None]:
    """The status and Retry-After of an attempt with a token from one of this machine's addresses."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60, source_address=(address, 0))
    if method == "POST":
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": server.url}
        connection.request(method, path, urlencode({"token": secret}), headers)
    else:
        connection.request(method, path, headers={"Authorization": f"Bearer {secret}"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers["Retry-After"]


# ---- guessing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "method", "path", "welcome"),
    [("127.0.0.7", "GET", "/api/apps", 200), ("127.0.0.8", "POST", "/sign-in", 303)],
)
def test_who_guesses_is_held_up_and_nobody_else(
    server: NornServer, address: str, method: str, path: str, welcome: int
) -> None:
    tried = [from_address(server, address, method, path, f"guess-{number}") for number in range(3 * BURST)]
    assert {status for status, _ in tried[:BURST]} == {401}
    held_up = [wait for status, wait in tried if status == 429]
    assert held_up
    assert all(wait is not None and 1 <= int(wait) <= 3 for wait in held_up)
    assert from_address(server, address, method, path, server.token)[0] == welcome  # whoever shares the address
    assert from_address(server, "127.0.0.9", method, path, "guess")[0] == 401


def test_what_was_tried_in_vain_is_in_the_audit_and_no_token_is(server: NornServer) -> None:
    from_address(server, "127.0.0.10", "GET", "/api/apps", "n0t-a-token")
    entries = server.api("GET", "/api/audit?limit=200").body["entries"]
    (entry,) = [entry for entry in entries if entry["address"] == "127.0.0.10"]
    assert (entry["action"], entry["outcome"], entry["subject"]) == ("refused", "refused", "GET /api/apps")
    assert "n0t-a-token" not in json.dumps(entries) + server.log.read_text()


# ---- what is in a request ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", ["a\x00b", "a\tb", "\x1b[31mroot", "ä", "x" * 129, "a\rb", "norn", " Norn "])
def test_a_name_that_could_forge_a_line_or_is_norns_own_is_none(server: NornServer, actor: str) -> None:
    head = ("POST /api/apps/shop/restart HTTP/1.1", "Host: x", "Connection: close", "Content-Length: 0")
    said = raw(server, *head, f"Authorization: Bearer {server.token}", f"Norn-Actor: {actor}")
    assert b" 400 " in said.splitlines()[0] + b" "


@pytest.mark.parametrize(
    "path",
    ["/static/../../etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/static/x/..%2f..%2f..%2fetc%2fpasswd",
     "/static/x/norn.css", "/static/x/%00norn.css", "/static//etc/passwd", "/static/x/....//etc/passwd"],
)  # fmt: skip
def test_no_file_is_read_by_a_path(server: NornServer, path: str) -> None:
    reply = server.api("GET", path, token="")
    assert reply.status == 404
    assert b"root:" not in reply.body


@pytest.mark.parametrize(
    "id_", ["..", "..%2f..%2fapps", "%00", "%0d%0aX:%20y", "'%20OR%201=1", "a" * 5_000, "%F0%9F%99%82"]
)
@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("GET", "/api/operations/{}"),
        ("POST", "/api/operations/{}/cancel"),
        ("POST", "/api/operations/{}/confirm"),
        ("GET", "/api/deployments/{}"),
        ("GET", "/operations/{}"),
        ("DELETE", "/api/tokens/{}"),
        ("POST", "/api/apps/shop/snapshots/{}/restore"),
        ("PUT", "/api/apps/shop/secrets/{}"),
    ],
)
def test_a_name_is_a_name_and_nothing_more(server: NornServer, method: str, route: str, id_: str) -> None:
    reply = server.api(method, route.format(id_), {"value": "x"} if method == "PUT" else None)
    assert reply.status in (404, 405, 409, 422), reply
    assert reply.headers["X"] is None


def test_what_is_logged_stays_one_line_an_event(server: NornServer) -> None:
    server.api("GET", "/api/apps/%0a%7b%22event%22%3a%22started%22%7d")
    server.api("GET", "/api/apps", token="x%0a{}")
    for line in server.log.read_text().splitlines():
        assert "event" in json.loads(line)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: -1",),
        ("Content-Length: 5x",),
        ("Transfer-Encoding: chunked, identity",),
        (" folded: header",),
        ("Na me: value",),
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_not_read(server: NornServer, lines: tuple[str, ...]) -> None:
    head = ("GET /api/apps HTTP/1.1", "Host: x", f"Authorization: Bearer {server.token}", "Connection: close")
    for one_way in (("Content-Length: 5",), ("Transfer-Encoding: chunked",)):  # whose content it does not look at
        assert status(raw(server, *head, *one_way, body=b"0\r\n\r\n")) == b"200"
    assert status(raw(server, *head, *lines, body=b"0\r\n\r\n")) == b"400"


@pytest.mark.parametrize("name", ["Authorization: Bearer ", "Cookie: norn-session=", "Norn-Actor: ", "X: "])
def test_a_header_of_a_megabyte_is_refused(server: NornServer, name: str) -> None:
    head = ("GET /api/apps HTTP/1.1", "Host: x", f"Authorization: Bearer {server.token}", "Connection: close")
    assert status(raw(server, *head)) == b"200"
    # Nothing where the refusal is overtaken by what was still being sent.
    assert status(raw(server, *head, f"{name}{'x' * 1_000_000}")) in (b"431", b"400", b"")
    assert server.api("GET", "/api/health").status == 200


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "PATCH", "GARBAGE"])
def test_a_method_that_is_not_there_does_nothing(server: NornServer, method: str) -> None:
    lines = (f"{method} /api/apps HTTP/1.1", "Host: x", "Connection: close", f"Authorization: Bearer {server.token}")
    said = raw(server, *lines)
    assert said.split(b" ")[1] in (b"400", b"404", b"405")
    assert server.token.encode() not in said


def test_where_one_is_led_does_not_depend_on_the_host_that_is_claimed(server: NornServer) -> None:
    said = raw(
        server, "GET / HTTP/1.1", "Host: evil.example.com", "X-Forwarded-Host: evil.example.com", "Connection: close"
    )
    assert b"location: /sign-in\r\n" in said
    assert b"evil" not in said


def test_nobody_says_their_own_address(server: NornServer) -> None:
    head = ("GET /api/apps HTTP/1.1", "Host: x", "Connection: close", "X-Forwarded-For: 203.0.113.99")
    raw(server, *head, "Authorization: Bearer nobody")
    entries = server.api("GET", "/api/audit?limit=200").body["entries"]
    assert "203.0.113.99" not in {entry["address"] for entry in entries}
