"""Everything that is done, or refused, is in the audit, and stays there."""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, until
from tests.fixtures.own_database import database

from norn.operations.bake import BY

pytestmark = pytest.mark.xdist_group("audit")


def audit(server: NornServer, app: str, **wanted: str) -> list[dict[str, Any]]:
    """The entries of an app that are so, the oldest first."""
    entries = server.api("GET", f"/api/audit?app={app}&limit=200").body["entries"]
    return [entry for entry in reversed(entries) if wanted.items() <= entry.items()]


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    return shared_norn


@pytest.fixture(scope="module")
def shop(server: NornServer) -> App:
    """Deployed twice, and rolled back."""
    app = App(server, "shop")
    app.deploy("one")
    app.deploy("two")
    done = server.norn("rollback", "shop", "--reason", "it sells\nnothing", NORN_URL=server.url)
    assert done.exit_status == 0, done.err
    server.ended(server.history("shop")[0]["id"])
    return app


def test_a_rollback_says_who_from_where_why_and_from_which_image_to_which(server: NornServer, shop: App) -> None:
    newest, second, first = server.history("shop")
    (asked,) = audit(server, "shop", action="rollback.request")
    (ended,) = audit(server, "shop", action="rollback.end")
    assert (asked["subject"], asked["outcome"], asked["reason"]) == (newest["id"], "accepted", "it sells\nnothing")
    assert (asked["actor"], asked["address"]) == (newest["requestedBy"], "127.0.0.1")
    assert asked["before"] == {"imageTag": second["imageTag"]}
    assert asked["after"] == {"imageTag": first["imageTag"]}
    assert (ended["subject"], ended["outcome"]) == (newest["id"], "succeeded")
    assert (ended["before"], ended["after"]) == (asked["before"], asked["after"])


def test_a_refused_request_is_in_it_once_with_why(server: NornServer, shop: App) -> None:
    refused = server.norn("deploy", "shop", "--reason", "again")
    assert refused.exit_status == 4
    (entry,) = audit(server, "shop", action="deploy.request", outcome="refused")
    assert entry["reason"].startswith("quarantined: ")
    assert (entry["subject"], entry["after"]) == ("HEAD", {"asked": "again"})


@pytest.mark.parametrize(("asked", "action"), [("cancel", "operation.cancel"), ("confirm", "deploy.confirm")])
def test_what_comes_too_late_for_an_operation_is_in_it(server: NornServer, shop: App, asked: str, action: str) -> None:
    ended = server.history("shop")[-1]["id"]
    assert server.api("POST", f"/api/operations/{ended}/{asked}").status == 409
    (entry,) = audit(server, "shop", action=action, subject=ended)
    assert entry["outcome"] == "refused"
    assert entry["reason"].startswith("not_possible: ")


def test_a_look_is_not_written_down(server: NornServer, shop: App) -> None:
    before = audit(server, "shop")
    assert server.api("POST", "/api/apps/shop/rollback", {"dryRun": True, "imageTag": "nope"}).status == 404
    assert server.api("POST", "/api/apps/shop/rollback", {"dryRun": True, "from": "nope"}).status == 409
    assert audit(server, "shop") == before


def test_of_a_secret_its_name_alone(server: NornServer, shop: App) -> None:
    assert server.norn("secrets", "set", "shop", "SMTP_KEY", stdin="hunter-two-is-it").exit_status == 0
    assert server.norn("secrets", "unset", "shop", "SMTP_KEY").exit_status == 0
    assert [(entry["subject"], entry["outcome"]) for entry in audit(server, "shop", action="secret.set")] == [
        ("SMTP_KEY", "accepted"),
        ("SMTP_KEY", "done"),
    ]
    assert {entry["subject"] for entry in audit(server, "shop", action="secret.unset")} == {"SMTP_KEY"}
    with database(server) as connection:
        (text,) = connection.execute("SELECT string_agg(audit::text, ' ') FROM audit").fetchone() or ("",)
    assert "hunter-two" not in text


def test_a_quarantine_that_is_lifted_and_a_cancelled_operation(server: NornServer, shop: App) -> None:
    tag = server.history("shop")[1]["imageTag"]
    assert server.norn("quarantine", "lift", "shop", tag).exit_status == 0
    (lifted,) = audit(server, "shop", action="quarantine.lift")
    assert (lifted["subject"], lifted["address"]) == (tag, "127.0.0.1")
    shop.spec(bake="60s")
    shop.commit("three")
    id_ = server.api("POST", "/api/apps/shop/deploy").body["id"]
    assert server.norn("cancel", id_, "--reason", "not now").exit_status == 0
    (cancelled,) = audit(server, "shop", action="operation.cancel", subject=id_)
    assert (cancelled["outcome"], cancelled["reason"]) == ("done", "not now")
    (ended,) = audit(server, "shop", action="deploy.end", subject=id_)
    assert ended["outcome"] in ("cancelled", "failed")


def test_a_rollback_that_nobody_asked_for_is_norns_own(server: NornServer) -> None:
    app = App(server, "by-itself")
    app.deploy("one")
    app.spec(bake="60s")
    app.commit("two")
    id_ = server.api("POST", "/api/apps/by-itself/deploy").body["id"]
    server.rolled_out(id_)
    app.fall_ill()
    failed = server.ended(id_)
    app.get_well()
    (asked,) = audit(server, "by-itself", action="rollback.request")
    assert (asked["subject"], asked["actor"]) == (failed["error"]["automatic"]["deploymentId"], BY)
    assert (asked["token"], asked["address"], asked["after"]["automatic"]) == ("", "", True)
    assert "health checks failed" in asked["reason"]


def test_pages_follow_each_other_and_lines_are_all_of_it_the_oldest_first(server: NornServer, shop: App) -> None:
    paged: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = server.api("GET", f"/api/audit?app=shop&limit=2{f'&cursor={cursor}' if cursor else ''}").body
        paged, cursor = paged + page["entries"], page["cursor"]
    lines = server.norn("audit", "--app", "shop", "--jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == paged[::-1]
    assert [entry["seq"] for entry in paged] == sorted((entry["seq"] for entry in paged), reverse=True)


def test_it_is_shown_as_a_table(server: NornServer, shop: App) -> None:
    shown = server.norn("audit", "--app", "shop", "-o", "text").out
    assert "rollback.request" in shown
    assert "it sells nothing" in shown
    assert " → " in shown


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "TRUNCATE audit"])
def test_nothing_in_it_can_be_changed_or_removed(server: NornServer, shop: App, statement: str) -> None:
    with database(server) as connection, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        connection.execute(statement)


def test_a_token_and_what_is_tried_without_one(server: NornServer, shop: App) -> None:
    made = server.norn("token", "create", "on-call", "--role", "operator", "--app", "shop")
    assert made.exit_status == 0, made.err
    secret = made.json()["token"]
    assert server.api("POST", "/api/apps/shop/deploy", token=secret).status == 403
    for _ in range(30):
        assert server.api("GET", "/api/apps", token="wrong").status in (401, 429)
    assert server.norn("token", "revoke", "on-call").exit_status == 0
    entries = server.api("GET", "/api/audit?limit=200").body["entries"]
    (created,) = [one for one in entries if (one["action"], one["subject"]) == ("token.create", "on-call")]
    (revoked,) = [one for one in entries if one["action"] == "token.revoke"]
    refused = [one for one in entries if one["action"] == "refused"]
    assert created["after"] == revoked["before"]
    assert (created["after"]["role"], created["after"]["apps"]) == ("operator", ["shop"])
    assert [(one["token"], one["subject"]) for one in refused if one["app"] == "shop"] == [
        ("on-call", "POST /api/apps/shop/deploy")
    ]
    assert len(refused) <= 4, "thirty attempts of one address are not thirty entries"
    with database(server) as connection:
        (text,) = connection.execute("SELECT string_agg(audit::text, ' ') FROM audit").fetchone() or ("",)
    assert secret not in text


def test_what_is_no_name_of_a_secret_is_refused_and_written_down_nowhere(server: NornServer, shop: App) -> None:
    slipped = server.norn("secrets", "set", "shop", "SMTP_KEY=hunter-three", stdin="x")
    gone = server.norn("secrets", "unset", "shop", "SMTP_KEY=hunter-three")
    assert (slipped.exit_status, gone.exit_status) == (2, 2)
    viewer = server.norn("token", "create", "only-looks", "--role", "viewer").json()["token"]

    def put(token: str) -> int:
        return server.api("PUT", "/api/apps/shop/secrets/SMTP_KEY=hunter-three", {"value": "x"}, token=token).status

    assert put("wrong") in (401, 429)
    # Until the server has read the new token: so many wrong ones came from here that it is not looked up at once.
    until(lambda: put(viewer) == 403, "the token to be known")
    with database(server) as connection:
        (text,) = connection.execute("SELECT string_agg(audit::text, ' ') FROM audit").fetchone() or ("",)
    assert "hunter-three" not in text + server.log.read_text() + slipped.out + slipped.err
    assert "PUT /api/apps/shop/secrets/{name}" in text


# ---- the log, and numbers ----------------------------------------------------------------------------------------


def test_each_line_within_an_operation_says_of_which_it_is(server: NornServer, shop: App) -> None:
    id_ = server.history("shop")[-1]["id"]
    lines = [json.loads(line) for line in server.log.read_text(encoding="utf-8").splitlines()]
    within = [line for line in lines if line.get("operation") == id_ and line["event"] != "request"]
    assert {"claimed", "ended"} <= {line["event"] for line in within}
    assert {(line["app"], line["kind"], len(line["server"])) for line in within} == {("shop", "deploy", 26)}


def test_a_request_that_changes_something_or_fails_has_a_line_and_one_that_looks_has_none(
    server: NornServer, shop: App
) -> None:
    server.api("GET", "/api/apps/nope%0a%1b[2J")
    server.api("GET", "/api/apps/shop/artifacts")
    lines = [json.loads(line) for line in server.log.read_text(encoding="utf-8").splitlines()]
    requests = {(line["method"], line["route"], line["status"]) for line in lines if line["event"] == "request"}
    assert {("POST", "/api/apps/{app}/rollback", 202), ("GET", "/api/apps/{app}", 404)} <= requests
    assert not [route for method, route, status in requests if method == "GET" and status == 200]
    (back,) = (line for line in lines if line.get("route") == "/api/apps/{app}/rollback" and line.get("status") == 202)
    (rollback,) = (found for found in server.history("shop") if found["kind"] == "rollback")
    assert (back["operation"], back["app"], len(back["server"])) == (rollback["id"], "shop", 26)
    assert "\x1b" not in server.log.read_text(encoding="utf-8")


def test_a_rollback_is_measured_from_the_request_to_healthy(server: NornServer, shop: App) -> None:
    def measured() -> bool:
        text = server.api("GET", "/metrics").body.decode()
        wanted = (
            r'^norn_recovery_seconds_count\{trigger="person"\} [1-9]',
            r'^norn_verdicts_total\{level="(safe|caution)"\} [1-9]',
            r'^norn_operations_total\{kind="rollback",outcome="succeeded",trigger="person"\} [1-9]',
            r'^norn_servers\{state="alive"\} 1\.0$',
        )
        return all(re.search(pattern, text, re.MULTILINE) for pattern in wanted)

    until(measured, "the numbers")
