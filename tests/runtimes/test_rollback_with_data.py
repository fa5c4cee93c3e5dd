"""Rolling back code and data as one, on each runtime, and taking that back again: one story, told in its order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.fixtures.apps import App, GitApp
from tests.fixtures.archives import TITLED, UNTITLED, archive, books, healthy, more, tag_of, with_data
from tests.fixtures.norn import survive, until
from tests.runtimes.conftest import World

from norn.adapters.accounts import can_reach, for_apps


@pytest.fixture(scope="module")
def app(world: World) -> GitApp:
    if world.space is None and not can_reach(Path(App.psql), for_apps()):
        pytest.skip("psql is where apps cannot reach it")
    return archive(world.app("archive"))


def test_code_and_data_go_back_together(app: GitApp) -> None:
    done = with_data(app)
    assert (app.get(), books(app), healthy(app)) == ("good", TITLED, (2, 2))
    assert done["result"]["loss"]["tables"][0]["table"] == "public.books"
    assert [step["step"] for step in done["steps"]][:7] == [
        "prepare", "restore", "compare", "stop", "swap", "switch", "start"
    ]  # fmt: skip


def test_an_undo_brings_both_forward_though_the_server_is_killed_while_the_app_is_stopped(app: GitApp) -> None:
    def undo() -> None:
        app.server.api("POST", f"/api/apps/{app.name}/snapshots/undo", {"confirm": True})

    operation = survive(app.server, app.name, "rollback.swap.ran", undo)
    assert operation["status"] == "succeeded", operation["error"]
    assert (app.get(), books(app), healthy(app)) == ("bad", UNTITLED, (2, 2))
    assert [entry["kind"] for entry in app.server.history(app.name)] == ["rollback", "rollback", "deploy", "deploy"]


def test_a_version_that_does_not_become_healthy_is_taken_back_with_its_data(app: GitApp) -> None:
    app.declare("SELECT 1", more=more(gate="closed"))
    app.deploy("worse")
    failed = app.server.norn("rollback", app.name, "--to", tag_of(app, "good"), "--restore-snapshot", "--yes")
    assert failed.exit_status == 1, failed.out
    operation = app.server.ended(failed.json()["id"])
    assert (operation["status"], operation["error"].get("undoErrors")) == ("failed", None)
    assert operation["result"] is None
    assert (app.get(), books(app), healthy(app)) == ("worse", UNTITLED, (2, 2))
    assert app.server.norn("snapshots", "undo", app.name, "--yes").exit_status == 4, "nothing has been restored"


def test_what_nobody_is_at_work_on_does_not_stay_halted(app: GitApp, world: World) -> None:
    mark = app.server.home / "apps" / app.name / "halted"
    if world.space is None:
        mark.touch()
        app.server.stop()
        app.server.start()
        until(lambda: not mark.exists(), "the end of the halt")
    else:
        name, note = f"deployment/{app.name}", "norn.dev/replicas-before"
        halted = {"metadata": {"annotations": {note: "2"}}, "spec": {"replicas": 0}}
        world.space.kubectl("patch", name, "--type=merge", "--patch", json.dumps(halted))
        space = world.space
        until(lambda: note not in space.kubectl("get", name, "-o", "jsonpath={.metadata.annotations}"), "its end")
    until(lambda: healthy(app) == (2, 2) and app.get() == "worse", "its processes")
