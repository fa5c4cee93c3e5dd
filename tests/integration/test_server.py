"""The server's own life: one on a home, what outlives it, what ends with it, and databases that others look after."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, served, until
from tests.fixtures.postgres import PostgresServer

MIGRATED = "services: {postgres: {database: elsewhere}}\nmigrations: {command: python3 -c pass}\n"


def processes_of(server: NornServer) -> list[int]:
    """Whatever runs out of this server's home, or knows of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if str(server.home).encode() in said and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def test_the_admin_token_has_256_bits_and_is_private(shared_norn: NornServer) -> None:
    file = shared_norn.home / "admin-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(shared_norn.token.removeprefix("norn_")) >= 43  # 32 bytes in base64url


def test_a_second_server_on_the_same_home_is_refused_and_the_first_is_named(shared_norn: NornServer) -> None:
    assert shared_norn.process is not None
    refused = shared_norn.norn("serve")
    assert refused.exit_status == 1
    assert f"process {shared_norn.process.pid}" in refused.err
    assert "hint: " in refused.err


def test_a_listen_address_that_is_taken_is_refused_saying_what_to_set(tmp_path: Path) -> None:
    server = NornServer(tmp_path)
    with socket.create_server(("127.0.0.1", server.port)):
        refused = server.norn("serve")
    assert refused.exit_status == 1
    assert f"127.0.0.1:{server.port}" in refused.err
    assert "NORN_LISTEN" in refused.err
    server.norn("serve", "--stop-all")


def test_apps_and_their_database_outlive_a_stopped_server(norn: NornServer) -> None:
    app = App(norn, "lasting", more=MIGRATED)
    app.deploy("one")
    norn.stop()
    assert app.get() == "one"
    assert (norn.home / "postgres" / "apps" / "data" / "postmaster.pid").exists()
    norn.start()
    assert norn.status("lasting")["health"]["healthy"]


def test_stop_all_ends_everything_and_a_new_server_brings_the_apps_back(norn: NornServer) -> None:
    app = App(norn, "resting", more=MIGRATED)
    app.deploy("one")
    norn.stop_all()
    until(lambda: not processes_of(norn), "the end of all processes")
    assert app.get().startswith("no answer")
    norn.start()
    until(lambda: app.get() == "one", "the app")


def test_stop_all_on_a_home_that_never_was_does_nothing(tmp_path: Path) -> None:
    server = NornServer(tmp_path / "nowhere")
    assert server.norn("serve", "--stop-all").exit_status == 0
    assert not server.home.exists()


@pytest.fixture
def elsewhere(postgres15: PostgresServer) -> Iterator[NornServer]:
    """A server whose databases somebody else looks after."""
    with postgres15.connect() as connection:
        connection.execute("DROP DATABASE IF EXISTS norn WITH (FORCE)")
        connection.execute("CREATE DATABASE norn")
    url = postgres15.url.replace("/postgres", "/norn")
    with served(NORN_DATABASE_URL=url, NORN_POSTGRES_URL=postgres15.url) as server:
        yield server


def test_with_both_databases_given_nothing_is_embedded(elsewhere: NornServer, postgres15: PostgresServer) -> None:
    app = App(elsewhere, "guest", more=MIGRATED)
    app.deploy("one")
    assert not (elsewhere.home / "postgres").exists()
    with postgres15.connect() as connection:
        owner = connection.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'elsewhere'"
        ).fetchone()
    assert owner == ("app_guest",)


def test_while_the_database_is_away_requests_say_503_and_nothing_is_lost(
    elsewhere: NornServer, postgres15: PostgresServer
) -> None:
    app = App(elsewhere, "patient", more=MIGRATED.replace("elsewhere", "patient"))
    app.deploy("one")
    app.deploy("two")
    postgres15.stop()
    try:
        reply = elsewhere.api("POST", "/api/apps/patient/rollback")
        assert (reply.status, reply.body["code"]) == (503, "database_unavailable")
        assert reply.body["hint"]
        assert elsewhere.api("GET", "/api/health").status == 503
        assert elsewhere.norn("rollback", "patient").exit_status == 7
        assert app.get() == "two"
    finally:
        postgres15.start()
    until(lambda: elsewhere.api("GET", "/api/health").status == 200, "the database's return")
    assert elsewhere.norn("rollback", "patient").exit_status == 0
    assert app.get() == "one"
    assert [item["kind"] for item in elsewhere.history("patient")] == ["rollback", "deploy", "deploy"]
