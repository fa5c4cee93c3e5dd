"""A rollback does not wait behind a deploy: what a cluster adds to that, a builder with its store, and a rollout."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import randrange
from secrets import token_hex
from typing import Any

import pytest
from tests.fixtures.clusters import ClusterApp, Namespace, cluster_in_use
from tests.fixtures.norn import NornServer, until

from norn.adapters.images.builders import find_builder

SECONDS = str(randrange(10_000, 100_000))
"""How long the build sleeps: nobody else's does just so."""


def sleepers() -> list[int]:
    """The processes of the build below."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", SECONDS.encode()]:
                found.append(int(process.name))
    return found


def containers(app: str) -> list[str]:
    """What the builder keeps that is made from an image of the app."""
    if find_builder(None) != "buildah":
        return []  # the others tidy up by themselves
    argv = ["buildah", "containers", "--format", "{{.ImageName}}"]

    def listed() -> subprocess.CompletedProcess[str] | None:
        """None where one that somebody else builds with has ended while it was being listed."""
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done if done.returncode == 0 else None

    found = until(listed, "a list of containers")
    assert found is not None
    return [name for name in found.stdout.split() if f"/{app}:" in name]


def a_build_that_does_not_end(app: ClusterApp, two: str) -> Callable[[], bool]:
    """Upon the version before, so that its container in the builder's store can be told from those of others."""
    (app.path / "Dockerfile").write_text(f"FROM {two}\nRUN sleep {SECONDS}\n")
    app.commit("three")
    return lambda: bool(sleepers())


def a_version_that_does_not_become_ready(app: ClusterApp, two: str) -> Callable[[], bool]:
    app.spec(timeout="10m")
    app.commit("three", extra="time.sleep(600)")
    return lambda: len(app.space.pods(app.name)) == 2


HELD_UP = {"build": a_build_that_does_not_end, "deploy": a_version_that_does_not_become_ready}


@dataclass
class Stopped:
    """An app whose second version is live, and whose third deploy was stopped by a rollback."""

    app: ClusterApp
    step: str
    two: str
    deploy: dict[str, Any]
    back: dict[str, Any]
    pods: list[str]
    """Those of before."""


def names(app: ClusterApp) -> list[str]:
    return [pod["metadata"]["name"] for pod in app.space.pods(app.name)]


@pytest.fixture(scope="module", params=HELD_UP)
def stopped(server: NornServer, space: Namespace, request: pytest.FixtureRequest) -> Iterator[Stopped]:
    step = str(request.param)
    with cluster_in_use():
        app = ClusterApp(server, space, f"in-{step}-{token_hex(3)}")
        app.deploy("one")
        two = app.deploy("two")
        until(lambda: len(names(app)) == 1, "the end of the first version")
        pods = names(app)
        under_way = HELD_UP[step](app, two)
        deploy = server.api("POST", f"/api/apps/{app.name}/deploy").body["id"]
        server.step_begun(deploy, step)
        until(under_way, f"work in {step}", 120)
        back = server.norn("rollback", app.name, "--timeout", "90s")
        assert back.exit_status == 0, back.err
        server.ended(back.json()["id"])
    yield Stopped(app, step, two, server.operation(deploy), back.json(), pods)
    with cluster_in_use():
        space.kubectl("delete", "deployment", app.name, "--wait=false")


def test_the_deploy_is_stopped_in_that_step_and_says_for_what(stopped: Stopped) -> None:
    assert (stopped.deploy["status"], stopped.deploy["steps"][-1]["step"]) == ("cancelled", stopped.step)
    assert stopped.deploy["error"]["preemptedBy"] == stopped.back["id"]
    assert "undoErrors" not in stopped.deploy["error"]


def test_what_was_live_is_the_target_and_its_pod_answers_as_before(stopped: Stopped) -> None:
    assert stopped.back["imageTag"] == stopped.two
    until(lambda: names(stopped.app) == stopped.pods, "the end of what was begun")
    assert stopped.app.answers() == {"two"}


def test_the_history_says_so(stopped: Stopped) -> None:
    history = stopped.app.server.history(stopped.app.name)
    assert [(item["kind"], item["status"]) for item in history[:3]] == [
        ("rollback", "deployed"), ("deploy", "cancelled"), ("deploy", "deployed"),
    ]  # fmt: skip
    assert (history[1]["liveFrom"], history[2]["liveUntil"]) == (None, None)


def test_of_a_build_nothing_is_left(stopped: Stopped) -> None:
    assert (sleepers(), containers(stopped.app.name)) == ([], [])
    assert not (stopped.app.server.home / "work" / stopped.deploy["id"]).exists()
