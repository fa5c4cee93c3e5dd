"""The server is killed with SIGKILL at each point at which the state on disk has changed, and the next one goes on.

Whatever the point: one live version answers, the history is true, nothing is locked, the next operation works.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, survive, until

MOMENTS = ("before", "begun", "ran")
DEPLOY_STEPS = ("clone", "build", "test", "snapshot", "migrate", "deploy", "bake", "cleanup")
ROLLBACK_STEPS = ("prepare", "switch", "rollout", "bake")


def point(name: str) -> Any:
    """Before a step the state is that of after the one before it: for the longer suite."""
    return pytest.param(name, marks=pytest.mark.long) if name.endswith(".before") else name


DEPLOY_POINTS = [
    point(f"deploy.{step}.{moment}")
    for step in DEPLOY_STEPS
    for moment in MOMENTS
    if (step, moment) != ("clone", "before")
]
ROLLBACK_POINTS = [point(f"rollback.{step}.{moment}") for step in ROLLBACK_STEPS for moment in MOMENTS]

MIGRATE = """\
import os
print("migrating", os.environ["DATABASE_URL"].rpartition("/")[2], os.environ["PGOPTIONS"])
"""


def check_history(server: NornServer, app: App) -> None:
    """The history agrees with what the runtime says, and nothing is at work any more."""
    status = server.status(app.name)
    assert status["operation"] is None
    history = server.history(app.name)
    live = [item for item in history if item["liveFrom"] and not item["liveUntil"]]
    assert [item["id"] for item in live] == [status["live"]["deploymentId"]]
    assert live[0]["imageTag"] == status["live"]["imageTag"]
    until(lambda: server.status(app.name)["health"]["healthy"], "an answer in time to a health check")
    ended = {"deployed", "failed", "cancelled", "rolled_back"}
    assert {item["status"] for item in history} <= ended
    assert not any((server.home / "work").iterdir())


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    return shared_norn


@pytest.fixture(scope="module")
def migrated(server: NornServer) -> App:
    """An app with everything that a deploy can do."""
    app = App(server, "whole")
    app.spec(
        'build: {command: sh -c "echo built", test: sh -c "echo tested"}\n'
        "services: {postgres: {database: whole}}\n"
        "migrations: {command: python3 migrate.py}\n",
        bake="1s",
    )
    app.deploy("version 0", files={"migrate.py": MIGRATE})
    return app


@pytest.mark.parametrize("point", [*DEPLOY_POINTS, "deploy.end.before", "deploy.end.after"])
def test_a_deploy_is_continued_wherever_the_server_was_killed(server: NornServer, migrated: App, point: str) -> None:
    answer = f"deployed through {point}"
    tag = migrated.commit(answer)
    operation = survive(server, migrated.name, point, lambda: server.api("POST", "/api/apps/whole/deploy").body)
    assert operation["status"] == "succeeded", operation["error"]
    assert migrated.get() == answer
    check_history(server, migrated)
    newest = server.history("whole")[0]
    assert (newest["imageTag"], newest["status"], bool(newest["provenAt"])) == (tag, "deployed", True)
    snapshots = server.api("GET", "/api/apps/whole/snapshots").body["snapshots"]
    assert newest["snapshot"] in {snapshot["name"] for snapshot in snapshots if snapshot["exists"]}
    assert not list((server.home / "snapshots").glob("*.part"))


@pytest.mark.parametrize("point", [*ROLLBACK_POINTS, "rollback.end.before", "rollback.end.after"])
def test_a_rollback_is_continued_wherever_the_server_was_killed(server: NornServer, migrated: App, point: str) -> None:
    good, tag = migrated.get(), server.status("whole")["live"]["imageTag"]
    migrated.deploy(f"bad before {point}")
    operation = survive(server, migrated.name, point, lambda: server.api("POST", "/api/apps/whole/rollback").body)
    assert operation["status"] == "succeeded", operation["error"]
    assert migrated.get() == good
    check_history(server, migrated)
    history = server.history("whole")
    assert (history[0]["imageTag"], history[0]["kind"], history[1]["status"]) == (tag, "rollback", "rolled_back")


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 20))])
def test_whenever_the_server_is_killed_a_deploy_and_a_rollback_come_to_their_end(
    server: NornServer, migrated: App, seed: int
) -> None:
    moments = random.Random(seed)
    for ask in ("deploy", "rollback"):
        answer = f"{ask} {seed}"
        tag = migrated.commit(answer) if ask == "deploy" else None
        accepted = server.api("POST", f"/api/apps/whole/{ask}").body
        time.sleep(moments.uniform(0, 1.5))  # at any moment, not at one that is waited for
        server.kill()
        server.start()
        operation = server.ended(accepted["id"])
        assert operation["status"] == "succeeded", operation["error"]
        check_history(server, migrated)
        assert tag in (None, server.status("whole")["live"]["imageTag"])


@pytest.mark.parametrize("point", ["deploy.undo.begun", "deploy.deploy.undone", "deploy.end.before"])
def test_a_failed_deploy_is_undone_wherever_the_server_was_killed(norn: NornServer, point: str) -> None:
    app = App(norn, "undone")
    app.deploy("good")
    app.commit("bad", extra="sys.exit('never starts')")
    operation = survive(norn, app.name, point, lambda: norn.api("POST", "/api/apps/undone/deploy").body)
    assert operation["status"] == "failed"
    assert app.get() == "good"
    check_history(norn, app)
    app.deploy("better")
    assert app.get() == "better"


def test_a_server_killed_in_the_middle_of_a_build_leaves_no_process_behind(norn: NornServer) -> None:
    app = App(norn, "orphans", more='build: {command: sh -c "sleep 4711 & exec sleep 4712"}\n')
    app.commit("one")
    deploy = norn.api("POST", "/api/apps/orphans/deploy").body
    norn.step_begun(deploy["id"], "build")
    until(lambda: len(sleepers()) == 2, "the build's processes")
    norn.kill()
    until(lambda: not sleepers(), "the end of the build's processes")
    norn.start()
    norn.api("POST", f"/api/operations/{deploy['id']}/cancel")
    assert norn.ended(deploy["id"])["status"] == "cancelled"
    assert not sleepers()


def sleepers() -> list[int]:
    """The processes of the build above that are there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0] == b"sleep" and words[1] in (b"4711", b"4712"):
                found.append(int(process.name))
    return found


def test_apps_answer_while_no_server_runs_and_the_next_one_finds_them(norn: NornServer) -> None:
    app = App(norn, "steady", more="replicas: 2\n")
    app.deploy("one")
    before = norn.status("steady")["live"]
    norn.kill()
    assert app.get() == "one"
    norn.start()
    assert norn.status("steady")["live"] == before
    until(lambda: norn.status("steady")["health"]["ready"] == 2, "an answer of both in time")
    app.deploy("two")
    assert app.get() == "two"
