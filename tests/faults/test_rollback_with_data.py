"""The server is killed with SIGKILL anywhere in a rollback of code and data: the next one brings it to its end.

Whatever the point: code and data belong together, as much runs as before, and nothing else is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.apps import App
from tests.fixtures.archives import TITLED, UNTITLED, archive, books, healthy, more, tag_of
from tests.fixtures.norn import NornServer, survive, until

from norn.adapters.accounts import can_reach, for_apps

pytestmark = [
    pytest.mark.xdist_group("faults with data"),
    pytest.mark.skipif(not can_reach(Path(App.psql), for_apps()), reason="psql is where apps cannot reach it"),
]
POINTS = ["restore.ran", "stop.begun", "stop.ran", "swap.begun", "swap.ran", "switch.ran", "start.begun", "start.ran"]
MORE_POINTS = ["restore.begun", "compare.begun", "compare.ran", "switch.begun", "bake.begun", "end.before"]
UNDONE = ["start.undone", "switch.undone", "swap.undone", "stop.undone"]


@pytest.fixture(scope="module")
def app(shared_norn: NornServer) -> App:
    return archive(App(shared_norn, "archived"))


def databases(app: App) -> list[str]:
    """Copies that a restore has made and not put in place."""
    with app.database("postgres") as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (f"{app.name}_",))
        return [name for (name,) in rows if "_before_restore_" not in name]


def to_and_fro(app: App) -> tuple[Any, str, Any]:
    """From the bad version back, from the good one the undo of that; and what is to answer and to be there then."""
    path = f"/api/apps/{app.name}"
    if app.get() == "good":
        return lambda: app.server.api("POST", f"{path}/snapshots/undo", {"confirm": True}), "bad", UNTITLED
    body = {"restoreSnapshot": True, "confirm": True, "imageTag": tag_of(app, "good")}
    return lambda: app.server.api("POST", f"{path}/rollback", body), "good", TITLED


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(at, marks=pytest.mark.long) for at in MORE_POINTS)])
def test_it_goes_on_wherever_the_server_was_killed(app: App, point: str) -> None:
    ask, answer, data = to_and_fro(app)
    operation = survive(app.server, app.name, f"rollback.{point}", ask)
    assert operation["status"] == "succeeded", operation["error"]
    assert (app.get(), books(app), healthy(app)) == (answer, data, (2, 2))
    assert databases(app) == []


@pytest.mark.parametrize("point", UNDONE)
def test_one_that_fails_is_undone_wherever_the_server_was_killed(app: App, point: str) -> None:
    if app.get() == "good":
        to_and_fro(app)[0]()
        until(lambda: app.server.status(app.name)["operation"] is None, "the undo")
    app.declare("SELECT 1", more=more(gate="closed"))
    app.deploy(f"under another template at {point}")
    body = {"restoreSnapshot": True, "confirm": True, "imageTag": tag_of(app, "good")}
    operation = survive(
        app.server,
        app.name,
        f"rollback.{point}",
        lambda: app.server.api("POST", f"/api/apps/{app.name}/rollback", body),
    )
    assert (operation["status"], operation["error"].get("undoErrors")) == ("failed", None)
    assert (app.get(), books(app), healthy(app)) == (f"under another template at {point}", UNTITLED, (2, 2))
    assert databases(app) == []
