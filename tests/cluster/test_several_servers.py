"""Three servers on one database and one cluster: any of them takes a request, any works on it, and any may die."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from tests.cluster.test_rollbacks import SLOW_WHERE_BROKEN, break_old_version, two_versions, without_norns_own
from tests.fixtures.clusters import ClusterApp, Namespace, namespace
from tests.fixtures.company import company
from tests.fixtures.norn import PATIENCE_S, NornServer, Reply, until

INTERRUPTED = "[the server was interrupted; going on]"


@pytest.fixture(scope="module")
def office() -> Iterator[Namespace]:
    with namespace() as found:
        yield found


@pytest.fixture(scope="module")
def servers(office: Namespace) -> Iterator[list[NornServer]]:
    with company(3, shared=True, **office.settings()) as found:
        yield found


def rolls_out(server: NornServer, app: str) -> str:
    """A rollback that is at work in this server; its id."""
    started = server.api("POST", f"/api/apps/{app}/rollback", Prefer="wait=50").body
    assert started["accepted"], started
    server.step_begun(started["id"], "rollout")
    return str(started["id"])


def test_fifty_presses_at_once_on_three_servers_are_one_rollback(servers: list[NornServer], office: Namespace) -> None:
    app = two_versions(servers[0], office, "pressed")
    together = Barrier(50)

    def press(number: int) -> Reply:
        together.wait()
        return servers[number % 3].api("POST", "/api/apps/pressed/rollback")

    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(press, range(50)))
    assert Counter(reply.status for reply in replies)[202] == 1, Counter(reply.status for reply in replies)
    taken = next(reply for reply in replies if reply.status == 202).body["id"]
    assert {reply.body.get("id", taken) for reply in replies} == {taken}
    assert {reply.status for reply in replies} <= {200, 202, 409}
    assert servers[1].ended(taken)["status"] == "succeeded"
    assert [found["kind"] for found in servers[2].history("pressed")] == ["rollback", "deploy", "deploy"]
    assert app.answers() == {"one"}


def test_another_server_goes_on_with_what_a_killed_one_was_at(servers: list[NornServer], office: Namespace) -> None:
    one, other, _ = servers
    app = two_versions(one, office, "orphaned", first=SLOW_WHERE_BROKEN.format(15))
    break_old_version(office, "orphaned")
    id_ = rolls_out(one, "orphaned")
    one.kill()
    try:
        operation = other.ended(id_)
        assert operation["status"] == "succeeded", operation["error"]
        assert INTERRUPTED in "".join(step["output"] for step in operation["steps"])
        assert app.answers() == {"one"}
    finally:
        one.start()


def test_a_server_that_was_paused_does_not_write_over_its_successor(
    servers: list[NornServer], office: Namespace
) -> None:
    one, other, _ = servers
    app = two_versions(one, office, "paused", first=SLOW_WHERE_BROKEN.format(15))
    break_old_version(office, "paused")
    id_ = rolls_out(one, "paused")
    assert one.process is not None
    os.kill(one.process.pid, signal.SIGSTOP)
    try:
        operation = other.ended(id_)
    finally:
        os.kill(one.process.pid, signal.SIGCONT)
    assert operation["status"] == "succeeded", operation["error"]
    until(lambda: '"lease_lost"' in one.log.read_text(), "the one that was paused to notice")
    assert other.operation(id_) == operation
    assert app.answers() == {"one"}
    assert one.norn("restart", "paused").exit_status == 0


def test_a_server_that_was_frozen_as_it_began_a_first_rollout_changes_nothing_when_it_wakes_up(
    servers: list[NornServer], office: Namespace
) -> None:
    """Whichever comes first: its lease is over, the store takes nothing from it, the Deployment has a higher fence."""
    one, *others = servers
    app = ClusterApp(one, office, "thawed")
    for server in servers:
        server.stop()
    one.start(NORN_TEST_FREEZE_AT="deploy.deploy.begun")
    app.commit("one")
    first = one.api("POST", "/api/apps/thawed/deploy").body["id"]
    assert one.process is not None
    stat = Path(f"/proc/{one.process.pid}/stat")
    until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the freeze")
    try:
        for server in others:
            server.start()
        assert others[0].ended(first)["status"] == "succeeded"
        app.commit("two")
        second = others[0].api("POST", "/api/apps/thawed/deploy").body["id"]
        assert others[0].ended(second)["status"] == "succeeded"
        before, logged = office.deployment("thawed"), one.log.stat().st_size
    finally:
        os.kill(one.process.pid, signal.SIGCONT)
    until(lambda: b'"lease_lost"' in one.log.read_bytes()[logged:], "the one that was frozen to notice")
    assert one.norn("restart", "thawed").exit_status == 0, "it works on"
    after = office.deployment("thawed")
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1, "the restart alone"
    assert without_norns_own(after)["spec"]["template"]["spec"] == without_norns_own(before)["spec"]["template"]["spec"]
    assert app.answers() == {"two"}


def test_a_build_goes_on_where_its_files_are_not_and_leaves_none(servers: list[NornServer], office: Namespace) -> None:
    one, *others = servers
    app = two_versions(one, office, "rebuilt")
    for server in others:
        server.stop()
    one.stop()
    one.start(NORN_TEST_KILL_AT="deploy.clone.ran")
    tag = app.commit("three")
    started = one.api("POST", "/api/apps/rebuilt/deploy").body["id"]
    assert one.process is not None
    one.process.wait(PATIENCE_S)
    for server in others:
        server.start()
    assert others[0].ended(started)["status"] == "succeeded"
    assert (app.answers(), others[1].status("rebuilt")["live"]["imageTag"]) == ({"three"}, tag)
    assert list((one.home / "work").iterdir())
    one.start()
    until(lambda: not list((one.home / "work").iterdir()), "the end of what was left")
