"""Rolling back code and data as one, on each runtime, and taking that back again."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.apps import App, GitApp
from tests.fixtures.norn import until
from tests.runtimes.conftest import World

from norn.adapters.accounts import can_reach, for_apps

GATE = "if os.environ.get('GATE') == 'closed': sys.exit('not under this template')"
numbers = itertools.count()


@pytest.fixture(autouse=True)
def psql_can_be_reached(world: World) -> None:
    if world.space is None and not can_reach(Path(App.psql), for_apps()):
        pytest.skip("psql is where apps cannot reach it")


@pytest.fixture
def app(world: World) -> GitApp:
    """A good version with three titled books; the bad one, which is live, has dropped the titles and written a book."""
    app = world.app(f"archive{next(numbers)}")
    app.declare("CREATE TABLE books (id bigint PRIMARY KEY, title text)", more="replicas: 2\nenv: {GATE: open}\n")
    app.deploy("good", extra=GATE)
    with app.database() as connection:
        connection.execute("INSERT INTO books SELECT n, 'book ' || n FROM generate_series(1, 3) AS n")
    app.declare("ALTER TABLE books DROP COLUMN title", more="replicas: 2\nenv: {GATE: open}\n")
    app.deploy("bad")
    with app.database() as connection:
        connection.execute("INSERT INTO books VALUES (4)")
    return app


def books(app: GitApp) -> list[tuple[Any, ...]]:
    with app.database() as connection:
        return connection.execute("SELECT * FROM books ORDER BY id").fetchall()


TITLED = [(1, "book 1"), (2, "book 2"), (3, "book 3")]
UNTITLED = [(1,), (2,), (3,), (4,)]


def with_data(app: GitApp, *more: str) -> dict[str, Any]:
    done = app.server.norn("rollback", app.name, "--restore-snapshot", "--yes", *more)
    assert done.exit_status == 0, done.err
    app.server.ended(done.json()["id"])
    document: dict[str, Any] = done.json()
    return document


def healthy(app: GitApp) -> tuple[int, int]:
    """How many are wanted, and how many are ready."""
    health = app.server.status(app.name)["health"]
    return health["wanted"], health["ready"]


def test_code_and_data_go_back_together_and_an_undo_brings_both_forward(app: GitApp) -> None:
    done = with_data(app)
    assert (app.get(), books(app), healthy(app)) == ("good", TITLED, (2, 2))
    assert done["result"]["loss"]["tables"][0]["table"] == "public.books"
    assert [step["step"] for step in done["steps"]][:7] == [
        "prepare", "restore", "compare", "stop", "swap", "switch", "start"
    ]  # fmt: skip

    undone = app.server.norn("snapshots", "undo", app.name, "--yes")
    assert undone.exit_status == 0, undone.err
    app.server.ended(undone.json()["id"])
    assert (app.get(), books(app), healthy(app)) == ("bad", UNTITLED, (2, 2))
    assert [entry["kind"] for entry in app.server.history(app.name)] == ["rollback", "rollback", "deploy", "deploy"]


def test_it_asks_while_the_bad_version_still_serves_and_a_no_changes_nothing(app: GitApp) -> None:
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


def test_after_the_code_alone_has_gone_back_it_brings_the_data_of_what_is_live(app: GitApp) -> None:
    back = app.server.norn("rollback", app.name)
    assert back.exit_status == 0, back.err
    assert (app.get(), books(app)) == ("good", UNTITLED)
    with_data(app)
    assert (app.get(), books(app)) == ("good", TITLED)


def test_a_version_that_does_not_become_healthy_is_taken_back_with_its_data(app: GitApp) -> None:
    app.declare("SELECT 1", more="replicas: 2\nenv: {GATE: closed}\n")
    app.deploy("worse")
    good = next(entry for entry in app.server.history(app.name) if entry["commitSubject"] == "answer good")
    failed = app.server.norn("rollback", app.name, "--to", good["imageTag"], "--restore-snapshot", "--yes")
    assert failed.exit_status == 1, failed.out
    operation = app.server.ended(failed.json()["id"])
    assert (operation["status"], operation["error"].get("undoErrors")) == ("failed", None)
    assert (app.get(), books(app), healthy(app)) == ("worse", UNTITLED, (2, 2))
    assert app.server.norn("snapshots", "undo", app.name, "--yes").exit_status != 0, "nothing has been restored"


def test_a_dry_run_names_the_data_and_the_downtime(app: GitApp) -> None:
    plan = app.server.norn("rollback", app.name, "--restore-snapshot", "--dry-run").json()
    listed = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"]
    assert plan["target"]["restore"]["snapshot"] == listed[0]["name"]
    assert plan["target"]["restore"]["expectedDowntimeS"] > 0
    assert (app.get(), books(app)) == ("bad", UNTITLED)


def test_a_snapshot_of_another_schema_points_to_the_rollback_with_data(app: GitApp) -> None:
    name = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"][0]["name"]
    refused = app.server.norn("snapshots", "restore", app.name, name, "--yes")
    good = next(entry for entry in app.server.history(app.name) if entry["commitSubject"] == "answer good")
    assert (refused.exit_status, refused.json()["code"]) == (4, "schema_differs")
    assert f"norn rollback {app.name} --to {good['imageTag']} --restore-snapshot" in refused.err
