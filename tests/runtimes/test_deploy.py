"""Deploying, on each runtime: each step, and what is left when one fails."""

from __future__ import annotations

import pytest
from tests.fixtures.norn import until
from tests.runtimes.conftest import World


def test_the_steps_of_a_deploy_have_times_and_output(world: World) -> None:
    app = world.app("steps")
    app.commit("one")
    deployment = world.server.deploy("steps")
    assert [step["step"] for step in deployment["steps"]] == [
        "clone", "build", "test", "snapshot", "migrate", "deploy", "bake", "cleanup",
    ]  # fmt: skip
    assert all(step["status"] == "done" and step["durationMs"] >= 0 and step["output"] for step in deployment["steps"])
    assert deployment["digest"].startswith("sha256:")
    assert deployment["provenAt"]
    assert not any((world.server.home / "work").iterdir())


def test_what_is_deployed_is_the_commit_not_the_directory(world: World) -> None:
    app = world.app("clean")
    app.commit("committed")
    (app.path / "server.py").write_text("raise SystemExit('not committed')")
    world.server.deploy("clean")
    assert app.get() == "committed"


def test_a_version_that_falls_ill_while_it_bakes_is_rolled_back_by_itself(world: World) -> None:
    app = world.app("later")
    app.deploy("one")
    app.spec(bake="60s")
    app.commit("two")
    deploy = world.server.api("POST", "/api/apps/later/deploy").body
    until(lambda: world.server.operation(deploy["id"])["committed"], "the rollout")
    assert app.get() == "two"
    app.fall_ill()
    until(lambda: world.server.operation(deploy["id"])["steps"][-1]["step"] == "bake", "the bake")
    until(lambda: "failed in a row" in world.server.operation(deploy["id"])["steps"][-1]["output"], "three failures")
    app.get_well()
    failed = world.server.ended(deploy["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "bake_failed")
    back = failed["error"]["automatic"]["deploymentId"]
    world.server.rolled_out(back)
    assert app.get() == "one"
    rollback, bad, good = world.server.history("later")
    assert (rollback["id"], rollback["kind"], rollback["imageTag"]) == (back, "rollback", good["imageTag"])
    assert (rollback["requestedBy"], bad["status"]) == ("norn", "rolled_back")
    assert world.server.norn("deploy", "later").exit_status == 4


def test_a_second_deploy_while_one_is_at_work_is_busy(world: World) -> None:
    app = world.app("one-at-a-time", more='build: {test: sh -c "sleep 60"}\n')
    app.commit("one")
    first = world.server.api("POST", "/api/apps/one-at-a-time/deploy").body
    world.server.step_begun(first["id"], "test")
    second = world.server.norn("deploy", "one-at-a-time")
    assert (second.exit_status, second.json()["code"], second.json()["operationId"]) == (5, "busy", first["id"])
    cancelled = world.server.norn("cancel", first["id"], "--reason", "wrong branch")
    assert cancelled.exit_status == 0, cancelled.err
    assert world.server.operation(first["id"])["status"] == "cancelled"
    assert world.server.history("one-at-a-time")[0]["status"] == "cancelled"
    assert "wrong branch" in world.server.history("one-at-a-time")[0]["error"]["message"]


def test_a_restart_brings_new_processes_of_the_same_image(world: World) -> None:
    app = world.app("again")
    tag = app.deploy("one")
    assert world.server.norn("restart", "again").exit_status == 0
    assert (app.get(), world.server.status("again")["live"]["imageTag"]) == ("one", tag)
    assert len(world.server.history("again")) == 1


def test_a_failed_step_stops_the_deploy_shows_its_output_and_leaves_what_was_live(world: World) -> None:
    app = world.app("fails")
    app.deploy("one")
    app.spec('build: {test: sh -c "echo 1 test failed; exit 1"}\n')
    app.commit("two")
    finished = world.server.norn("deploy", "fails")
    assert finished.exit_status == 1
    assert finished.json()["status"] == "failed"
    (failed,) = [step for step in finished.json()["steps"] if step["status"] == "failed"]
    assert failed["step"] == "test"
    assert "1 test failed" in failed["output"]
    assert "1 test failed" in finished.err
    assert app.get() == "one"
    history = world.server.history("fails")
    assert world.server.status("fails")["live"]["deploymentId"] == history[1]["id"]


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ("sys.exit('cannot import name frobnicate')", "cannot import name frobnicate"),
        ("open(os.environ['HOME'] + '/sick', 'w').close()", "503"),
    ],
    ids=["it ends at once", "its health check fails"],
)
def test_a_version_that_does_not_become_healthy_is_put_back_with_the_reason(
    world: World, extra: str, word: str
) -> None:
    app = world.app("ill-at-once" if "exit" in extra else "ill-a-bit-later")
    app.deploy("one")
    app.spec(timeout="60s" if "exit" in extra else "30s")  # within which it has to come to its health check
    app.commit("two", extra=extra)
    finished = world.server.norn("deploy", app.name)
    assert finished.exit_status == 1
    assert word in finished.out
    app.get_well()
    assert app.get() == "one"
    history = world.server.history(app.name)
    assert world.server.status(app.name)["live"]["imageTag"] == history[1]["imageTag"]


def test_a_first_version_that_does_not_become_healthy_leaves_nothing_live(world: World) -> None:
    app = world.app("stillborn")
    app.commit("one", extra="sys.exit('cannot start')")
    finished = world.server.norn("deploy", "stillborn")
    assert finished.exit_status == 1
    assert "cannot start" in finished.out
    assert world.server.status("stillborn")["live"] is None


def test_secrets_reach_the_app_and_nothing_else(world: World) -> None:
    app = world.app("keeper", more="secrets: [API_KEY]\n")
    norn = world.server
    assert norn.norn("secrets", "set", "keeper", "API_KEY", stdin="s3cr3t-väl'ue\n").exit_status == 0
    app.deploy("one")
    assert "API_KEY=s3cr3t-väl'ue" in app.get("/env")
    assert "s3cr3t" not in norn.log.read_text()
    assert "s3cr3t" not in norn.norn("history", "keeper").out


def test_logs_are_followed_across_a_deploy(world: World) -> None:
    app = world.app("chats")
    app.deploy("one")
    with world.server.running("logs", "chats", "--follow") as lines:
        assert next(lines).endswith("serving one\n")
        app.deploy("two")
        assert any(line.endswith("serving two\n") for line in lines)


def test_a_server_that_was_killed_and_started_again_finds_the_app_as_it_was(world: World) -> None:
    app = world.app("orphan", more="replicas: 2\n")
    app.deploy("one")
    live = world.server.status("orphan")["live"]
    world.server.kill()
    world.server.start()
    until(lambda: (found := world.server.status("orphan")["health"]) and found["ready"] == 2, "both")
    assert (world.server.status("orphan")["live"], app.get()) == (live, "one")
