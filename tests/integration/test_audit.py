"""Everything that is done, or refused, is in the audit, and stays there."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer

from norn.operations.bake import BY

pytestmark = pytest.mark.xdist_group("audit")


def audit(server: NornServer, app: str, **wanted: str) -> list[dict[str, Any]]:
    """The entries of an app that are so, the oldest first."""
    entries = server.api("GET", f"/api/audit?app={app}&limit=200").body["entries"]
    return [entry for entry in reversed(entries) if wanted.items() <= entry.items()]


def database(server: NornServer) -> psycopg.Connection[Any]:
    """Norn's own, as the administrator."""
    directory = server.home / "postgres" / "norn"
    port, password = ((directory / name).read_text() for name in ("port", "password"))
    return psycopg.connect(host="127.0.0.1", port=port, user="norn", password=password, dbname="norn", autocommit=True)


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
    (cancelled,) = audit(server, "shop", action="operation.cancel")
    assert (cancelled["subject"], cancelled["reason"]) == (id_, "not now")
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
