"""Notifications: a real server and a real receiver that fails, hangs, redirects, and is not there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.fixtures.apps import ILL_ALONE, App
from tests.fixtures.norn import NornServer, free_port, served, survive, until
from tests.fixtures.own_database import database
from tests.fixtures.receivers import Receiver

pytestmark = pytest.mark.xdist_group("notifications")

ALL = "/all/t0ps3cret?token=qu3ry"
SOON_S = 20.0
"""Well before the poll behind it, which comes after half a minute."""


class World(NamedTuple):
    norn: NornServer
    receiver: Receiver

    def app(self, name: str, **notify: str) -> App:
        """An app that was deployed once and tells these paths of these events (none: all of them)."""
        app = App(self.norn, name, more=self.notify(**notify))
        app.deploy("one")
        return app

    def notify(self, **notify: str) -> str:
        items = [
            f"  - {{url: '{self.receiver.url}/{path}'{f', on: [{on}]' if on else ''}}}" for path, on in notify.items()
        ]
        return "\n".join(["notify:", *items, ""]) if items else ""

    def roll_back(self, app: App, reason: str = "") -> dict[str, Any]:
        app.deploy("two")
        finished = self.norn.norn("rollback", app.name, "--reason", reason)
        assert finished.exit_status == 0, finished.err
        done: dict[str, Any] = finished.json()
        self.norn.ended(done["id"])  # the command returns before its bake
        return done


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Receiver(0).serving() as receiver, served(NORN_NOTIFY=receiver.url + ALL) as norn:
        yield World(norn, receiver)


def key_of(norn: NornServer) -> str:
    key: str = norn.norn("notifications", "key").json()["key"]
    return key


def notifications(norn: NornServer, app: str) -> list[dict[str, Any]]:
    listed = norn.api("GET", "/api/notifications?limit=200").body["notifications"]
    return [found for found in listed if found["app"] == app]


def delivery(norn: NornServer, app: str) -> dict[str, Any]:
    """Of an app's one notification the delivery that did not succeed at once, when that is known; else empty."""
    (notification,) = notifications(norn, app)
    failing = [found for found in notification["deliveries"] if found["attempts"] > 1 or found["error"]]
    found: dict[str, Any] = failing[0] if failing else {}
    return found


def test_a_rollback_is_told_at_once_and_signed(world: World) -> None:
    app = world.app("backs", picky="rollback", deaf="deploy.failed")
    rollback = world.roll_back(app, "typo")
    (received,) = until(lambda: world.receiver.of(ALL, "backs"), "the notification")
    own = until(lambda: world.receiver.of("/picky", "backs"), "the app's own")[0]
    operation = world.norn.operation(rollback["id"])
    assert received.payload == {
        "id": f"msg_{rollback['id']}",
        "event": "rollback",
        "at": operation["finishedAt"],
        "app": "backs",
        "operationId": rollback["id"],
        "kind": "rollback",
        "outcome": "succeeded",
        "imageTag": rollback["imageTag"],
        "fromImageTag": rollback["fromImageTag"],
        "requestedBy": rollback["requestedBy"],
        "reason": "typo",
        "error": None,
        "verdict": {"level": rollback["verdict"]["level"]},
    }
    assert received.at - datetime.fromisoformat(operation["finishedAt"]).timestamp() < SOON_S
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == f"msg_{rollback['id']}"
    key = key_of(world.norn)
    assert received.verifies(key)
    assert own.verifies(key)
    assert not received._replace(body=received.body.replace(b"typo", b"tipo")).verifies(key)
    assert world.receiver.of("/deaf", "backs") == []


def test_an_unchanged_rollback_and_a_deploy_that_succeeds_tell_nobody(world: World) -> None:
    app = world.app("calm")
    rollback = world.roll_back(app)
    unchanged = world.norn.norn("rollback", "calm", "--to", rollback["imageTag"])
    assert unchanged.json()["unchanged"] is True
    assert [found["operationId"] for found in notifications(world.norn, "calm")] == [rollback["id"]]


def test_a_failed_deploy_is_told_with_its_error(world: World) -> None:
    app = world.app("broken", deaf="rollback, rollback.automatic", keen="deploy.failed")
    app.spec("build: {command: sh -c 'exit 7'}\n" + world.notify(deaf="rollback", keen="deploy.failed"))
    tag = app.commit("two")
    finished = world.norn.norn("deploy", "broken")
    assert finished.exit_status == 1
    received = until(lambda: world.receiver.of("/keen", "broken"), "the notification")[0]
    payload, error = received.payload, finished.json()["error"]
    assert (payload["event"], payload["kind"], payload["outcome"]) == ("deploy.failed", "deploy", "failed")
    assert payload["imageTag"] == tag
    assert payload["error"] == {"code": error["code"], "message": error["message"]}
    assert received.verifies(key_of(world.norn))
    assert world.receiver.of("/deaf", "broken") == []


def test_a_version_that_was_rolled_back_by_itself_is_told_twice(world: World) -> None:
    app = world.app("slips", keen="")
    app.spec(world.notify(keen=""), bake="60s")
    app.commit("two", extra=ILL_ALONE)
    id_ = world.norn.api("POST", "/api/apps/slips/deploy").body["id"]
    world.norn.rolled_out(id_)
    app.fall_ill_alone()
    back = world.norn.ended(id_)["error"]["automatic"]["deploymentId"]
    until(lambda: len(world.receiver.of("/keen", "slips")) > 0, "the first of them")
    world.norn.rolled_out(back)
    world.norn.api("POST", f"/api/operations/{back}/cancel")  # its bake
    until(lambda: len(world.receiver.of("/keen", "slips")) == 2, "both of them")
    told = {received.payload["event"]: received.payload for received in world.receiver.of("/keen", "slips")}
    assert set(told) == {"deploy.failed", "rollback.automatic"}
    assert told["rollback.automatic"]["requestedBy"] == "norn"


def test_a_receiver_that_answers_500_gets_it_again_with_the_same_id(world: World) -> None:
    world.receiver.answers["/shaky"] = [500]
    app = world.app("shaky", shaky="")
    world.roll_back(app)
    until(lambda: len(world.receiver.of("/shaky", "shaky")) == 2, "the second attempt")
    first, second = world.receiver.of("/shaky", "shaky")
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert 0.5 < second.at - first.at < 1 + SOON_S
    assert second.verifies(key_of(world.norn))
    until(lambda: delivery(world.norn, "shaky").get("deliveredAt"), "the end of it")
    assert delivery(world.norn, "shaky")["attempts"] == 2
    text = world.norn.api("GET", "/metrics").body.decode()
    assert 'norn_notification_attempts_total{result="retried"}' in text


def test_a_redirect_is_not_followed(world: World) -> None:
    world.receiver.answers["/moved"] = [302] * 20
    world.receiver.redirect_to = f"{world.receiver.url}/elsewhere"
    app = world.app("moved", moved="")
    world.roll_back(app)
    error = until(lambda: delivery(world.norn, "moved").get("error"), "the answer")
    assert error == "answered 302; redirects are not followed"
    assert world.receiver.got["/elsewhere"] == []
    assert delivery(world.norn, "moved")["status"] == "pending"


def test_a_receiver_that_is_gone_is_not_asked_again_and_the_doctor_says_so(world: World) -> None:
    world.receiver.answers["/gone"] = [410] * 20
    app = world.app("gone", gone="")
    world.roll_back(app)
    found = until(lambda: delivery(world.norn, "gone"), "the answer")
    assert (found["status"], found["attempts"], found["nextAt"]) == ("undelivered", 1, None)
    assert found["receiver"] == world.receiver.url
    finished = world.norn.norn("doctor")
    (wrong,) = [each for each in finished.json()["findings"] if each["check"] == "notifications"]
    assert finished.exit_status == 1
    assert not wrong["ok"]
    assert world.receiver.url in wrong["message"]
    listed = world.norn.norn("notifications", "list", "-o", "text").out
    assert "answered 410" in "".join(listed.splitlines()[1:4])  # what has not arrived comes first


def test_one_that_hangs_is_given_five_seconds_and_keeps_nobody_waiting(world: World) -> None:
    app = world.app("hangs", hang="", quick="")
    world.roll_back(app)
    until(lambda: world.receiver.of("/quick", "hangs"), "the other one", SOON_S)
    assert not world.receiver.hanging.is_set()
    error = until(lambda: delivery(world.norn, "hangs").get("error"), "the end of the attempt")
    assert error == "no answer within 5 s"
    world.receiver.hanging.set()


def test_while_its_infraspec_cannot_be_read_the_apps_own_receivers_wait(world: World) -> None:
    app = world.app("mended", own="")
    app.deploy("two")
    (Path(app.path) / "infraspec.yaml").write_text("app: mended\n")
    assert world.norn.api("POST", "/api/apps/mended/rollback").status == 202
    until(lambda: world.receiver.of(ALL, "mended"), "the installation's")
    assert "role is missing" in until(lambda: notifications(world.norn, "mended")[0]["error"], "the complaint")
    assert world.receiver.of("/own", "mended") == []
    app.spec(world.notify(own=""))
    until(lambda: world.receiver.of("/own", "mended"), "the app's own")
    assert len(world.receiver.of(ALL, "mended")) == 1
    assert notifications(world.norn, "mended")[0]["error"] == ""


def test_neither_the_key_nor_what_is_secret_in_a_url_is_logged_or_answered(world: World) -> None:
    app = world.app("quiet", shown_n0where="")
    world.receiver.answers["/shown_n0where"] = [500] * 20
    rollback = world.roll_back(app)
    until(lambda: delivery(world.norn, "quiet").get("error"), "the answer")
    key = key_of(world.norn)
    answers = [
        str(world.norn.api("GET", path).body)
        for path in ("/api/notifications", "/api/apps/quiet", "/api/apps", f"/api/operations/{rollback['id']}",
                     f"/api/deployments/{rollback['id']}", "/metrics", "/openapi.json", "/api/health")
    ]  # fmt: skip
    printed = [world.norn.norn(*words).out for words in (["doctor"], ["notifications", "list"], ["status", "quiet"])]
    log = world.norn.log.read_text()
    assert "notification_retried" in log
    for text in (log, *answers, *printed):
        for secret in (key, key.removeprefix("whsec_"), "t0ps3cret", "qu3ry", "n0where"):
            assert secret not in text
    assert world.norn.api("GET", "/api/notifications/key").body == {"key": key}
    assert world.norn.api("GET", "/api/notifications/key", token="").status == 401


def test_what_a_killed_server_had_not_sent_is_sent_by_the_next_one() -> None:
    port, own_key = free_port(), "whsec_" + "QUJD" * 10
    url = f"http://127.0.0.1:{port}"
    with served(NORN_NOTIFY=f"{url}/down", NORN_NOTIFY_KEY=own_key) as norn:
        app = App(norn, "lost")
        app.deploy("one")
        app.deploy("two")
        # Killed in the moment after the operation has ended: nothing has been sent, nobody is told who to send it to.
        ended = survive(norn, "lost", "rollback.end.after", lambda: norn.api("POST", "/api/apps/lost/rollback"))
        found = until(lambda: delivery(norn, "lost"), "an attempt")
        assert found["receiver"] == url
        (wrong,) = [each for each in norn.norn("doctor").json()["findings"] if each["check"] == "notifications"]
        assert wrong["message"].startswith(f"1 undelivered to {url}: ")
        norn.kill()
        with database(norn) as connection:  # or it comes in its turn, which is the later the longer all this took
            connection.execute("UPDATE deliveries SET next_at = clock_timestamp()")
        with Receiver(port).serving() as receiver:
            norn.start()
            received = until(lambda: receiver.of("/down", "lost"), "the notification")[0]
        assert received.payload["operationId"] == ended["id"]
        assert received.verifies(own_key)
        assert key_of(norn) == own_key
        until(lambda: delivery(norn, "lost").get("deliveredAt"), "the note of it")
        assert norn.norn("doctor").json()["findings"][-1]["message"] == "all have arrived"
