"""Norn's own PostgreSQL goes away and comes back: clear errors meanwhile, nothing lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer


def postmaster(server: NornServer) -> int:
    (pid_file,) = Path(server.home / "postgres").rglob("norn/**/postmaster.pid")
    return int(pid_file.read_text().splitlines()[0])


def test_the_embedded_server_is_started_again_and_the_deploy_under_way_goes_on(norn: NornServer) -> None:
    app = App(norn, "patient")
    app.deploy("one")
    app.spec('build: {command: sh -c "sleep 6"}\n')
    app.commit("two")
    deploy = norn.api("POST", "/api/apps/patient/deploy").body
    norn.step_begun(deploy["id"], "build")
    os.kill(postmaster(norn), signal.SIGKILL)
    assert app.get() == "one"
    assert norn.ended(deploy["id"])["status"] == "succeeded"
    assert app.get() == "two"
