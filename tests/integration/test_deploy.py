"""Deploying, on a real server: each step, and what is left when one fails."""

from __future__ import annotations

import os
import re
import socket

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, until


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    return shared_norn


def failed_step(deployment: dict[str, object]) -> tuple[str, str]:
    """The step that failed, and what it printed."""
    steps = deployment["steps"]
    assert isinstance(steps, list)
    (found,) = [step for step in steps if step["status"] == "failed"]
    return found["step"], found["output"]


def test_the_steps_of_a_deploy_have_times_and_output(server: NornServer) -> None:
    app = App(server, "steps")
    app.commit("one")
    deployment = server.deploy("steps")
    assert [step["step"] for step in deployment["steps"]] == [
        "clone", "build", "test", "snapshot", "migrate", "deploy", "bake", "cleanup",
    ]  # fmt: skip
    assert all(step["status"] == "done" and step["durationMs"] >= 0 and step["output"] for step in deployment["steps"])
    assert deployment["digest"].startswith("sha256:")
    assert deployment["provenAt"]
    assert not any((server.home / "work").iterdir())


def test_what_is_deployed_is_the_commit_not_the_directory(server: NornServer) -> None:
    app = App(server, "clean")
    app.commit("committed")
    (app.path / "server.py").write_text("raise SystemExit('not committed')")
    server.deploy("clean")
    assert app.get() == "committed"


def test_a_ref_may_be_a_branch_a_tag_or_an_abbreviated_commit(server: NornServer) -> None:
    app = App(server, "refs")
    one = app.commit("one")
    app.git("tag", "v1")
    app.git("branch", "old")
    app.commit("two")
    for ref in ("v1", "old", one.partition(":")[2]):
        assert server.deploy("refs", ref)["imageTag"] == one


@pytest.mark.parametrize(
    ("more", "step", "printed"),
    [
        ('build: {command: sh -c "echo compiling; exit 7"}\n', "build", "compiling"),
        ('build: {test: sh -c "echo 1 test failed; exit 1"}\n', "test", "1 test failed"),
    ],
    ids=["build", "test"],
)
def test_a_failed_step_stops_the_deploy_shows_its_output_and_leaves_what_was_live(
    norn: NornServer, more: str, step: str, printed: str
) -> None:
    app = App(norn, "fails")
    app.deploy("one")
    app.spec(more)
    app.commit("two")
    finished = norn.norn("deploy", "fails")
    assert finished.exit_status == 1
    assert finished.json()["status"] == "failed"
    failed, output = failed_step(finished.json())
    assert (failed, printed in output, printed in finished.err) == (step, True, True)
    assert app.get() == "one"
    assert norn.status("fails")["live"]["deploymentId"] == norn.history("fails")[1]["id"]
    app.spec()
    app.deploy("three")
    assert app.get() == "three"


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ("sys.exit('cannot import name frobnicate')", "cannot import name frobnicate"),
        ("open(os.environ['HOME'] + '/sick', 'w').close()", "503"),
    ],
    ids=["it ends at once", "its health check fails"],
)
def test_a_version_that_does_not_become_healthy_is_put_back_with_the_reason(
    norn: NornServer, extra: str, word: str
) -> None:
    app = App(norn, "ill")
    app.deploy("one")
    app.spec("rollback: {bake: 0s, timeout: 4s}\n".replace("rollback", "env: {A: b}\n#rollback"))
    text = (app.path / "infraspec.yaml").read_text().replace("timeout: 20s", "timeout: 4s")
    (app.path / "infraspec.yaml").write_text(text)
    app.commit("two", extra=extra)
    finished = norn.norn("deploy", "ill")
    assert finished.exit_status == 1
    assert word in finished.out
    (app.home / "sick").unlink(missing_ok=True)
    assert app.get() == "one"
    assert norn.status("ill")["live"]["imageTag"] == norn.history("ill")[1]["imageTag"]


def test_a_version_that_falls_ill_while_it_bakes_is_put_back(norn: NornServer) -> None:
    app = App(norn, "later")
    app.deploy("one")
    app.spec(bake="60s")
    app.commit("two")
    deploy = norn.api("POST", "/api/apps/later/deploy").body
    until(lambda: norn.operation(deploy["id"])["committed"], "the rollout")
    assert app.get() == "two"
    (app.home / "sick").touch()
    until(lambda: norn.operation(deploy["id"])["steps"][-1]["step"] == "bake", "the bake")
    until(lambda: "failed in a row" in norn.operation(deploy["id"])["steps"][-1]["output"], "three failures")
    (app.home / "sick").unlink()
    assert norn.ended(deploy["id"])["status"] == "failed"
    assert app.get() == "one"
    history = norn.history("later")
    assert (history[0]["status"], history[1]["liveUntil"]) == ("failed", None)


def test_a_port_in_use_is_refused_before_anything_is_built(server: NornServer) -> None:
    app = App(server, "taken")
    app.commit("one")
    with socket.create_server(("127.0.0.1", app.port)):
        finished = server.norn("deploy", "taken")
    assert finished.exit_status == 1
    assert finished.json()["code"] == "port_in_use"
    assert str(app.port) in finished.err


def test_a_second_deploy_while_one_is_at_work_is_busy(norn: NornServer) -> None:
    app = App(norn, "one-at-a-time", more='build: {command: sh -c "sleep 60"}\n')
    app.commit("one")
    first = norn.api("POST", "/api/apps/one-at-a-time/deploy").body
    norn.step_begun(first["id"], "build")
    second = norn.norn("deploy", "one-at-a-time")
    assert (second.exit_status, second.json()["code"], second.json()["operationId"]) == (5, "busy", first["id"])
    cancelled = norn.norn("cancel", first["id"], "--reason", "wrong branch")
    assert cancelled.exit_status == 0, cancelled.err
    assert norn.operation(first["id"])["status"] == "cancelled"
    assert norn.history("one-at-a-time")[0]["status"] == "cancelled"
    assert "wrong branch" in norn.history("one-at-a-time")[0]["error"]["message"]


def test_deploy_false_is_refused(server: NornServer) -> None:
    app = App(server, "paused", more="deploy: false\n")
    app.commit("one")
    finished = server.norn("deploy", "paused")
    assert (finished.exit_status, finished.json()["code"]) == (4, "not_deployable")


def test_output_is_streamed_while_a_step_runs(norn: NornServer) -> None:
    app = App(norn, "chatty", more='build: {command: sh -c "echo begun; sleep 60"}\n')
    app.commit("one")
    deploy = norn.api("POST", "/api/apps/chatty/deploy").body

    def printed() -> bool:
        steps = norn.operation(deploy["id"])["steps"]
        return any("begun" in step["output"] for step in steps)

    until(printed, "the build's first line while it runs")
    assert norn.operation(deploy["id"])["status"] == "running"


def test_a_full_disk_fails_the_step_and_what_was_live_stays(norn: NornServer) -> None:
    app = App(norn, "big")
    app.deploy("one")
    # The build itself meets the full disk: /dev/full answers ENOSPC to every write.
    app.spec('build: {command: sh -c "cat /etc/hostname > /dev/full"}\n')
    app.commit("two")
    finished = norn.norn("deploy", "big")
    assert finished.exit_status == 1
    assert "No space left on device" in finished.err
    assert app.get() == "one"


def test_secrets_reach_processes_and_nothing_else(norn: NornServer) -> None:
    app = App(norn, "keeper", more="secrets: [API_KEY]\n")
    assert norn.norn("secrets", "set", "keeper", "API_KEY", stdin="s3cr3t-väl'ue\n").exit_status == 0
    assert norn.norn("secrets", "list", "keeper").json() == {"secrets": ["API_KEY"]}
    app.deploy("one")
    assert "API_KEY=s3cr3t-väl'ue" in app.get("/env")
    assert "s3cr3t" not in norn.log.read_text()
    assert "s3cr3t" not in norn.norn("history", "keeper").out
    modes = {path.stat().st_mode & 0o777 for path in (norn.home / "secrets").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert norn.norn("secrets", "unset", "keeper", "API_KEY").exit_status == 0
    assert norn.norn("restart", "keeper").exit_status == 0
    assert "API_KEY" not in app.get("/env")
    assert norn.norn("secrets", "unset", "keeper", "API_KEY").exit_status == 3


def test_processes_get_none_of_norns_settings_and_are_not_root(server: NornServer) -> None:
    app = App(server, "plain")
    app.deploy("one")
    assert not re.findall("NORN_(?:HOME|URL|TOKEN|LISTEN|APPS_DIR)", app.get("/env"))
    assert app.get("/uid") == str(65534 if os.geteuid() == 0 else os.geteuid())


def test_the_same_idempotency_key_and_body_answer_with_the_same_operation(norn: NornServer) -> None:
    app = App(norn, "once")
    app.commit("one")
    first = norn.api("POST", "/api/apps/once/deploy", {}, Idempotency_Key="k1")
    again = norn.api("POST", "/api/apps/once/deploy", {}, Idempotency_Key="k1")
    assert (first.status, again.body["id"]) == (202, first.body["id"])
    norn.ended(first.body["id"])
    assert norn.api("POST", "/api/apps/once/deploy", {}, Idempotency_Key="k1").body["id"] == first.body["id"]
    other = norn.api("POST", "/api/apps/once/deploy", {"ref": "main"}, Idempotency_Key="k1")
    assert (other.status, other.body["code"]) == (422, "idempotency_key_reused")
    assert len(norn.history("once")) == 1


def test_a_restart_brings_new_processes_of_the_same_image(norn: NornServer) -> None:
    app = App(norn, "again")
    tag = app.deploy("one")
    assert norn.norn("restart", "again").exit_status == 0
    assert (app.get(), norn.status("again")["live"]["imageTag"]) == ("one", tag)
    assert len(norn.history("again")) == 1


def test_the_logs_are_what_the_processes_print_line_by_line(server: NornServer) -> None:
    app = App(server, "talks")
    app.deploy("one", extra='print("first\\nsecond", flush=True)')
    assert server.norn("logs", "talks").out == "first\nsecond\nserving one\n"


def test_logs_are_followed_across_a_deploy(server: NornServer) -> None:
    app = App(server, "chats")
    app.deploy("one")
    with server.running("logs", "chats", "--follow") as lines:
        assert next(lines) == "serving one\n"
        app.deploy("two")
        assert next(lines) == "serving two\n"


def test_watch_shows_what_changes_until_it_is_ended(server: NornServer) -> None:
    app = App(server, "seen")
    app.commit("one")
    with server.running("watch", "seen") as lines:
        server.deploy("seen")
        assert any('"deployed"' in line for line in lines)
