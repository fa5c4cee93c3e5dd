"""The pages as a browser without scripts gets them: what is on them, and that nothing on them is another's script."""

from __future__ import annotations

import json
import re
from http.client import HTTPConnection
from typing import Any

import psycopg
import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer
from tests.fixtures.own_database import database
from tests.fixtures.visitor import Page, Visitor

HOSTILE = """"'><script>alert(1)</script><img src=x onerror=alert(1)>"""

pytestmark = pytest.mark.xdist_group("pages")


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    return shared_norn


@pytest.fixture(scope="module")
def shop(server: NornServer) -> App:
    """Deployed twice, once in vain, and rolled back; with a script in every text that somebody can choose."""
    app = App(server, "shop", more="hosts: {external: shop.example.com}")
    app.deploy("one")
    app.commit("two")
    app.git("commit", "-q", "--amend", "-m", f"two {HOSTILE}")
    server.deploy("shop")
    app.commit("three", extra=f"print({HOSTILE!r}, flush=True); sys.exit(3)")
    assert server.norn("deploy", "shop").exit_status == 1
    back = {"reason": f"because {HOSTILE}"}
    operation = server.api("POST", "/api/apps/shop/rollback", back, Norn_Actor=f"lena {HOSTILE}").body
    server.ended(operation["id"])
    return app


@pytest.fixture(scope="module")
def broken(server: NornServer) -> str:
    directory = server.apps_dir / "broken"
    directory.mkdir()
    (directory / "infraspec.yaml").write_text(f"app: broken\nrole: {json.dumps(HOSTILE)}\n")
    return "broken"


@pytest.fixture(scope="module")
def visitor(server: NornServer, shop: App, broken: str) -> Visitor:
    return Visitor(server)


def paths(server: NornServer) -> list[str]:
    operations = [f"/operations/{deployment['id']}" for deployment in server.history("shop")]
    return [
        "/", "/parts/apps", "/apps/shop", "/apps/shop?hours=24", "/apps/shop/parts/head", "/apps/shop/parts/history",
        "/apps/shop/parts/health", "/apps/broken", "/apps/nope", "/no/such/page", "/apps/shop?hours=99", *operations,
        *(f"{operation}/parts/progress" for operation in operations),
    ]  # fmt: skip


# ---- what is on them ---------------------------------------------------------------------------------------------


def test_all_apps_with_what_is_live_and_how_it_does(server: NornServer, visitor: Visitor) -> None:
    page = visitor.get("/")
    assert page.status == 200
    assert [element.text for element in page.all("h2")] == ["broken", "shop"]
    assert server.status("shop")["live"]["imageTag"] in page.text
    assert "healthy" in page.text


def test_an_app_with_a_wrong_infraspec_is_there_and_says_where_it_is_wrong(visitor: Visitor) -> None:
    for path in ("/", "/apps/broken"):
        assert "infraspec.yaml:2:7" in visitor.get(path).text


def test_an_app_with_what_is_live_the_way_back_and_one_button(server: NornServer, visitor: Visitor) -> None:
    page = visitor.get("/apps/shop")
    status = server.status("shop")
    assert page.the("h1").text == "shop"
    assert status["live"]["imageTag"] in page.text
    assert page.the("a", href="/apps/shop/rollback").text == "Roll back…"
    assert page.the("a", href="https://shop.example.com").text == "shop.example.com"


def test_the_time_line_has_each_deployment_newest_first(server: NornServer, visitor: Visitor) -> None:
    page = visitor.get("/apps/shop")
    entries = [
        element.attributes["id"] for element in page.all("li") if element.attributes.get("id", "").startswith("d-")
    ]
    assert entries == [f"d-{deployment['id']}" for deployment in server.history("shop")]


def test_health_is_a_chart_with_words_and_a_table_for_who_cannot_see_it(visitor: Visitor) -> None:
    page = visitor.get("/apps/shop")
    chart = page.the("svg", role="img")
    assert "checks" in page.the("figcaption", id=chart.attributes["aria-labelledby"]).text
    assert page.the("caption").text.startswith("Health checks of shop")


def test_a_deploy_that_failed_says_why_with_its_steps_and_their_output(server: NornServer, visitor: Visitor) -> None:
    failed = next(found for found in server.history("shop") if found["status"] == "failed")
    page = visitor.get(f"/operations/{failed['id']}")
    assert failed["error"]["message"] in page.text
    steps = [element.attributes["data-step"] for element in page.all("li") if "data-step" in element.attributes]
    assert steps == [step["step"] for step in server.operation(failed["id"])["steps"]]
    assert any(HOSTILE in element.text for element in page.all("pre"))


def test_a_rollback_has_its_target_and_who_wanted_it_and_why(server: NornServer, visitor: Visitor) -> None:
    back = next(found for found in server.history("shop") if found["kind"] == "rollback")
    page = visitor.get(f"/operations/{back['id']}")
    for text in (back["imageTag"], back["target"]["why"], back["requestedBy"], back["reason"]):
        assert text in page.text


def test_the_whole_output_of_a_step_is_plain_text(server: NornServer, visitor: Visitor) -> None:
    failed = next(found for found in server.history("shop") if found["status"] == "failed")
    step = next(
        number for number, step in enumerate(server.operation(failed["id"])["steps"]) if HOSTILE in step["output"]
    )
    output = visitor.get(f"/operations/{failed['id']}/output/{step}")
    assert output.headers.get_content_type() == "text/plain"
    assert output.headers["X-Content-Type-Options"] == "nosniff"
    assert HOSTILE in output.source
    assert visitor.get(f"/operations/{failed['id']}/output/99").status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [("/apps/nope", 404), ("/operations/nope", 404), ("/operations/%00", 422), ("/apps/%00", 404), ("/nope", 404),
     ("/apps/shop?before=x", 422)],
)  # fmt: skip
def test_what_does_not_exist_is_a_page_that_says_so(visitor: Visitor, path: str, status: int) -> None:
    page = visitor.get(path)
    assert page.status == status
    assert page.all("h1")
    assert page.all("a", href="/")


def test_an_unknown_app_names_the_nearest(visitor: Visitor) -> None:
    assert "shop" in visitor.get("/apps/shp").the("main").text


def test_older_deployments_are_on_a_page_of_their_own(server: NornServer, visitor: Visitor) -> None:
    add_deployments(server, "old-timer", 60)
    seen: list[str] = []
    path: str | None = "/apps/old-timer"
    while path is not None:
        page = visitor.get(path)
        seen += [element.text for element in page.all("li") if element.attributes.get("id", "").startswith("d-")]
        following = [link.attributes["href"] for link in page.all("a") if link.text == "Older deployments"]
        path = following[0].partition("#")[0] if following else None
    assert len(seen) == 60
    assert [re.findall(r"number (\d+)\b", text)[0] for text in seen] == [str(number) for number in range(60, 0, -1)]


def add_deployments(server: NornServer, app: str, count: int) -> None:
    """As many deployments that ended well long ago, straight into the database."""
    (server.apps_dir / app).mkdir()
    (server.apps_dir / app / "infraspec.yaml").write_text(f"app: {app}\nrole: worker\ncommand: 'true'\n")
    directory = server.home / "postgres" / "norn"
    port, password = ((directory / name).read_text() for name in ("port", "password"))
    values = {"app": app, "count": count}
    with psycopg.connect(host="127.0.0.1", port=port, user="norn", password=password, dbname="norn") as connection:
        connection.execute(
            "INSERT INTO operations (id, app, kind, status, params, requested_by, finished_at) "
            "SELECT 'old' || n, %(app)s, 'deploy', 'succeeded', '{}', 'test', now() "
            "FROM generate_series(1, %(count)s) n",
            values,
        )
        connection.execute(
            "INSERT INTO deployments (id, app, kind, status, image_tag, commit_sha, commit_subject, origin_seq, "
            "requested_by) SELECT 'old' || n, %(app)s, 'deploy', 'deployed', 'app:' || n, md5(n::text), "
            "'number ' || n, n, 'test' FROM generate_series(1, %(count)s) n ORDER BY n",
            values,
        )


# ---- what is nobody else's ---------------------------------------------------------------------------------------


def foreign(page: Page) -> list[str]:
    """What on a page would run, or come from elsewhere."""
    found = [element.tag for element in page.elements if element.tag in ("iframe", "object", "embed", "style", "base")]
    for element in page.elements:
        found += [name for name in element.attributes if name.startswith("on") or name == "style"]
        if element.tag in ("script", "img", "link"):
            source = element.attributes.get("src", element.attributes.get("href", ""))
            found += [] if source.startswith("/static/") else [f"{element.tag} {source}"]
        if element.tag == "script" and element.text:
            found.append(element.text)
    return found


def test_a_script_in_a_text_that_somebody_chose_is_a_text(server: NornServer, visitor: Visitor) -> None:
    shown = 0
    for path in paths(server):
        page = visitor.get(path)
        assert foreign(page) == [], path
        shown += page.source.count("&lt;script&gt;alert(1)&lt;/script&gt;")
    assert shown > 20


def test_browsers_are_told_to_run_nothing_else(server: NornServer, visitor: Visitor) -> None:
    for path in [*paths(server), "/sign-in", "/api/apps"]:
        headers = visitor.get(path).headers
        policy = headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(policy)
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_pages_are_kept_nowhere_and_their_files_for_ever(visitor: Visitor) -> None:
    page = visitor.get("/")
    assert page.headers["Cache-Control"] == "no-store"
    for file in [element.attributes["src"] for element in page.all("script")]:
        answer = visitor.get(file)
        assert (answer.status, "immutable" in answer.headers["Cache-Control"]) == (200, True)


@pytest.mark.parametrize("name", ["nope.css", "../pages.py", "..%2fpages.py", "%2e%2e/%2e%2e/errors.py", "README.md"])
def test_no_other_file_is_given_away(visitor: Visitor, name: str) -> None:
    digest = visitor.get("/").all("link", rel="stylesheet")[0].attributes["href"].split("/")[2]
    assert visitor.get(f"/static/{digest}/{name}").status == 404


def test_pages_come_packed_and_what_is_followed_does_not(server: NornServer, visitor: Visitor) -> None:
    assert visitor.get("/apps/shop", Accept_Encoding="gzip").headers["Content-Encoding"] == "gzip"
    assert server.api("GET", "/api/apps/shop/logs", Accept_Encoding="gzip").headers["Content-Encoding"] is None
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/api/events", headers=visitor.headers | {"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Encoding"]) == (200, None)
    assert answer.readline().startswith(b"retry:")
    connection.close()


def test_the_proof_in_a_form_is_another_one_each_time(visitor: Visitor) -> None:
    """What packs better when it is guessed right cannot be guessed piece by piece."""
    tokens = {visitor.get("/").all("input", name="csrf")[0].attributes["value"] for _ in range(3)}
    assert len(tokens) == 3


# ---- what a token shows ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guest(server: NornServer, shop: App, broken: str) -> Visitor:
    """Somebody who may look at one app, and do nothing."""
    made = server.norn("token", "create", "guest", "--role", "viewer", "--app", "shop").json()
    return Visitor(server, made["token"])


def test_whose_token_is_for_one_app_sees_that_one_alone(guest: Visitor) -> None:
    for path in ("/", "/parts/apps"):
        assert [element.text for element in guest.get(path).all("h2")] == ["shop"]
    for path in ("/apps/broken", "/apps/broken/parts/head"):
        page = guest.get(path)
        assert (page.status, "is not for broken" in page.text) == (403, True)


def test_who_may_only_look_gets_no_form_but_to_sign_out_and_reads_why(server: NornServer, guest: Visitor) -> None:
    for path in ("/apps/shop", f"/operations/{server.history('shop')[0]['id']}"):
        page = guest.get(path)
        assert [form.attributes["action"] for form in page.all("form")] == ["/sign-out"]
    assert "has the role viewer; this wants operator" in guest.get("/apps/shop").text


# ---- what one can do there without a script ----------------------------------------------------------------------


def test_a_restart_by_its_form_shows_the_operation_and_its_end(server: NornServer, visitor: Visitor) -> None:
    answer = visitor.submit(visitor.get("/apps/shop"), "/apps/shop/restart")
    assert answer.status == 303
    place = answer.headers["Location"]
    operation = server.ended(place.removeprefix("/operations/"))
    assert (operation["kind"], operation["status"]) == ("restart", "succeeded")
    assert "succeeded" in visitor.get(place).text


def test_a_deploy_is_stopped_by_its_form(server: NornServer, visitor: Visitor) -> None:
    app = App(server, "patient", more="build: {command: sh -c 'sleep 60'}")
    app.commit("one")
    path = f"/operations/{deploy(server, 'patient')}"
    server.step_begun(path.removeprefix("/operations/"), "build")
    page = visitor.get(path)
    assert "running" in page.text
    answer = visitor.submit(page, f"{path}/cancel", reason="not today")
    assert (answer.status, answer.headers["Location"]) == (303, path)
    assert server.ended(path.removeprefix("/operations/"))["cancel"]["reason"] == "not today"


def test_a_form_that_comes_too_late_says_so(server: NornServer, visitor: Visitor) -> None:
    done = server.history("shop")[0]["id"]
    page = visitor.get("/apps/shop")
    token = page.all("input", name="csrf")[0].attributes["value"]
    answer = visitor.post(f"/operations/{done}/cancel", csrf=token)
    assert answer.status == 409
    assert "It has ended already" in answer.text


def rolled_back(server: NornServer) -> str:
    """A version that one may go to by its name."""
    return next(str(found["imageTag"]) for found in server.history("shop") if found["status"] == "rolled_back")


def test_another_image_than_on_the_screen_is_refused_though_no_deployment_has_it(
    server: NornServer, visitor: Visitor
) -> None:
    page = visitor.get(f"/apps/shop/rollback?to={rolled_back(server)}")
    assert page.the("input", name="digest").attributes["value"]
    other = {"from": "", "digest": "sha256:another"}
    answer = visitor.submit(page, "/apps/shop/rollback", **other)
    assert (answer.status, server.history("shop")[0]["status"]) == (409, "deployed")
    assert "What is live has changed" in answer.text


def test_a_press_stops_nothing_that_was_not_on_the_screen(server: NornServer, visitor: Visitor) -> None:
    page = visitor.get(f"/apps/shop/rollback?to={rolled_back(server)}")
    with database(server) as connection:
        connection.execute(
            "INSERT INTO operations (id, app, kind, status, params, requested_by, lease_until)"
            " VALUES ('since', 'shop', 'restart', 'running', '{}', 'ada', clock_timestamp() + interval '1 hour')"
        )
        try:
            answer = visitor.submit(page, "/apps/shop/rollback")
            assert answer.status == 409
            assert "the restart since" in answer.text
            assert server.operation("since")["cancel"] is None
            assert answer.the("input", name="stops").attributes["value"] == "since", "it is on the screen now"
        finally:
            connection.execute("DELETE FROM operations WHERE id = 'since'")


def test_a_hundred_failed_deploys_hide_no_version_to_go_back_to(server: NornServer, visitor: Visitor) -> None:
    known = rolled_back(server)
    with database(server) as connection:
        connection.execute(
            "INSERT INTO operations (id, app, kind, status, params, requested_by, finished_at)"
            " SELECT 'vain' || n, 'shop', 'deploy', 'failed', '{}', 'ada', clock_timestamp()"
            " FROM generate_series(1, 100) n"
        )
        connection.execute(
            "INSERT INTO deployments (id, app, kind, status, image_tag, commit_sha, origin_seq, requested_by)"
            " SELECT 'vain' || n, 'shop', 'deploy', 'failed', 'shop:vain', repeat('a', 40), 0, 'ada'"
            " FROM generate_series(1, 100) n"
        )
        try:
            page = visitor.get("/apps/shop/rollback")
            assert known in [element.attributes["value"] for element in page.all("option")]
        finally:
            connection.execute("DELETE FROM deployments WHERE id LIKE 'vain%'")
            connection.execute("DELETE FROM operations WHERE id LIKE 'vain%'")


def test_nothing_is_removed_but_what_was_on_the_screen(server: NornServer, visitor: Visitor) -> None:
    token = visitor.get("/apps/shop").all("input", name="csrf")[0].attributes["value"]
    answer = visitor.post("/apps/shop/retention", csrf=token, seen="0123456789abcdef")
    assert answer.status == 409
    assert "What is to go has changed" in answer.text
    assert server.status("shop")["operation"] is None


def test_a_quarantine_is_lifted_by_its_form(server: NornServer, visitor: Visitor) -> None:
    (kept,) = server.api("GET", "/api/apps/shop/quarantine").body["quarantine"]
    page = visitor.get("/apps/shop")
    assert kept["imageTag"] in page.text
    assert visitor.submit(page, "/apps/shop/quarantine/lift").status == 303
    assert server.api("GET", "/api/apps/shop/quarantine").body["quarantine"] == []


def deploy(server: NornServer, app: str) -> str:
    answer: dict[str, Any] = server.api("POST", f"/api/apps/{app}/deploy").body
    return str(answer["id"])
