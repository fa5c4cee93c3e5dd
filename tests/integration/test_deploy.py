"""Deploying, on a real server: each step, and what is left when one fails."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
from tests.fixtures.apps import App, held_up_by
from tests.fixtures.norn import NornServer, until

from norn.adapters.accounts import can_reach, for_apps


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    return shared_norn


def test_a_ref_may_be_a_branch_a_tag_or_an_abbreviated_commit(server: NornServer) -> None:
    app = App(server, "refs")
    one = app.commit("one")
    app.git("tag", "v1")
    app.git("branch", "old")
    app.commit("two")
    for ref in ("v1", "old", one.partition(":")[2]):
        assert server.deploy("refs", ref)["imageTag"] == one


def test_a_port_in_use_is_refused_before_anything_is_built(server: NornServer) -> None:
    app = App(server, "taken")
    app.commit("one")
    with socket.create_server(("127.0.0.1", app.port)):
        finished = server.norn("deploy", "taken")
    assert finished.exit_status == 1
    assert finished.json()["code"] == "port_in_use"
    assert str(app.port) in finished.err


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


def test_the_logs_are_what_the_processes_print_line_by_line(server: NornServer) -> None:
    app = App(server, "talks")
    app.deploy("one", extra='print("first\\nsecond", flush=True)')
    # Another process keeps what they print, and may do so after the first health check.
    until(lambda: server.norn("logs", "talks").out == "first\nsecond\nserving one\n", "all that was printed")


def test_watch_shows_what_changes_until_it_is_ended(server: NornServer) -> None:
    gate = server.directory / "seen-may-end"
    app = App(server, "seen", more=held_up_by(gate))
    app.commit("one")
    with server.running("watch", "seen") as lines:
        server.api("POST", "/api/apps/seen/deploy")
        next(lines)  # it is connected by now
        gate.touch()
        assert any('"deployed"' in line for line in lines)


def test_a_build_that_fails_stops_the_deploy_and_shows_its_output(server: NornServer) -> None:
    app = App(server, "fails")
    app.deploy("one")
    app.spec('build: {command: sh -c "echo compiling; exit 7"}\n')
    app.commit("two")
    finished = server.norn("deploy", "fails")
    assert finished.exit_status == 1
    (failed,) = [step for step in finished.json()["steps"] if step["status"] == "failed"]
    assert failed["step"] == "build"
    assert "compiling" in failed["output"]
    assert app.get() == "one"


def test_a_migration_that_ends_in_its_last_ten_seconds_is_left_to_do_so(server: NornServer) -> None:
    if not can_reach(Path(App.psql), for_apps()):
        pytest.skip("psql is where apps cannot reach it")
    app, gate = App(server, "nearly"), server.directory / "nearly-may-end"
    app.declare("CREATE TABLE nearly ()")
    spec = app.path / "infraspec.yaml"
    spec.write_text(spec.read_text().replace("exec ", f"echo begun; until test -e {gate}; do sleep 0.1; done; exec "))
    app.commit("one")
    deploy = server.api("POST", "/api/apps/nearly/deploy").body["id"]
    until(lambda: "begun" in output_of(server, deploy, "migrate"), "the migration")
    assert server.api("POST", f"/api/operations/{deploy}/cancel").status == 202
    until(lambda: "10s to end by itself" in output_of(server, deploy, "migrate"), "the time it is given")
    gate.touch()
    assert server.ended(deploy)["status"] == "cancelled"
    assert "ended" not in output_of(server, deploy, "migrate")
    with app.database() as connection:
        assert connection.execute("SELECT to_regclass('nearly') IS NOT NULL").fetchone() == (True,)


def output_of(server: NornServer, operation_id: str, name: str) -> str:
    """What a step has printed until now."""
    steps = server.operation(operation_id)["steps"]
    return "".join(step["output"] for step in steps if step["step"] == name)


def test_an_image_that_is_byte_for_byte_one_in_quarantine_is_refused_under_another_commit(server: NornServer) -> None:
    app = App(server, "same-again")
    app.deploy("one")
    bad = app.deploy("two")
    server.ended(server.norn("rollback", "same-again").json()["id"])
    app.commit("two")  # nothing in it is different
    refused = server.norn("deploy", "same-again")
    assert refused.exit_status == 1, refused.out + refused.err
    assert refused.json()["error"]["code"] == "quarantined"
    assert bad in refused.json()["error"]["message"]
    assert server.norn("deploy", "same-again", "--force").exit_status == 0
    assert server.norn("quarantine", "list", "same-again").json()["quarantine"] == []
