"""Norn's own PostgreSQL goes away and comes back: clear errors meanwhile, nothing lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, until


def postmaster(server: NornServer) -> int:
    (pid_file,) = Path(server.home / "postgres").rglob("norn/**/postmaster.pid")
    return int(pid_file.read_text().splitlines()[0])


def test_requests_say_503_while_it_is_away_and_work_again_when_it_is_back(norn: NornServer) -> None:
    app = App(norn, "patient")
    app.deploy("one")
    app.spec('build: {command: sh -c "sleep 6"}\n')
    app.commit("two")
    deploy = norn.api("POST", "/api/apps/patient/deploy").body
    norn.step_begun(deploy["id"], "build")
    os.kill(postmaster(norn), signal.SIGKILL)
    until(lambda: norn.api("GET", "/api/deployments").status == 503, "the error")
    reply = norn.api("POST", "/api/apps/patient/rollback")
    assert (reply.status, reply.body["code"]) == (503, "database_unavailable")
    assert reply.body["hint"]
    assert norn.api("GET", "/api/health").status == 503
    assert app.get() == "one"
    until(lambda: norn.api("GET", "/api/health").status == 200, "the database's return")
    assert norn.ended(deploy["id"])["status"] == "succeeded"
    assert app.get() == "two"
