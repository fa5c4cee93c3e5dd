"""Rolling back code and data as one: what is asked, named and refused, and which data belongs to which version."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from tests.fixtures.apps import App
from tests.fixtures.archives import TITLED, UNTITLED, archive, books, healthy, more, tag_of, with_data
from tests.fixtures.norn import Finished, NornServer, until

from norn.adapters.accounts import can_reach, for_apps

pytestmark = [
    pytest.mark.xdist_group("rollback with data"),
    pytest.mark.skipif(not can_reach(Path(App.psql), for_apps()), reason="psql is where apps cannot reach it"),
]
numbers = itertools.count()


@pytest.fixture
def app(shared_norn: NornServer) -> App:
    return archive(App(shared_norn, f"archive{next(numbers)}"))


def test_it_asks_while_the_bad_version_still_serves_and_a_no_changes_nothing(app: App) -> None:
    server = app.server
    reply = server.api("POST", f"/api/apps/{app.name}/rollback", {"restoreSnapshot": True})
    assert reply.status == 202, reply.body
    asking = until(
        lambda: found if (found := server.operation(reply.body["id"]))["asks"] else None, "its question", timeout_s=60
    )
    assert asking is not None
    assert asking["asks"]["loss"]["tables"][0]["written"] == 1
    assert asking["asks"]["expectedDowntimeS"] > 0
    assert (app.get(), books(app)) == ("bad", UNTITLED)
    server.api("POST", f"/api/operations/{asking['id']}/cancel")
    assert server.ended(asking["id"])["status"] == "cancelled"
    assert (app.get(), books(app), healthy(app)) == ("bad", UNTITLED, (2, 2))


def test_after_the_code_alone_has_gone_back_it_brings_the_data_of_what_is_live(app: App) -> None:
    back = app.server.norn("rollback", app.name, "--force")
    assert back.exit_status == 0, back.err
    assert (app.get(), books(app)) == ("good", UNTITLED)
    with_data(app)
    assert (app.get(), books(app)) == ("good", TITLED)


def test_a_dry_run_names_the_data_and_the_downtime(app: App) -> None:
    plan = app.server.norn("rollback", app.name, "--restore-snapshot", "--dry-run").json()
    listed = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"]
    assert plan["target"]["restore"]["snapshot"] == listed[0]["name"]
    assert plan["target"]["restore"]["expectedDowntimeS"] > 0
    assert (app.get(), books(app)) == ("bad", UNTITLED)


def test_a_dry_run_counts_what_would_be_lost(app: App) -> None:
    plan = app.server.norn("rollback", app.name, "--restore-snapshot", "--dry-run").json()
    (books_lost,) = plan["target"]["restore"]["loss"]["tables"]
    assert (books_lost["table"], books_lost["written"]) == ("public.books", 1)
    shown = app.server.norn("rollback", app.name, "--restore-snapshot", "--dry-run", "-o", "text").out
    assert f"would be lost:\n    {plan['target']['restore']['lossText']}\n" in shown


def test_a_snapshot_of_another_schema_points_to_the_rollback_with_data(app: App) -> None:
    name = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"][0]["name"]
    refused = app.server.norn("snapshots", "restore", app.name, name, "--yes")
    good = next(entry for entry in app.server.history(app.name) if entry["commitSubject"] == "answer good")
    assert (refused.exit_status, refused.json()["code"]) == (4, "schema_differs")
    assert f"norn rollback {app.name} --to {good['imageTag']} --restore-snapshot" in refused.err


def test_after_its_undo_the_same_command_goes_to_the_same_version_again(app: App) -> None:
    assert app.server.norn("rollback", app.name, "--force").exit_status == 0
    with_data(app)
    undone = app.server.norn("snapshots", "undo", app.name, "--yes")
    assert undone.exit_status == 0, undone.err
    app.server.ended(undone.json()["id"])
    assert (app.get(), books(app)) == ("good", UNTITLED)
    with_data(app)
    assert (app.get(), books(app)) == ("good", TITLED)


def test_an_undo_is_refused_while_a_rollback_with_data_is_under_way(app: App) -> None:
    server = app.server
    reply = server.api("POST", f"/api/apps/{app.name}/rollback", {"restoreSnapshot": True})
    until(lambda: server.operation(reply.body["id"])["asks"], "its question")
    refused = server.api("POST", f"/api/apps/{app.name}/snapshots/undo", {"confirm": True})
    assert (refused.status, refused.body["code"]) == (409, "busy")
    server.api("POST", f"/api/operations/{reply.body['id']}/cancel")
    assert server.ended(reply.body["id"])["status"] == "cancelled"


def test_what_was_written_to_data_that_is_taken_back_is_kept_beside_it(app: App) -> None:
    server = app.server
    app.declare("SELECT 1", more=more(gate="closed"))
    app.deploy("worse")
    hold = app.home / "hold"
    hold.touch()
    body = {"restoreSnapshot": True, "confirm": True, "imageTag": tag_of(app, "good")}
    reply = server.api("POST", f"/api/apps/{app.name}/rollback", body)
    server.step_begun(reply.body["id"], "start")  # and goes on until there is no `hold` any more
    with app.database() as connection:
        connection.execute("INSERT INTO books VALUES (5, 'acknowledged')")
    hold.unlink()
    failed = server.ended(reply.body["id"])
    assert (failed["status"], failed["error"].get("undoErrors"), books(app)) == ("failed", None, UNTITLED)
    restored = next(step["output"] for step in failed["steps"] if step["step"] == "restore")
    kept = re.search(r"(\S+) was written to while it was live", restored)
    assert kept is not None, restored
    with app.database(kept[1]) as connection:
        assert connection.execute("SELECT title FROM books WHERE id = 5").fetchone() == ("acknowledged",)
    assert server.norn("snapshots", "undo", app.name, "--yes").exit_status == 4, "there is nothing to take back"


def shelf(server: NornServer) -> App:
    """Its first version is live, with a table."""
    app = App(server, f"stays{next(numbers)}")
    app.declare("CREATE TABLE books (id bigint PRIMARY KEY, title text)")
    app.deploy("one")
    return app


def migrated_in_vain(app: App, statement: str) -> Finished:
    """A deploy whose migration has happened, and whose version cannot start."""
    app.declare(statement)
    app.commit("two", extra="raise SystemExit('cannot start')")
    failed = app.server.norn("deploy", app.name)
    assert failed.exit_status == 1
    return failed


def test_a_deploy_that_fails_after_its_migration_says_what_stays_and_the_way_back_that_it_names_works(
    shared_norn: NornServer,
) -> None:
    app = shelf(shared_norn)
    live = shared_norn.status(app.name)["live"]["imageTag"]
    failed = migrated_in_vain(app, "ALTER TABLE books RENAME COLUMN title TO name")
    assert "What the migration has committed stays in the database." in failed.err
    assert "undone" not in "".join(line for line in failed.err.splitlines() if re.search("migrate|snapshot", line))
    steps = {step["step"]: step["status"] for step in shared_norn.operation(failed.json()["id"])["steps"]}
    assert (steps["snapshot"], steps["migrate"], steps["deploy"]) == ("done", "done", "failed")
    command = re.search(r"`norn (rollback \S+ --to \S+ --restore-snapshot)`", failed.err)
    assert command is not None, failed.err
    back = shared_norn.norn(*command[1].split(), "--yes")
    assert back.exit_status == 0, back.err
    assert (shared_norn.status(app.name)["live"]["imageTag"], app.get()) == (live, "one")
    with app.database() as connection:
        assert connection.execute("SELECT count(title) FROM books").fetchone() == (0,)


def test_where_the_way_back_would_take_an_older_snapshot_a_failed_deploy_says_that(shared_norn: NornServer) -> None:
    app = shelf(shared_norn)
    migrated_in_vain(app, "ALTER TABLE books ADD COLUMN pages integer")
    failed = migrated_in_vain(app, "ALTER TABLE books RENAME COLUMN title TO name")
    newer, older = (
        row["name"] for row in shared_norn.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"][:2]
    )
    assert f"The data as they were before it are in {newer}" in failed.err
    assert f"takes an older one, {older}, and loses what was written since" in failed.err


def test_a_deploy_that_fails_after_a_harmless_migration_says_that_what_is_live_goes_on(shared_norn: NornServer) -> None:
    app = shelf(shared_norn)
    live = shared_norn.status(app.name)["live"]["imageTag"]
    failed = migrated_in_vain(app, "ALTER TABLE books ADD COLUMN pages integer")
    assert f"{live}, which is live, can go on with it" in failed.err


def test_the_data_of_what_is_live_can_be_had_after_a_deploy_has_failed(app: App) -> None:
    with_data(app)
    app.declare("ALTER TABLE books DROP COLUMN title", more=more())
    app.commit("worse", extra="sys.exit('never starts')")
    assert app.server.norn("deploy", app.name).exit_status == 1
    assert (app.get(), len(books(app)[0])) == ("good", 1), "its migration has happened"
    with_data(app, "--to", tag_of(app, "good"))
    assert (app.get(), books(app)) == ("good", TITLED)
