"""The HTTP interface: access, bad input, events, and a fuzzer on its own OpenAPI document."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer

from norn.http.app import create_app
from norn.http.metrics import Metrics


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    App(shared_norn, "shop").deploy("one")
    return shared_norn


@pytest.mark.parametrize(
    "path",
    ["/api/apps", "/api/apps/shop", "/api/deployments", "/api/events", "/metrics", "/openapi.json"],
)
def test_every_path_but_health_wants_a_token(server: NornServer, path: str) -> None:
    for token in ("", server.token[:-1]):
        reply = server.api("GET", path, token=token)
        assert (reply.status, reply.body["code"]) == (401, "not_authenticated")
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert server.api("GET", "/api/health", token="").status == 200


def test_the_token_is_256_bits_in_a_file_that_only_its_owner_reads(server: NornServer) -> None:
    assert (server.home / "admin-token").stat().st_mode & 0o777 == 0o600
    assert len(server.token) >= 43


def test_a_wrong_token_exits_8(server: NornServer) -> None:
    assert server.norn("apps", "--token", "wrong").exit_status == 8


def test_no_server_exits_7(server: NornServer) -> None:
    finished = server.norn("apps", NORN_URL="http://127.0.0.1:9")
    assert (finished.exit_status, finished.json()["code"]) == (7, "server_unreachable")
    assert "norn serve" in finished.err


@pytest.mark.parametrize(
    "name", ["nope", "..", "%2e%2e%2fetc", "a%2Fb", "a'b", "a%0Ab", "$(id)", "SHOP", "%00", "a" * 300]
)
@pytest.mark.parametrize("route", ["", "/artifacts", "/snapshots", "/secrets", "/logs"])
def test_an_app_that_does_not_exist_is_404_or_422_whatever_its_name(server: NornServer, name: str, route: str) -> None:
    reply = server.api("GET", f"/api/apps/{name}{route}")
    assert reply.status in (404, 422), reply
    assert reply.headers["content-type"] == "application/problem+json"


def test_the_nearest_app_is_named(server: NornServer) -> None:
    finished = server.norn("status", "shp")
    assert finished.exit_status == 3
    assert "shop" in finished.err


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[1, 2", 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b'"text"', 422),
        (b"{" * 100_000, 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"imageTag": 5}', 422),
        (b'{"imageTag": null}', 200),
        (b'{"imagetag": "x"}', 422),
        (b'{"dryRun": "yes"}', 422),
        (b'{"reason": "a\\u0000b"}', 422),
        (b'{"from": {}}', 422),
        (b'{"imageTag": "' + b"x" * 300 + b'"}', 422),
    ],
)
def test_a_wrong_body_is_said_to_be_wrong(server: NornServer, body: bytes, status: int) -> None:
    reply = server.api("POST", "/api/apps/shop/rollback", body)
    if status == 200:
        assert reply.status in (200, 202, 409)
    else:
        assert reply.status == status, reply
        assert {"type", "title", "status", "detail"} <= reply.body.keys()


def test_a_body_of_50_megabytes_is_refused_without_being_read(server: NornServer) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/api/apps/shop/rollback")
    connection.putheader("Authorization", f"Bearer {server.token}")
    connection.putheader("Content-Length", str(50 * 1024 * 1024))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (413, "too_large")
    connection.close()


def test_a_chunked_body_over_the_limit_is_refused_too(server: NornServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        head = f"POST /api/apps/shop/rollback HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(64):
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert b" 413 " in connection.recv(65_536).split(b"\r\n")[0] + b" "


def test_the_history_is_paged_without_gaps_or_repeats(server: NornServer) -> None:
    app = App(server, "pages")
    app.commit("one")
    for _ in range(4):
        server.deploy("pages")
    seen, cursor = [], ""
    while True:
        page = server.api("GET", f"/api/deployments?app=pages&limit=3{cursor}").body
        seen += [item["id"] for item in page["deployments"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert seen == [item["id"] for item in server.history("pages")]
    assert len(seen) == 4


@pytest.mark.parametrize("cursor", ["x", "🙂".encode().hex(), "LTE", "%00", "A" * 65])
def test_a_cursor_of_somebody_elses_is_refused(server: NornServer, cursor: str) -> None:
    assert server.api("GET", f"/api/deployments?cursor={cursor}").status in (400, 422)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/events", {"Last_Event_ID": "9" * 5_000}),
        ("/api/audit?limit={}", {}),
        ("/api/deployments?limit={}", {}),
        ("/api/apps/shop/logs?tail={}", {}),
        ("/audit?before={}", {}),
        ("/apps/shop?before={}", {}),
        ("/apps/shop?hours={}", {}),
        ("/operations/0/output/{}", {}),
    ],
)
def test_a_number_of_very_many_digits_is_refused(server: NornServer, path: str, headers: dict[str, str]) -> None:
    assert server.api("GET", path.format("9" * 5_000), **headers).status in (400, 422)


def read_events(server: NornServer, query: str, count: int, last_id: str = "") -> list[tuple[int, str, dict[str, Any]]]:
    """The first events of a stream."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"Authorization": f"Bearer {server.token}"} | ({"Last-Event-ID": last_id} if last_id else {})
    connection.request("GET", f"/api/events?{query}", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200
    found: list[tuple[int, str, dict[str, Any]]] = []
    number, name = 0, ""
    while len(found) < count:
        field, _, value = answer.readline().decode().rstrip("\n").partition(": ")
        if field == "id":
            number = int(value)
        elif field == "event":
            name = value
        elif field == "data":
            found.append((number, name, json.loads(value)))
    connection.close()
    return found


def test_events_resume_from_last_event_id_without_gap(server: NornServer) -> None:
    app = App(server, "eventful")
    app.commit("one")
    deployment = server.deploy("eventful")
    query = f"operation={deployment['id']}"
    first = read_events(server, query, 12)
    again = read_events(server, query, 8, last_id=str(first[3][0]))
    assert again == first[4:12]
    assert [number for number, _, _ in first] == sorted({number for number, _, _ in first})
    assert {"operation", "deployment", "step"} <= {name for _, name, _ in first}


def test_who_asks_for_events_that_are_not_there_is_told_and_goes_on_from_what_is(server: NornServer) -> None:
    App(server, "forgetful").deploy("one")
    number, name, data = read_events(server, "", 1, last_id="4711471147")[0]
    assert (name, data) == ("gap", {"after": 4711471147, "resumedAfter": number})
    assert 0 < number < 4711471147


def test_the_schema_of_the_infraspec_is_served_as_it_is_printed(server: NornServer) -> None:
    assert server.api("GET", "/api/schemas/infraspec").body == server.norn("validate", "--schema").json()


def test_metrics_count_requests_by_route_and_operations(server: NornServer) -> None:
    server.api("GET", "/api/apps/shop")
    text = server.api("GET", "/metrics").body.decode()
    assert 'norn_http_requests_total{method="GET",route="/api/apps/{app}",status="200"}' in text
    assert 'norn_operations_total{kind="deploy",outcome="succeeded",trigger="person"}' in text
    assert "shop" not in text


@pytest.fixture(scope="module")
def openapi(server: NornServer) -> Any:
    document = server.api("GET", "/openapi.json").body
    del document["paths"]["/api/events"]  # answers for ever
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    return schema


PROMISES = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
ROUTES = [
    (method, path)
    for path, operations in create_app(cast("Any", None), Metrics(), cast("Any", None)).openapi()["paths"].items()
    for method in operations
    if path != "/api/events"
]


def fuzz(server: NornServer, operation: Any, secret: str, examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy())
    def each(case: Any) -> None:
        if "follow" in (case.query or {}):
            case.query["follow"] = "false"  # answers for ever
        case.call_and_validate(headers={"Authorization": f"Bearer {secret}"}, checks=PROMISES, timeout=30)

    each()


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_answer_is_one_that_the_openapi_document_promises(
    server: NornServer, openapi: Any, method: str, path: str
) -> None:
    fuzz(server, openapi[path][method], server.token, 30)


@pytest.fixture(scope="module")
def limited(server: NornServer) -> dict[str, str]:
    """A token of each role but admin, for one app."""
    made = {}
    for role in ("viewer", "operator", "deployer"):
        body = {"name": role, "role": role, "apps": ["shop"]}
        made[role] = str(server.api("POST", "/api/tokens", body).body["token"])
    return made


@pytest.mark.parametrize("role", ["viewer", "operator", "deployer"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_so_it_is_for_who_may_do_less(
    server: NornServer, openapi: Any, limited: dict[str, str], method: str, path: str, role: str
) -> None:
    fuzz(server, openapi[path][method], limited[role], 5)
