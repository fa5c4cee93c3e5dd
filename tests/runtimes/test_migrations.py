"""Migrations run with the new image before it is live: bounded in what they wait for, and harmless when they fail."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from tests.fixtures.apps import App, GitApp
from tests.fixtures.norn import until
from tests.runtimes.conftest import World

from norn.adapters.accounts import can_reach, for_apps


@pytest.fixture(autouse=True)
def psql_can_be_reached(world: World) -> None:
    if world.space is None and not can_reach(Path(App.psql), for_apps()):
        pytest.skip("psql is where apps cannot reach it")


numbers = itertools.count()


@pytest.fixture
def app(world: World) -> GitApp:
    """An app with a table, live."""
    app = world.app(f"shelf{next(numbers)}")
    app.declare("CREATE TABLE books (id bigint)")
    app.deploy("one")
    return app


def columns(app: GitApp) -> list[str]:
    with app.database() as connection:
        found = connection.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'books'::regclass AND attnum > 0")
        return [row[0] for row in found]


def test_a_migration_changes_the_apps_own_database(app: GitApp) -> None:
    app.declare("ALTER TABLE books ADD title text")
    app.deploy("two")
    assert columns(app) == ["id", "title"]


def test_a_migration_that_waits_too_long_for_a_lock_fails_and_says_what_to_do(app: GitApp) -> None:
    app.declare("ALTER TABLE books ADD title text", lock_timeout="300ms")
    app.commit("two")
    with app.database() as reader:
        reader.execute("BEGIN; SELECT * FROM books")  # the transaction keeps its lock
        failed = app.server.norn("deploy", app.name)
    assert failed.exit_status == 1
    assert failed.json()["error"]["code"] == "migration_failed"
    assert "lock timeout" in failed.err
    assert "migrations.lockTimeout" in failed.json()["error"]["hint"]
    assert (app.get(), columns(app)) == ("one", ["id"])


def test_a_migration_that_fails_leaves_what_was_live_and_its_snapshot(app: GitApp) -> None:
    app.declare("ALTER TABLE shelves ADD title text")
    app.commit("two")
    failed = app.server.norn("deploy", app.name)
    assert failed.exit_status == 1
    assert 'relation "shelves" does not exist' in failed.err
    assert app.get() == "one"
    newest = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"][0]
    assert newest["name"] == failed.json()["snapshot"]
    assert Path(app.server.home / "snapshots" / newest["name"]).stat().st_size == newest["sizeBytes"]


def test_the_snapshot_can_be_left_out_for_a_reason_that_the_history_shows(app: GitApp) -> None:
    app.declare("ALTER TABLE books ADD title text")
    app.commit("two")
    assert app.server.norn("deploy", app.name, "--no-snapshot").exit_status == 2, "it wants a reason"
    done = app.server.norn("deploy", app.name, "--no-snapshot", "--reason", "the dump takes an hour")
    assert done.exit_status == 0, done.err
    newest = app.server.history(app.name)[0]
    assert (newest["snapshot"], newest["reason"]) == (None, "the dump takes an hour")


def test_an_app_without_migrations_gets_its_database_and_no_snapshot(world: World) -> None:
    app = world.app("shelfless", more="services: {postgres: {database: shelfless}}\n")
    app.deploy("one")
    assert world.server.history("shelfless")[0]["snapshot"] is None
    assert "DATABASE_URL=postgresql://app_shelfless:" in app.get("/env")


def test_a_rollback_ends_a_migration_that_takes_its_time_and_says_what_it_has_done(app: GitApp) -> None:
    app.declare("ALTER TABLE books DROP COLUMN id; COMMIT; SELECT pg_sleep(600)")
    app.commit("two")
    deploy = app.server.api("POST", f"/api/apps/{app.name}/deploy").body["id"]
    until(lambda: "id" not in columns(app), "the half of it that stays", 90)
    refused = app.server.norn("rollback", app.name)
    assert (refused.exit_status, refused.json()["verdict"]["level"]) == (4, "unsafe"), "old code would be left on it"
    back = app.server.norn("rollback", app.name, "--force", timeout_s=180)
    assert back.exit_status == 0, back.err
    assert (app.server.history(app.name)[0]["verdict"]["level"], app.get()) == ("unsafe", "one")
    steps = {step["step"]: step["output"] for step in app.server.operation(deploy)["steps"]}
    assert "10s to end by itself" in steps["migrate"]
    with app.database() as connection:
        left = connection.execute("SELECT FROM pg_stat_activity WHERE application_name LIKE 'norn-migrate%'").fetchall()
    assert left == []


def test_what_a_migration_still_did_while_it_was_stopped_is_in_the_verdict(app: GitApp) -> None:
    with app.database() as connection:
        connection.execute("CREATE TABLE gate (opened boolean); GRANT SELECT ON gate TO PUBLIC")
    waits = "WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.05); END LOOP;"
    app.declare(rf"DO \$\$ BEGIN {waits} ALTER TABLE books DROP COLUMN id; END \$\$")
    app.commit("two")
    deploy = app.server.api("POST", f"/api/apps/{app.name}/deploy").body["id"]
    app.server.step_begun(deploy, "migrate")
    with app.database() as connection:
        migrating = "SELECT FROM pg_stat_activity WHERE application_name LIKE 'norn-migrate%'"
        until(lambda: connection.execute(migrating).fetchall(), "the migration", 90)
        back = app.server.api("POST", f"/api/apps/{app.name}/rollback").body
        connection.execute("INSERT INTO gate VALUES (true)")
    ended = app.server.ended(back["id"])
    assert (back["verdict"]["level"] != "unsafe", "id" in columns(app)) == (True, False)
    assert ended["status"] == "succeeded", ended["error"]
    assert app.server.history(app.name)[0]["verdict"]["level"] == "unsafe"
