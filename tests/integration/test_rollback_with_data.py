"""Rolling back code and data as one: what is asked, named and refused, and which data belongs to which version."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from tests.fixtures.apps import App
from tests.fixtures.archives import TITLED, UNTITLED, archive, books, healthy, with_data
from tests.fixtures.norn import NornServer, until

from norn.adapters.accounts import can_reach, for_apps

pytestmark = [
    pytest.mark.xdist_group("rollback with data"),
    pytest.mark.skipif(not can_reach(Path(App.psql), for_apps()), reason="psql is where apps cannot reach it"),
]
numbers = itertools.count()


@pytest.fixture
def app(shared_norn: NornServer) -> App:
    return archive(App(shared_norn, f"archive{next(numbers)}"))


def test_it_asks_while_the_bad_version_still_serves_and_a_no_changes_nothing(app: App) -> None:
    server = app.server
    reply = server.api("POST", f"/api/apps/{app.name}/rollback", {"restoreSnapshot": True})
    assert reply.status == 202, reply.body
    asking = until(
        lambda: found if (found := server.operation(reply.body["id"]))["asks"] else None, "its question", timeout_s=60
    )
    assert asking is not None
    assert asking["asks"]["loss"]["tables"][0]["written"] == 1
    assert asking["asks"]["expectedDowntimeS"] > 0
    assert (app.get(), books(app)) == ("bad", UNTITLED)
    server.api("POST", f"/api/operations/{asking['id']}/cancel")
    assert server.ended(asking["id"])["status"] == "cancelled"
    assert (app.get(), books(app), healthy(app)) == ("bad", UNTITLED, (2, 2))


def test_after_the_code_alone_has_gone_back_it_brings_the_data_of_what_is_live(app: App) -> None:
    back = app.server.norn("rollback", app.name)
    assert back.exit_status == 0, back.err
    assert (app.get(), books(app)) == ("good", UNTITLED)
    with_data(app)
    assert (app.get(), books(app)) == ("good", TITLED)


def test_a_dry_run_names_the_data_and_the_downtime(app: App) -> None:
    plan = app.server.norn("rollback", app.name, "--restore-snapshot", "--dry-run").json()
    listed = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"]
    assert plan["target"]["restore"]["snapshot"] == listed[0]["name"]
    assert plan["target"]["restore"]["expectedDowntimeS"] > 0
    assert (app.get(), books(app)) == ("bad", UNTITLED)


def test_a_snapshot_of_another_schema_points_to_the_rollback_with_data(app: App) -> None:
    name = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"][0]["name"]
    refused = app.server.norn("snapshots", "restore", app.name, name, "--yes")
    good = next(entry for entry in app.server.history(app.name) if entry["commitSubject"] == "answer good")
    assert (refused.exit_status, refused.json()["code"]) == (4, "schema_differs")
    assert f"norn rollback {app.name} --to {good['imageTag']} --restore-snapshot" in refused.err
