"""A server behind TLS: the command line, browsers, and what is not trusted."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.browsers import Browser
from tests.fixtures.certificates import make_certificate
from tests.fixtures.norn import NornServer, served


@pytest.fixture(scope="module")
def server() -> Iterator[NornServer]:
    with tempfile.TemporaryDirectory() as directory:
        cert, key = make_certificate(Path(directory))
        with served(NORN_TLS_CERT=str(cert), NORN_TLS_KEY=str(key), NORN_CA=str(cert)) as server:
            yield server


def test_the_command_line_talks_to_it(server: NornServer) -> None:
    assert server.norn("apps").json() == {"apps": []}
    assert server.norn("doctor", "-o", "text").out.count("WRONG") == 1  # there are no apps


def test_a_certificate_of_nobody_known_is_not_trusted_and_what_helps_is_said(server: NornServer) -> None:
    finished = server.norn("apps", NORN_CA="")
    assert (finished.exit_status, finished.json()["code"]) == (7, "server_unreachable")
    assert "NORN_CA" in finished.err


def test_authorities_that_cannot_be_read_are_named(server: NornServer) -> None:
    finished = server.norn("apps", "--ca", "/nonexistent.pem")
    assert (finished.exit_status, finished.json()["code"]) == (2, "setting_invalid")
    assert "/nonexistent.pem" in finished.err


def test_a_session_is_for_tls_and_for_this_host_alone(server: NornServer) -> None:
    browser = Browser(server)
    cookie = browser.sign_in(server.token).headers["Set-Cookie"]
    assert cookie.startswith("__Host-norn-session=")
    assert {part.strip().lower() for part in cookie.split(";")[1:]} >= {"secure", "httponly", "path=/"}
    assert browser.go("GET", "/api/apps").status == 200
    browser.name = "norn-session"  # as one that came without TLS, from whoever was on the way
    assert browser.go("GET", "/api/apps").status == 401


def test_without_tls_other_machines_are_not_served(server: NornServer) -> None:
    home = str(server.directory / "other")
    refused = server.norn("serve", NORN_LISTEN="0.0.0.0:0", NORN_TLS_CERT="", NORN_TLS_KEY="", NORN_HOME=home)
    assert refused.exit_status == 1
    assert "--insecure" in refused.err
