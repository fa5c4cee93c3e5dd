"""Several servers on one database, each with apps of its own machine: processes are worked on where they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.fixtures.apps import App, held_up_by
from tests.fixtures.company import company
from tests.fixtures.norn import NornServer, until

pytestmark = pytest.mark.xdist_group("several servers")


@pytest.fixture(scope="module")
def servers() -> Iterator[list[NornServer]]:
    with company(2, shared=False) as found:
        yield found


def test_what_needs_a_machine_waits_for_the_server_of_that_machine(servers: list[NornServer]) -> None:
    one, other = servers
    app = App(one, "at-home")
    app.deploy("one")
    gate = one.directory / "may-go-on"
    app.spec(held_up_by(gate))
    app.commit("two")
    started = one.api("POST", "/api/apps/at-home/deploy").body["id"]
    one.step_begun(started, "test")
    one.kill()
    until(lambda: not_heard_of(other), "the silence of the one that was killed")
    assert other.operation(started)["status"] == "running"
    gate.touch()
    one.start()
    assert one.ended(started)["status"] == "succeeded"
    assert app.get() == "two"


def not_heard_of(server: NornServer) -> bool:
    return any(found["silentS"] > 3 for found in server.api("GET", "/api/servers").body["servers"])


def test_events_reach_the_clients_of_every_server(servers: list[NornServer]) -> None:
    one, other = servers
    gate = one.directory / "heard-may-end"
    App(one, "heard", more=held_up_by(gate)).commit("one")
    with other.running("watch", "-o", "json") as lines:
        one.api("POST", "/api/apps/heard/deploy")
        next(line for line in lines if '"heard"' in line)  # it is connected by now
        gate.touch()
        assert any('"heard"' in line and '"succeeded"' in line for line in lines)


def test_a_server_that_died_is_named_by_the_doctor_of_another(servers: list[NornServer]) -> None:
    one, other = servers
    one.kill()
    try:
        dead = until(lambda: [found["id"] for found in known(other) if found["dead"]], "its death", 30)
        found = other.norn("doctor")
        assert found.exit_status == 1
        wrong = [item["message"] for item in found.json()["findings"] if item["check"] == "servers" and not item["ok"]]
        assert [str(dead[0]) in message for message in wrong] == [True]
    finally:
        one.start()
    assert not [found for found in known(other) if found["dead"]], "its successor on the machine has taken its place"


def known(server: NornServer) -> list[dict[str, object]]:
    found: list[dict[str, object]] = server.api("GET", "/api/servers").body["servers"]
    return found


# ---- access ------------------------------------------------------------------------------------------------------


def test_each_accepts_the_token_of_the_others_home(servers: list[NornServer]) -> None:
    one, other = servers
    assert one.token != other.token
    assert one.api("GET", "/api/servers", token=other.token).status == 200
    assert other.api("GET", "/api/servers", token=one.token).status == 200
    names = [token["name"] for token in one.api("GET", "/api/tokens").body["tokens"] if token["home"]]
    assert len(names) == 2
    assert names[1] == f"{names[0]}-2"


def test_a_token_made_on_one_is_good_on_the_other_until_it_is_revoked(servers: list[NornServer]) -> None:
    one, other = servers
    secret = one.api("POST", "/api/tokens", {"name": "roams", "role": "viewer"}).body["token"]
    assert other.api("GET", "/api/apps", token=secret).status == 200
    one.api("DELETE", "/api/tokens/roams")
    assert one.api("GET", "/api/apps", token=secret).status == 401
    until(lambda: other.api("GET", "/api/apps", token=secret).status == 401, "the word of the revocation")


def test_a_homes_token_that_was_revoked_stays_so_until_its_file_is_removed(servers: list[NornServer]) -> None:
    one, other = servers
    shown = {token["id"]: token["name"] for token in one.api("GET", "/api/tokens").body["tokens"] if token["home"]}
    other.stop()
    assert one.norn("token", "revoke", shown[max(shown)]).exit_status == 0  # ids sort by time: it came second
    other.start()
    assert other.norn("apps").exit_status == 8
    (other.home / "admin-token").unlink()
    other.stop()
    other.start()
    assert other.norn("apps").exit_status == 0
