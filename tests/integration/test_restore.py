"""Restores through the server: asked for, shown, confirmed, swapped, taken back; and whatever interrupts them."""

from __future__ import annotations

import itertools
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, served, until

from norn.adapters.accounts import can_reach, for_apps

pytestmark = [
    pytest.mark.xdist_group("restore"),
    pytest.mark.skipif(not can_reach(Path(App.psql), for_apps()), reason="psql is where apps cannot reach it"),
]
numbers = itertools.count()


def library(server: NornServer, *, more: str = "") -> App:
    """An app with three books, and a snapshot taken by hand then; a fourth one has come since, and one has gone."""
    app = App(server, f"library{next(numbers)}")
    app.declare("CREATE TABLE IF NOT EXISTS books (id bigint PRIMARY KEY, title text)", more=more)
    app.deploy("one")
    with app.database() as connection:
        connection.execute("INSERT INTO books SELECT n, 'book ' || n FROM generate_series(1, 3) AS n")
    taken = server.norn("snapshots", "create", app.name, "--reason", "three books")
    assert taken.exit_status == 0, taken.err
    with app.database() as connection:
        connection.execute("INSERT INTO books VALUES (4, 'lost')")
        connection.execute("DELETE FROM books WHERE id = 1")
    return app


def newest(app: App) -> str:
    name: str = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"][0]["name"]
    return name


def books(app: App, database: str = "") -> list[int]:
    with app.database(database) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM books ORDER BY id")]


def databases(app: App) -> list[str]:
    """Those beside the live one that are named after it."""
    with app.database("postgres") as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (f"{app.name}_",))
        return [row[0] for row in rows]


def asking(server: NornServer, operation_id: str) -> dict[str, Any]:
    """The operation once it asks."""
    return until(lambda: found if (found := server.operation(operation_id))["asks"] else None, "its question") or {}


def restore(app: App, **body: Any) -> dict[str, Any]:
    reply = app.server.api("POST", f"/api/apps/{app.name}/snapshots/{newest(app)}/restore", body)
    assert reply.status == 202, reply.body
    operation: dict[str, Any] = reply.body
    return operation


def test_a_restore_brings_the_snapshot_back_and_an_undo_what_was_live(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    done = shared_norn.norn("snapshots", "restore", app.name, newest(app), "--yes")
    assert done.exit_status == 0, done.err
    assert books(app) == [1, 2, 3]
    undone = shared_norn.norn("snapshots", "undo", app.name, "--yes")
    assert undone.exit_status == 0, undone.err
    assert books(app) == [2, 3, 4]


def test_after_an_undo_retention_knows_of_the_databases_that_there_are(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    assert shared_norn.norn("snapshots", "restore", app.name, newest(app), "--yes").exit_status == 0
    assert shared_norn.norn("snapshots", "undo", app.name, "--yes").exit_status == 0
    fates = shared_norn.norn("prune", app.name, "--dry-run").json()["fates"]
    with app.database() as connection:
        there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
    named = {fate["name"] for fate in fates if fate["kind"] == "database"}
    assert named == {name for name in there if name.startswith(f"{app.name}_before_restore_")}
    assert len(named) == 1


def test_it_asks_before_it_swaps_and_says_what_would_be_lost(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    operation = asking(shared_norn, restore(app)["id"])
    assert operation["asks"]["about"] == "loss"
    (table,) = operation["asks"]["loss"]["tables"]
    assert (table["table"], table["written"], table["deleted"]) == ("public.books", 1, 1)
    assert books(app) == [2, 3, 4], "nothing has been changed yet"
    shared_norn.api("POST", f"/api/operations/{operation['id']}/confirm")
    assert shared_norn.ended(operation["id"])["status"] == "succeeded"
    assert books(app) == [1, 2, 3]


def test_who_says_no_finds_everything_as_it_was(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    operation = asking(shared_norn, restore(app)["id"])
    shared_norn.api("POST", f"/api/operations/{operation['id']}/cancel")
    assert shared_norn.ended(operation["id"])["status"] == "cancelled"
    assert (books(app), databases(app)) == ([2, 3, 4], [])


def test_without_a_terminal_it_wants_a_yes_beforehand(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    refused = shared_norn.norn("snapshots", "restore", app.name, newest(app))
    assert refused.exit_status == 2
    assert "--yes" in refused.err


def test_a_confirmation_of_what_asks_nothing_is_refused(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    taken = shared_norn.api("POST", f"/api/apps/{app.name}/snapshots").body
    shared_norn.ended(taken["id"])
    assert shared_norn.api("POST", f"/api/operations/{taken['id']}/confirm").status == 409


def test_an_undo_says_what_it_would_lose(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    shared_norn.norn("snapshots", "restore", app.name, newest(app), "--yes")
    with app.database() as connection:
        connection.execute("INSERT INTO books VALUES (5, 'new')")
    started = shared_norn.api("POST", f"/api/apps/{app.name}/snapshots/undo").body
    operation = asking(shared_norn, started["id"])
    (table,) = operation["asks"]["loss"]["tables"]
    assert (table["written"], table["deleted"]) == (1, 0)
    shared_norn.api("POST", f"/api/operations/{operation['id']}/cancel")
    shared_norn.ended(operation["id"])
    assert books(app) == [1, 2, 3, 5]


def test_an_undo_after_the_schema_has_changed_is_refused(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    assert shared_norn.norn("snapshots", "restore", app.name, newest(app), "--yes").exit_status == 0
    with app.database() as connection:
        connection.execute("ALTER TABLE books ADD pages int")
    refused = shared_norn.norn("snapshots", "undo", app.name, "--yes")
    assert (refused.exit_status, refused.json()["code"]) == (4, "schema_differs")
    assert "pages" in refused.err
    assert books(app) == [1, 2, 3]


def test_with_no_restore_there_is_nothing_to_undo(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    assert shared_norn.norn("snapshots", "undo", app.name, "--yes").exit_status == 4


def test_a_restore_is_taken_back_once(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    shared_norn.norn("snapshots", "restore", app.name, newest(app), "--yes")
    assert shared_norn.norn("snapshots", "undo", app.name, "--yes").exit_status == 0
    assert shared_norn.norn("snapshots", "undo", app.name, "--yes").exit_status == 4


def test_the_app_reaches_the_restored_database_by_the_same_url(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    before = app.get("/env")
    shared_norn.norn("snapshots", "restore", app.name, newest(app), "--yes")
    assert app.get("/env") == before
    with app.database() as connection:
        row = connection.execute(
            "SELECT pg_get_userbyid(datdba), has_database_privilege('public', oid, 'CONNECT') FROM pg_database "
            "WHERE datname = current_database()"
        ).fetchone()
    assert row == (f"app_{app.name}", False)


def test_into_another_database_leaves_the_live_one_alone(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    done = shared_norn.norn("snapshots", "restore", app.name, newest(app), "--into", f"{app.name} look")
    assert done.exit_status == 0, done.err
    assert (books(app), books(app, f"{app.name} look")) == ([2, 3, 4], [1, 2, 3])


def test_into_a_database_that_is_there_is_refused(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    for name in (app.name, "postgres"):
        assert shared_norn.norn("snapshots", "restore", app.name, newest(app), "--into", name).exit_status == 4
    assert books(app) == [2, 3, 4]


def test_a_snapshot_of_another_schema_is_refused_and_says_what_differs(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    name = newest(app)
    app.declare("ALTER TABLE books DROP COLUMN title")
    app.deploy("two")
    refused = shared_norn.norn("snapshots", "restore", app.name, name, "--yes")
    assert refused.exit_status == 4
    assert "column public.books.title" in refused.err
    assert "--into" in refused.err


def test_an_unknown_snapshot_is_said_to_be_unknown(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    assert shared_norn.norn("snapshots", "restore", app.name, "nothing.dump", "--yes").exit_status == 3


def test_a_snapshot_of_another_app_is_not_this_ones(shared_norn: NornServer) -> None:
    mine, theirs = library(shared_norn), library(shared_norn)
    assert shared_norn.norn("snapshots", "restore", mine.name, newest(theirs), "--yes").exit_status == 3


def test_a_damaged_snapshot_leaves_the_live_database_as_it_was(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    path = shared_norn.home / "snapshots" / newest(app)
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    failed = shared_norn.norn("snapshots", "restore", app.name, newest(app), "--yes")
    assert failed.exit_status == 1
    assert (books(app), databases(app)) == ([2, 3, 4], [])


def test_whoever_shares_the_database_is_named_and_has_to_be_agreed_to(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    other = App(shared_norn, f"reader-of-{app.name}")
    other.spec(f"services: {{postgres: {{database: {app.name}}}}}\n")
    refused = shared_norn.norn("snapshots", "restore", app.name, newest(app), "--yes")
    assert refused.exit_status == 4
    assert f"--affects {other.name}" in refused.err
    done = shared_norn.norn("snapshots", "restore", app.name, newest(app), "--yes", "--affects", other.name)
    assert done.exit_status == 0, done.err
    assert books(app) == [1, 2, 3]


def test_what_takes_another_app_along_is_confirmed_or_stopped_by_those_alone_who_may_do_so_there(
    shared_norn: NornServer,
) -> None:
    app = library(shared_norn)
    other = App(shared_norn, f"borrower-of-{app.name}")
    other.spec(f"services: {{postgres: {{database: {app.name}}}}}\n")
    operation = asking(shared_norn, restore(app, affects=[other.name])["id"])
    body = {"name": f"for-{app.name}", "role": "admin", "apps": [app.name]}
    secret = shared_norn.api("POST", "/api/tokens", body).body["token"]
    path = f"/api/operations/{operation['id']}"
    assert shared_norn.api("POST", f"{path}/confirm", token=secret).status == 403
    assert shared_norn.api("POST", f"{path}/cancel", token=secret).status == 403
    assert shared_norn.api("POST", f"{path}/cancel").status == 202
    assert shared_norn.ended(operation["id"])["status"] == "cancelled"


def test_a_rollback_does_not_wait_for_a_restore_that_asks(shared_norn: NornServer) -> None:
    app = library(shared_norn)
    app.deploy("two")
    operation = asking(shared_norn, restore(app)["id"])
    back = shared_norn.norn("rollback", app.name)
    assert back.exit_status == 0, back.err
    assert shared_norn.operation(operation["id"])["status"] == "cancelled"
    assert (app.get(), books(app), databases(app)) == ("one", [2, 3, 4], [])


POINTS = [
    f"restore.{step}.{moment}" for step in ("restore", "compare", "swap") for moment in ("before", "begun", "ran")
]


@pytest.mark.parametrize("point", POINTS)
def test_a_server_killed_during_a_restore_is_followed_by_one_that_ends_it(point: str) -> None:
    with served() as server:
        app = library(server)
        server.stop()
        server.start(NORN_TEST_KILL_AT=point)
        with suppress(OSError, HTTPException):  # it may be killed before it can answer
            server.api("POST", f"/api/apps/{app.name}/snapshots/{newest(app)}/restore", {"confirm": True})
        assert server.process is not None
        server.process.wait(120)
        server.start()
        until(lambda: server.status(app.name)["operation"] is None, "its end")
        assert books(app) == [1, 2, 3]
        assert len(databases(app)) == 1, "what was live is kept, and nothing else is left"
        assert server.norn("snapshots", "undo", app.name, "--yes").exit_status == 0
        assert books(app) == [2, 3, 4]
