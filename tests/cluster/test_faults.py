"""Parts of the cluster stop while Norn is at work: the API server, a kubelet, the registry, Norn itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException

import pytest
from tests.cluster.test_rollbacks import SLOW_WHERE_BROKEN, break_old_version, two_versions
from tests.fixtures.cluster_parts import Part, mend_node
from tests.fixtures.clusters import ClusterApp, Namespace
from tests.fixtures.norn import NornServer, served, until


def answering(space: Namespace) -> None:
    def look() -> bool:
        argv = ["kubectl", "--namespace", space.name, "--request-timeout=2s", "get", "deployments"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    until(look, "the API server", 180)


@pytest.fixture
def mended() -> Iterator[None]:
    """Whatever was done to it, the next test finds a node that works."""
    yield
    mend_node()


alone = pytest.mark.cluster_alone
mended_after = pytest.mark.usefixtures("mended")


@alone
@mended_after
@pytest.mark.parametrize("fault", [pytest.param("stopped", marks=pytest.mark.long), "killed"])
def test_an_api_server_that_is_away_during_the_patch_gets_it_when_it_is_back(
    server: NornServer, space: Namespace, fault: str
) -> None:
    """With one that is silent the plan is made from the copy, and the patch is under way when it times out.

    With one that is dead Norn may know so before it plans: then it refuses, and nothing has changed.
    """
    app = two_versions(server, space, f"unpatched-{fault}", timeout="240s")
    before, known = space.deployment(app.name), server.history(app.name)
    printed_before = server.log.stat().st_size
    with getattr(Part("kube-apiserver"), fault)():
        started = server.api("POST", f"/api/apps/{app.name}/rollback")
        assert started.status == 202 or (fault, started.status) == ("killed", 503), started.body
        if started.status == 202:
            until(lambda: "cluster_asked_again" in logged(server, printed_before), "another attempt")
    answering(space)
    if started.status == 503:
        assert server.history(app.name) == known
        assert space.deployment(app.name)["spec"] == before["spec"]
        assert app.answers() == {"two"}
        return
    operation = server.ended(started.body["id"], timeout_s=300)
    assert operation["status"] == "succeeded", operation["error"]
    assert app.answers() == {"one"}


def logged(server: NornServer, since: int) -> str:
    """What the server has written into its log since it was so many bytes long."""
    return server.log.read_bytes()[since:].decode(errors="replace")


@alone
@mended_after
@pytest.mark.parametrize("fault", ["stopped", pytest.param("killed", marks=pytest.mark.long)])
def test_an_api_server_that_is_away_during_the_watch_changes_nothing_about_the_end(
    server: NornServer, space: Namespace, fault: str
) -> None:
    app = two_versions(server, space, f"unwatched-{fault}", first=SLOW_WHERE_BROKEN.format(20), timeout="240s")
    break_old_version(space, app.name)
    part = Part("kube-apiserver")
    started = server.api("POST", f"/api/apps/{app.name}/rollback", Prefer="wait=50")
    assert started.body["accepted"]
    with getattr(part, fault)():
        if fault == "stopped":
            until(lambda: "does not answer" in printed(server, started.body["id"]), "a word on the silence")
    answering(space)
    operation = server.ended(started.body["id"], timeout_s=300)
    assert operation["status"] == "succeeded", operation["error"]
    assert app.answers() == {"one"}


def printed(server: NornServer, operation_id: str) -> str:
    return "".join(step["output"] for step in server.operation(operation_id)["steps"])


@alone
@mended_after
def test_a_kubelet_that_has_stopped_is_a_timeout_and_no_quarantine(server: NornServer, space: Namespace) -> None:
    app = two_versions(server, space, "frozen", timeout="45s")
    with Part("kubelet").stopped():
        started = server.api("POST", "/api/apps/frozen/rollback", Prefer="wait=50")
        operation = server.ended(started.body["id"], timeout_s=240)
    assert operation["status"] == "failed"
    assert [found["status"] for found in server.history("frozen")][1:] == ["deployed", "deployed"]
    until(lambda: app.answers() == {"two"}, "what was live")


@alone
def test_a_registry_that_is_down_is_a_caution_and_no_reason_to_stay(server: NornServer, space: Namespace) -> None:
    app = two_versions(server, space, "unasked")
    with Part("docker-registry").stopped():
        back = server.norn("rollback", "unasked")
    assert back.exit_status == 0, back.err
    assert "image_unverified" in {finding["code"] for finding in back.json()["verdict"]["findings"]}
    assert app.answers() == {"one"}


@pytest.mark.parametrize(
    "point",
    [
        "rollback.switch.ran",
        pytest.param("rollback.switch.begun", marks=pytest.mark.long),
        pytest.param("rollback.rollout.begun", marks=pytest.mark.long),
    ],
)
def test_a_killed_server_is_followed_by_one_that_ends_the_rollback(space: Namespace, point: str) -> None:
    with served(**space.settings()) as server:
        app = ClusterApp(server, space, f"killed-{point.replace('.', '-')}")
        app.deploy("one")
        app.deploy("two")
        server.stop()
        server.start(NORN_TEST_KILL_AT=point)
        with suppress(OSError, HTTPException):  # it may be killed before it can answer
            server.api("POST", f"/api/apps/{app.name}/rollback")
        assert server.process is not None
        server.process.wait(180)
        server.start()
        newest = server.history(app.name)[0]
        assert newest["kind"] == "rollback"
        assert server.ended(newest["id"])["status"] == "succeeded"
        assert app.answers() == {"one"}
        assert [found["status"] for found in server.history(app.name)].count("rolled_back") == 1
