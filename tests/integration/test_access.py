"""Who may do what, over HTTP: every route with every role, tokens from their making to their end, and signing in."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from tests.fixtures.apps import App
from tests.fixtures.browsers import Browser
from tests.fixtures.norn import NornServer, until
from tests.fixtures.own_database import database
from tests.fixtures.route_table import TABLE, Row

from norn.domain.access import Role

ROLES = list(Role)


class Shown(NamedTuple):
    """A token, and what it is for."""

    role: Role
    app: str | None
    secret: str


@pytest.fixture(scope="module")
def apps(shared_norn: NornServer) -> dict[str, App]:
    apps = {name: App(shared_norn, name) for name in ("shop", "elsewhere")}
    for app in apps.values():
        app.deploy("one")
    return apps


@pytest.fixture(scope="module")
def server(shared_norn: NornServer, apps: dict[str, App]) -> NornServer:
    return shared_norn


def make(server: NornServer, name: str, role: str, *apps: str, **more: str) -> dict[str, Any]:
    body = {"name": name, "role": role} | ({"apps": list(apps)} if apps else {}) | more
    reply = server.api("POST", "/api/tokens", body)
    assert reply.status == 201, reply.body
    found: dict[str, Any] = reply.body
    return found


@pytest.fixture(scope="module")
def tokens(server: NornServer) -> list[Shown]:
    return [
        Shown(role, app, make(server, f"{role.value}-{app or 'all'}", role.value, *([app] if app else []))["token"])
        for role in ROLES
        for app in (None, "shop", "elsewhere")
    ]


@pytest.fixture(scope="module")
def deployment(server: NornServer) -> str:
    return str(server.history("shop")[0]["id"])


def allowed(row: Row, shown: Shown) -> bool:
    if ROLES.index(shown.role) < ROLES.index(row.least):
        return False
    return shown.app is None or row.scope == "any" or (row.scope == "app" and shown.app == "shop")


def status_of(server: NornServer, row: Row, secret: str, deployment: str) -> int:
    """Without reading what may never end."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    names = {"app": "shop", "id": deployment, "name": "NOTHING", "ordinal": 0}
    headers = {"Authorization": f"Bearer {secret}"}
    body = None
    if row.body is not None:
        form = not row.route.startswith("/api/")
        headers["Content-Type"] = "application/x-www-form-urlencoded" if form else "application/json"
        body = urlencode(row.body) if form else json.dumps(row.body)
    connection.request(row.method, (row.route + row.query).format(**names), body, headers)
    answer = connection.getresponse()
    if answer.status == 403 and row.route.startswith("/api/"):
        assert json.loads(answer.read())["code"] == "not_allowed"
    answer.close()
    connection.close()
    return answer.status


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.route}{row.query} {row.body or ''}")
def test_each_role_is_let_through_or_refused_as_the_table_says(
    server: NornServer, tokens: list[Shown], deployment: str, row: Row
) -> None:
    statuses = {(shown.role.value, shown.app): status_of(server, row, shown.secret, deployment) for shown in tokens}
    refused = {key for key, status in statuses.items() if status == 403}
    assert refused == {(shown.role.value, shown.app) for shown in tokens if not allowed(row, shown)}
    assert not any(status in (401, 405, 429) or status >= 500 for status in statuses.values()), statuses


# ---- what a token for some apps sees -----------------------------------------------------------------------------


def test_lists_have_nothing_of_other_apps(server: NornServer, tokens: list[Shown]) -> None:
    secret = next(shown.secret for shown in tokens if shown.app == "elsewhere")
    seen = server.api("GET", "/api/apps", token=secret).body["apps"]
    deployments = server.api("GET", "/api/deployments", token=secret).body["deployments"]
    entries = server.api("GET", "/api/audit", token=secret).body["entries"]
    assert {app["name"] for app in seen} == {"elsewhere"}
    assert {found["app"] for found in deployments} == {"elsewhere"}
    assert {found["app"] for found in entries} == {"elsewhere"}


def test_events_are_those_of_its_apps(server: NornServer, apps: dict[str, App], tokens: list[Shown]) -> None:
    secret = next(shown.secret for shown in tokens if shown.app == "elsewhere")
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/api/events", headers={"Authorization": f"Bearer {secret}"})
    answer = connection.getresponse()
    apps["shop"].deploy("more")
    apps["elsewhere"].deploy("more")
    seen: list[dict[str, Any]] = []
    while not any(data.get("status") == "succeeded" for data in seen):
        line = answer.readline().decode()
        if line.startswith("data: {") and "resumedAfter" not in line:
            seen.append(json.loads(line.removeprefix("data: ")))
    answer.close()
    connection.close()
    assert {data["app"] for data in seen} == {"elsewhere"}


# ---- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_is_made_shown_once_listed_and_revoked(server: NornServer) -> None:
    made = server.norn("token", "create", "once", "--role", "operator", "--app", "shop", "--expires", "90d").json()
    assert (made["role"], made["apps"], made["home"], len(made["token"]) >= 43) == ("operator", ["shop"], False, True)
    listed = next(token for token in server.norn("token", "list").json()["tokens"] if token["name"] == "once")
    assert "token" not in listed
    assert server.api("GET", "/api/apps/shop", token=made["token"]).status == 200
    assert server.norn("token", "revoke", "once").exit_status == 0
    assert server.api("GET", "/api/apps/shop", token=made["token"]).status == 401
    assert "once" not in server.norn("token", "list", "-o", "text").out


def test_in_text_a_new_token_is_all_that_stands_on_standard_output(server: NornServer) -> None:
    out = server.norn("token", "create", "piped", "--role", "viewer", "-o", "text").out
    assert server.api("GET", "/api/apps", token=out.strip()).status == 200


def test_a_command_that_is_not_allowed_exits_8(server: NornServer) -> None:
    secret = make(server, "looks", "viewer")["token"]
    for command in (("deploy", "shop"), ("rollback", "shop"), ("token", "list"), ("prune", "shop")):
        finished = server.norn(*command, "--token", secret)
        assert (finished.exit_status, finished.json()["code"]) == (8, "not_allowed"), command
    assert server.norn("rollback", "shop", "--dry-run", "--token", secret).exit_status != 8


def test_the_doctor_looks_at_what_a_token_for_some_apps_sees(server: NornServer) -> None:
    secret = make(server, "patient", "viewer", "shop")["token"]
    found = {item["check"]: item for item in server.norn("doctor", "--token", secret).json()["findings"]}
    assert (found["servers"]["ok"], found["notifications"]["ok"]) == (True, True)
    assert "some apps" in found["servers"]["message"]


def test_two_tokens_have_two_names_and_a_revoked_ones_is_free(server: NornServer) -> None:
    make(server, "twice", "viewer")
    again = server.api("POST", "/api/tokens", {"name": "twice", "role": "viewer"})
    assert (again.status, again.body["code"]) == (409, "name_taken")
    assert server.api("DELETE", "/api/tokens/twice").status == 204
    make(server, "twice", "viewer")


@pytest.mark.parametrize(
    "wrong",
    [{"role": "root"}, {"apps": []}, {"expires": "soon"}, {"expires": "0s"}, {"expires": "9" * 200 + "d"},
     {"name": "../x"}, {"name": "a\r\nb"}, {"apps": ["a\x00"]}, {"apps": "shop"}],
)  # fmt: skip
def test_what_makes_no_token_is_said(server: NornServer, wrong: dict[str, Any]) -> None:
    body = {"name": "wrong", "role": "viewer"} | wrong
    assert server.api("POST", "/api/tokens", body).status == 422


def test_a_token_for_an_app_that_there_is_not_is_refused(server: NornServer) -> None:
    reply = server.api("POST", "/api/tokens", {"name": "typo", "role": "viewer", "apps": ["shp"]})
    assert (reply.status, reply.body["code"]) == (404, "unknown_app")


def test_an_expired_token_lets_nobody_in(server: NornServer) -> None:
    secret = make(server, "short", "viewer", expires="300ms")["token"]
    until(lambda: server.api("GET", "/api/apps", token=secret).status == 401, "the end of the token")
    listed = next(token for token in server.api("GET", "/api/tokens").body["tokens"] if token["name"] == "short")
    assert listed["expired"] is True


def test_when_a_token_was_last_used_is_kept(server: NornServer) -> None:
    secret = make(server, "used", "viewer")["token"]
    server.api("GET", "/api/apps", token=secret)

    def used() -> bool:
        listed = server.api("GET", "/api/tokens").body["tokens"]
        return next(token for token in listed if token["name"] == "used")["lastUsedAt"] is not None

    until(used, "the use of the token in the list")


def test_the_history_has_the_tokens_name_and_a_home_tokens_user_may_say_theirs(server: NornServer) -> None:
    secret = make(server, "ci", "deployer")["token"]
    app = App(server, "signed")
    app.commit("one")
    id_ = server.api("POST", "/api/apps/signed/deploy", token=secret, Norn_Actor="somebody-else").body["id"]
    assert server.ended(id_)["requestedBy"] == "ci"
    app.commit("two")
    id_ = server.api("POST", "/api/apps/signed/deploy", Norn_Actor="ada").body["id"]
    assert server.ended(id_)["requestedBy"] == "ada"


def test_a_stream_ends_when_its_token_is_revoked(server: NornServer) -> None:
    secret = make(server, "streams", "viewer")["token"]
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/api/events", headers={"Authorization": f"Bearer {secret}"})
    answer = connection.getresponse()
    server.api("DELETE", "/api/tokens/streams")
    assert b"retry" in answer.read()  # which comes to an end
    answer.close()
    connection.close()


def test_logs_that_are_followed_end_with_their_token_although_nothing_is_printed(server: NornServer) -> None:
    secret = make(server, "quiet", "viewer")["token"]
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/api/apps/shop/logs?follow=1&tail=0", headers={"Authorization": f"Bearer {secret}"})
    answer = connection.getresponse()
    server.api("DELETE", "/api/tokens/quiet")
    assert answer.read() == b""  # which comes to an end
    answer.close()
    connection.close()


# ---- browsers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def browser(server: NornServer) -> Browser:
    browser = Browser(server)
    assert browser.sign_in(server.token).status == 303
    return browser


def test_who_asks_for_a_page_is_led_to_the_sign_in_page_and_back(server: NornServer) -> None:
    browser = Browser(server)
    asked = browser.go("GET", "/apps/shop?tab=1")
    assert (asked.status, asked.headers["Location"]) == (303, "/sign-in?next=%2Fapps%2Fshop%3Ftab%3D1")
    assert 'value="/apps/shop?tab=1"' in browser.go("GET", asked.headers["Location"]).body
    signed_in = browser.sign_in(server.token, "/apps/shop?tab=1")
    assert (signed_in.status, signed_in.headers["Location"]) == (303, "/apps/shop?tab=1")
    assert browser.go("GET", "/api/apps").status == 200


def test_the_cookie_is_for_this_server_alone_and_not_for_scripts(server: NornServer) -> None:
    cookie = Browser(server).sign_in(server.token).headers["Set-Cookie"]
    said = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert said == {"httponly", "samesite=lax", "path=/", "max-age=43200"}


def test_who_signs_out_is_out(browser: Browser) -> None:
    cookie = browser.cookie
    assert browser.go("POST", "/sign-out", {"csrf": browser.proof()}).headers["Location"] == "/sign-in"
    assert Browser(browser.server, cookie).go("GET", "/api/apps").status == 401


def test_a_session_is_another_one_at_every_sign_in_and_the_former_one_ends(server: NornServer) -> None:
    browser = Browser(server, "f" * 43)
    browser.sign_in(server.token)
    first = browser.cookie
    browser.sign_in(server.token)
    assert len({"f" * 43, first, browser.cookie}) == 3
    assert Browser(server, first).go("GET", "/api/apps").status == 401
    assert Browser(server, "f" * 43).go("GET", "/api/apps").status == 401


def test_a_session_ends_with_its_token(server: NornServer) -> None:
    browser = Browser(server)
    browser.sign_in(make(server, "browses", "viewer")["token"])
    assert browser.go("GET", "/api/apps").status == 200
    server.api("DELETE", "/api/tokens/browses")
    assert browser.go("GET", "/api/apps").status == 401


def test_a_session_may_what_its_token_may(server: NornServer) -> None:
    browser = Browser(server)
    browser.sign_in(make(server, "reads", "viewer", "shop")["token"])
    assert browser.go("GET", "/api/apps/shop").status == 200
    assert browser.go("GET", "/api/apps/elsewhere").status == 403
    assert browser.go("GET", "/api/events?app=elsewhere").status == 403


def test_a_wrong_token_begins_no_session(server: NornServer) -> None:
    browser = Browser(server)
    page = browser.sign_in("wrong")
    assert (page.status, browser.cookie) == (401, "")
    assert "not known here" in page.body


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({}, {}),
        ({"csrf": ""}, {}),
        ({"csrf": "0" * 96}, {}),
        ({"csrf": "another session's"}, {}),
        ({}, {"X_CSRF_Token": "0" * 96}),
        ({"csrf": "its own"}, {"Origin": "http://evil.example.com"}),
        ({"csrf": "its own"}, {"Origin": "null"}),
        ({"csrf": "its own"}, {"Origin": ""}),
        ({"csrf": "its own"}, {"Sec_Fetch_Site": "cross-site"}),
    ],
)
def test_what_another_site_sends_is_refused(
    browser: Browser, server: NornServer, form: dict[str, str], headers: dict[str, str]
) -> None:
    other = Browser(server)
    other.sign_in(server.token)
    proofs = {"its own": browser.proof(), "another session's": other.proof()}
    sent = {name: proofs.get(value, value) for name, value in form.items()}
    assert browser.go("POST", "/sign-out", sent, **headers).status == 403
    assert browser.go("GET", "/api/apps").status == 200


def test_a_script_of_a_page_may_send_the_proof_as_a_header(browser: Browser) -> None:
    proof = browser.proof()
    sent = browser.go("POST", "/sign-out", {}, X_CSRF_Token=proof, Origin="", Sec_Fetch_Site="same-origin")
    assert (sent.status, sent.headers["Location"]) == (303, "/sign-in")


@pytest.mark.parametrize(
    "row",
    [row for row in TABLE if row.method == "POST" and not row.route.startswith("/api/")],
    ids=lambda row: f"{row.route} {row.body or ''}",
)
def test_no_form_does_anything_without_the_proof_of_its_page(
    browser: Browser, server: NornServer, deployment: str, row: Row
) -> None:
    def newest() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = server.api("GET", "/api/audit?limit=200").body["entries"]
        return found

    before = newest()[0]["seq"]
    sent = browser.go("POST", row.route.format(app="shop", id=deployment), row.body)
    assert sent.status == 403
    assert "The proof that a page of this session sent this is missing." in sent.body
    since = [entry for entry in newest() if entry["seq"] > before]
    assert [entry for entry in since if entry["address"] and entry["action"] != "refused"] == [], "somebody did that"
    assert browser.go("GET", "/api/apps").status == 200


def test_nobody_is_signed_in_by_another_site(server: NornServer) -> None:
    sent = Browser(server).go("POST", "/sign-in", {"token": server.token}, Origin="http://evil.example.com")
    assert (sent.status, sent.headers["Set-Cookie"]) == (403, None)


@pytest.mark.parametrize("path", ["/api/events", "/api/events?app=shop", "/api/apps"])
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example.com"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
     {"Sec_Fetch_Site": "same-site"}],
)  # fmt: skip
def test_another_site_reads_nothing_with_the_cookie(browser: Browser, path: str, headers: dict[str, str]) -> None:
    assert browser.go("GET", path, None, **headers).status == 403


@pytest.mark.parametrize("headers", [{}, {"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}])
def test_pages_of_this_server_do(browser: Browser, headers: dict[str, str]) -> None:
    assert browser.go("GET", "/api/apps", None, **headers).status == 200


def test_what_changes_something_in_the_api_wants_a_token_and_not_a_cookie(browser: Browser) -> None:
    sent = browser.go("POST", "/api/apps/shop/restart", {"csrf": browser.proof()})
    assert (sent.status, json.loads(sent.body)["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize(
    "next_", ["//evil.example.com", "/\\evil.example.com", "https://evil.example.com", "/a\r\nX: y"]
)
def test_nobody_is_led_to_another_host(server: NornServer, next_: str) -> None:
    reply = Browser(server).sign_in(server.token, next_)
    assert (reply.status, reply.headers["Location"], reply.headers["X"]) == (303, "/", None)
    page = Browser(server).go("GET", f"/sign-in?{urlencode({'next': next_})}")
    assert "evil" not in page.body


def test_the_audit_knows_who_signed_in_and_who_made_a_token(server: NornServer, browser: Browser) -> None:
    make(server, "noted", "viewer")
    Browser(server).sign_in("wrong")
    browser.go("POST", "/sign-out", {"csrf": browser.proof()})
    entries = server.api("GET", "/api/audit?limit=200").body["entries"]
    assert {"token.create", "sign-in", "sign-in.failed", "sign-out"} <= {entry["action"] for entry in entries}
    assert server.token not in json.dumps(entries)


# ---- what a rollback stops ---------------------------------------------------------------------------------------


def test_an_operator_stops_no_restore_with_a_rollback(server: NornServer) -> None:
    app = App(server, "restored")
    app.deploy("one")
    live = app.deploy("two")
    secret = make(server, "on-call", "operator")["token"]
    with database(server) as connection:
        connection.execute(
            "INSERT INTO operations (id, app, kind, status, params, requested_by, lease_until)"
            " VALUES ('underway', 'restored', 'restore', 'running', '{}', 'ada', clock_timestamp() + interval '1 hour')"
        )
        try:
            reply = server.api("POST", "/api/apps/restored/rollback", {}, token=secret)
            assert (reply.status, reply.body.get("operation")) == (403, "underway"), reply.body
            assert server.operation("underway")["cancel"] is None
            assert server.status("restored")["live"]["imageTag"] == live
            dry = server.api("POST", "/api/apps/restored/rollback", {"dryRun": True}, token=secret)
            assert (dry.status, dry.body["stops"]) == (200, ["underway"])
        finally:
            connection.execute("DELETE FROM operations WHERE id = 'underway'")
