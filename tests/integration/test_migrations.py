"""Migrations run with the new image before it is live: bounded in what they wait for, and harmless when they fail."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.rows import TupleRow
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer

from norn.adapters.accounts import can_reach, for_apps
from norn.adapters.postgres.clients import find_client

PSQL = find_client("psql", 18)

pytestmark = pytest.mark.skipif(not can_reach(PSQL, for_apps()), reason="psql is where apps cannot reach it")


def declare(app: App, statement: str) -> None:
    """The app's infraspec with that migration, as plain SQL."""
    command = f'''exec {PSQL} -v ON_ERROR_STOP=1 "$DATABASE_URL" -c "{statement}"'''
    app.spec(
        "services: {postgres: {database: shelf}}\n"
        f"migrations: {{command: [sh, -c, '{command}'], lockTimeout: 300ms}}\n"
    )


@pytest.fixture
def app(norn: NornServer) -> App:
    """An app with a table, live."""
    app = App(norn, "shelf")
    declare(app, "CREATE TABLE books (id bigint)")
    app.deploy("one")
    return app


def database(server: NornServer) -> psycopg.Connection[TupleRow]:
    """The app's database, as its administrator."""
    port, password = ((server.home / "postgres" / "apps" / name).read_text() for name in ("port", "password"))
    return psycopg.connect(f"postgresql://norn:{password}@127.0.0.1:{port}/shelf")


def columns(server: NornServer) -> list[str]:
    with database(server) as connection:
        found = connection.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'books'::regclass AND attnum > 0")
        return [row[0] for row in found]


def test_a_migration_changes_the_apps_own_database(norn: NornServer, app: App) -> None:
    declare(app, "ALTER TABLE books ADD title text")
    app.deploy("two")
    assert columns(norn) == ["id", "title"]


def test_a_migration_that_waits_too_long_for_a_lock_fails_and_says_what_to_do(norn: NornServer, app: App) -> None:
    declare(app, "ALTER TABLE books ADD title text")
    app.commit("two")
    with database(norn) as reader:
        reader.execute("SELECT * FROM books")  # the transaction keeps its lock
        failed = norn.norn("deploy", "shelf")
    assert failed.exit_status == 1
    assert failed.json()["error"]["code"] == "migration_failed"
    assert "lock timeout" in failed.err
    assert "migrations.lockTimeout" in failed.json()["error"]["hint"]
    assert (app.get(), columns(norn)) == ("one", ["id"])


def test_a_migration_that_fails_leaves_what_was_live_and_its_snapshot(norn: NornServer, app: App) -> None:
    declare(app, "ALTER TABLE shelves ADD title text")
    app.commit("two")
    failed = norn.norn("deploy", "shelf")
    assert failed.exit_status == 1
    assert 'relation "shelves" does not exist' in failed.err
    assert app.get() == "one"
    newest = norn.api("GET", "/api/apps/shelf/snapshots").body["snapshots"][0]
    assert newest["name"] == failed.json()["snapshot"]
    assert Path(norn.home / "snapshots" / newest["name"]).stat().st_size == newest["sizeBytes"]


def test_the_snapshot_can_be_left_out_for_a_reason_that_the_history_shows(norn: NornServer, app: App) -> None:
    declare(app, "ALTER TABLE books ADD title text")
    app.commit("two")
    assert norn.norn("deploy", "shelf", "--no-snapshot").exit_status == 2, "it wants a reason"
    done = norn.norn("deploy", "shelf", "--no-snapshot", "--reason", "the dump takes an hour")
    assert done.exit_status == 0, done.err
    newest = norn.history("shelf")[0]
    assert (newest["snapshot"], newest["reason"]) == (None, "the dump takes an hour")


def test_an_app_without_migrations_gets_no_snapshot(norn: NornServer) -> None:
    app = App(norn, "plain", more="services: {postgres: {database: plain}}\n")
    app.deploy("one")
    assert norn.history("plain")[0]["snapshot"] is None
    assert "DATABASE_URL=postgresql://app_plain:" in app.get("/env")
