"""A version that fails its bake is rolled back by itself: once, to the target, and only where that helps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.apps import ILL_ALONE, App
from tests.fixtures.norn import NornServer, survive, until
from tests.fixtures.own_database import database

from norn.adapters.accounts import can_reach, for_apps

pytestmark = pytest.mark.xdist_group("automatic")
"""One server for all of it."""


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    return shared_norn


def falls_ill(server: NornServer, app: App) -> dict[str, Any]:
    """Deploys a version that falls ill while it bakes; its operation, once that has ended."""
    app.commit("two")
    id_ = server.api("POST", f"/api/apps/{app.name}/deploy").body["id"]
    server.rolled_out(id_)
    app.fall_ill()
    return server.ended(id_)


def falls_ill_alone(server: NornServer, app: App) -> str:
    """Deploys what was committed, which falls ill while it bakes; its id."""
    id_: str = server.api("POST", f"/api/apps/{app.name}/deploy").body["id"]
    server.rolled_out(id_)
    app.fall_ill_alone()
    return id_


def restarted(server: NornServer, app: App, times: int) -> None:
    for time in range(1, times + 1):
        app.get("/exit")
        until(lambda time=time: server.status(app.name)["health"]["restarts"] == time, "the restart")  # type: ignore[misc]
        until(lambda: server.status(app.name)["health"]["healthy"], "its health")


def test_a_version_that_is_restarted_twice_while_it_bakes_is_rolled_back(server: NornServer) -> None:
    app = App(server, "restless")
    app.deploy("one")
    app.spec(bake="60s")
    app.commit("two")
    id_ = server.api("POST", "/api/apps/restless/deploy").body["id"]
    server.rolled_out(id_)
    with database(server) as connection:  # restarts count from the first check on, of which nothing else tells
        query = "SELECT FROM operations WHERE id = %s AND state ? 'restartsBefore'"
        until(lambda: connection.execute(query, [id_]).fetchall(), "the first check")
    app.get("/exit")
    until(lambda: server.status("restless")["health"]["healthy"], "its health")
    app.get("/exit")
    failed = server.ended(id_)
    server.ended(failed["error"]["automatic"]["deploymentId"])
    assert "It was restarted 2 times" in failed["error"]["message"]
    assert app.get() == "one"


def test_restarts_of_before_its_bake_are_not_its_own(server: NornServer) -> None:
    app = App(server, "reborn")
    app.deploy("one")
    restarted(server, app, 2)
    app.spec('build: {test: sh -c "sleep 60"}\n')
    app.commit("two")
    deploy = server.api("POST", "/api/apps/reborn/deploy").body["id"]
    server.step_begun(deploy, "test")
    ensured = server.ended(server.norn("rollback", "reborn").json()["id"])
    assert ensured["status"] == "succeeded", ensured["error"]


def test_where_it_is_switched_off_it_reports_and_the_version_stays(server: NornServer) -> None:
    app = App(server, "by-hand")
    app.deploy("one")
    app.spec(bake="60s")
    text = (app.path / "infraspec.yaml").read_text()
    (app.path / "infraspec.yaml").write_text(text.replace("bake: 60s", "bake: 60s, auto: false"))
    failed = falls_ill(server, app)
    app.get_well()
    assert (failed["error"]["code"], failed["error"]["automatic"]["goes"]) == ("bake_failed", False)
    assert "rollback.auto is off" in failed["error"]["hint"]
    assert [entry["status"] for entry in server.history("by-hand")] == ["failed", "deployed"]
    assert app.get() == "two"


def test_what_a_version_printed_before_it_was_rolled_back_stands_in_its_bake(server: NornServer) -> None:
    app = App(server, "talkative")
    app.deploy("one")
    app.spec(bake="60s")
    app.commit("two", extra="print('the cache is cold', flush=True)")
    id_ = server.api("POST", f"/api/apps/{app.name}/deploy").body["id"]
    server.rolled_out(id_)
    app.fall_ill()
    failed = server.ended(id_)
    app.get_well()
    server.ended(failed["error"]["automatic"]["deploymentId"])
    bake = next(step["output"] for step in failed["steps"] if step["step"] == "bake")
    assert "the last of what it printed:\n" in bake
    assert "the cache is cold" in bake
    assert "the cache is cold" not in server.norn("logs", app.name).out, "that is what would have been lost"


def test_where_going_back_is_not_enough_it_reports_and_waits(server: NornServer) -> None:
    if not can_reach(Path(App.psql), for_apps()):
        pytest.skip("psql is where apps cannot reach it")
    app = App(server, "not-enough")
    app.declare("CREATE TABLE books (id bigint, title text)")
    app.deploy("one")
    app.declare("ALTER TABLE books DROP COLUMN title")
    text = (app.path / "infraspec.yaml").read_text()
    (app.path / "infraspec.yaml").write_text(text.replace("bake: 0s", "bake: 60s"))
    failed = falls_ill(server, app)
    app.get_well()
    automatic = failed["error"]["automatic"]
    assert (automatic["goes"], automatic["verdict"]["level"]) == (False, "unsafe")
    assert "title" in automatic["why"]
    assert app.get() == "two"
    assert len(server.history("not-enough")) == 2


def test_where_what_was_live_before_was_ill_as_well_it_is_not_the_version(server: NornServer) -> None:
    app = App(server, "both-ill")
    app.deploy("one")
    app.fall_ill()
    until(lambda: not server.status("both-ill")["health"]["healthy"], "the illness")
    app.spec(bake="60s")
    app.commit("two", extra=ILL_ALONE)
    failed = server.ended(falls_ill_alone(server, app))
    assert failed["status"] == "failed"
    assert "it is not the version" in failed["error"]["hint"]
    assert (app.get(), len(server.history("both-ill"))) == ("two", 2)


def test_a_rollback_that_was_automatic_and_fails_as_well_is_not_followed_by_another(server: NornServer) -> None:
    app = App(server, "once")
    app.deploy("zero")
    app.deploy("one", extra='if os.path.exists(os.environ["HOME"] + "/sick"): sys.exit("cannot start")')
    app.spec(bake="60s")
    failed = falls_ill(server, app)  # and does not get well
    back = server.ended(failed["error"]["automatic"]["deploymentId"])
    app.get_well()
    assert back["status"] == "failed"
    assert server.status("once")["operation"] is None
    assert [entry["kind"] for entry in server.history("once")] == ["rollback", "deploy", "deploy", "deploy"]


def test_the_command_waits_for_it_and_exits_with_one(server: NornServer) -> None:
    app = App(server, "waited-for")
    good = app.deploy("one")
    app.spec(bake="60s")
    app.commit("two", extra=ILL_ALONE)
    with ThreadPoolExecutor(1) as pool:
        deploying = pool.submit(server.norn, "deploy", "waited-for")
        until(lambda: len(server.history("waited-for")) == 2, "the deploy")
        id_ = server.history("waited-for")[0]["id"]
        server.rolled_out(id_)
        app.fall_ill_alone()
        failed = deploying.result()
    assert (failed.exit_status, failed.json()["error"]["automatic"]["imageTag"]) == (1, good)
    assert app.get() == "one"
    assert (server.history("waited-for")[0]["requestedBy"], server.status("waited-for")["live"]["imageTag"]) == (
        "norn",
        good,
    )


def test_a_server_that_is_killed_as_the_deploy_ends_is_no_reason_for_it_to_be_forgotten(server: NornServer) -> None:
    app = App(server, "remembered")
    app.deploy("one")
    app.spec(bake="60s")
    app.commit("two", extra=ILL_ALONE)
    survive(server, "remembered", "deploy.end.before", lambda: falls_ill_alone(server, app))
    until(lambda: app.get() == "one", "the version before")
    assert [entry["kind"] for entry in server.history("remembered")] == ["rollback", "deploy", "deploy"]


def test_what_the_checks_said_is_kept(server: NornServer) -> None:
    app = App(server, "kept")
    app.deploy("one")
    app.fall_ill()
    found = until(lambda: now if (now := checks(server, "kept")) and not now[0]["healthy"] else [], "a check")
    app.get_well()
    assert "status 503" in found[0]["message"]
    assert found[-1]["responseMs"] > 0
    lately = server.status("kept")["lately"]
    assert (lately["failed"] >= 1, lately["last"]["message"]) == (True, found[0]["message"])


def checks(server: NornServer, app: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.api("GET", f"/api/apps/{app}/health").body["checks"]
    return found
