"""Test restores and retention through the server: what goes is gone, what stays can still be gone back to."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer

from norn.adapters.accounts import can_reach, for_apps

pytestmark = [
    pytest.mark.xdist_group("retention"),
    pytest.mark.skipif(not can_reach(Path(App.psql), for_apps()), reason="psql is where apps cannot reach it"),
]
numbers = itertools.count()
ANSWERS = ("one", "two", "three", "four")


def shelf(server: NornServer, *, retain: int = 5) -> App:
    """An app with a database and a migration, not deployed yet."""
    app = App(server, f"kept{next(numbers)}")
    app.declare("CREATE TABLE IF NOT EXISTS books (id bigint PRIMARY KEY)", more=f"artifacts: {{retain: {retain}}}\n")
    return app


def images(app: App) -> list[str]:
    found = app.server.api("GET", f"/api/apps/{app.name}/artifacts").body["artifacts"]
    return [artifact["imageTag"] for artifact in found]


def snapshots(app: App) -> list[str]:
    found = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"]
    assert all(snapshot["exists"] for snapshot in found)
    return [snapshot["name"] for snapshot in found]


# ---- test restores -----------------------------------------------------------------------------------------------


def test_a_test_restore_shows_when_it_last_succeeded(shared_norn: NornServer) -> None:
    app = shelf(shared_norn)
    app.deploy("one")
    done = shared_norn.norn("snapshots", "verify", app.name)
    assert done.exit_status == 0, done.err
    (listed,) = shared_norn.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"]
    assert listed["verifiedAt"] is not None
    assert listed["verification"]["ok"]


def test_a_test_restore_of_a_damaged_snapshot_fails_and_is_remembered(shared_norn: NornServer) -> None:
    app = shelf(shared_norn)
    app.deploy("one")
    (name,) = snapshots(app)
    path = shared_norn.home / "snapshots" / name
    path.write_bytes(path.read_bytes()[:-100])
    assert shared_norn.norn("snapshots", "verify", app.name, name).exit_status == 1
    (listed,) = shared_norn.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"]
    assert (listed["verifiedAt"], listed["verification"]["code"]) == (None, "snapshot_damaged")


def test_a_test_restore_leaves_nothing_on_the_apps_server(shared_norn: NornServer) -> None:
    app = shelf(shared_norn)
    app.deploy("one")

    def there() -> list[str]:
        with app.database() as connection:
            return [row[0] for row in connection.execute("SELECT datname FROM pg_database ORDER BY 1")]

    before = there()
    assert shared_norn.norn("snapshots", "verify", app.name).exit_status == 0
    assert there() == before


def test_without_a_snapshot_there_is_nothing_to_verify(shared_norn: NornServer) -> None:
    app = App(shared_norn, f"kept{next(numbers)}", more="services: {postgres: {database: unverified}}\n")
    assert shared_norn.norn("snapshots", "verify", app.name).exit_status == 3


# ---- retention ---------------------------------------------------------------------------------------------------


def test_after_each_deploy_what_is_not_kept_any_more_goes(shared_norn: NornServer) -> None:
    app = shelf(shared_norn, retain=2)
    tags = [app.deploy(answer) for answer in ANSWERS]
    assert images(app) == tags[:1:-1]
    directories = {path.name for path in (shared_norn.home / "images" / app.name).iterdir() if path.is_dir()}
    assert directories == {tag.rpartition(":")[2] for tag in tags[2:]}


def test_the_way_back_of_each_version_that_is_kept_stays(shared_norn: NornServer) -> None:
    app = shelf(shared_norn, retain=2)
    for answer in ANSWERS:
        app.deploy(answer)
    taken = [found["snapshot"] for found in shared_norn.history(app.name)]
    assert snapshots(app) == taken[:1], "taken before four: the way back to three"
    files = {path.name for path in (shared_norn.home / "snapshots").iterdir() if path.name.startswith(f"{app.name}_")}
    assert files == {taken[0], taken[0].replace(".dump", ".json")}


def test_after_retention_a_rollback_goes_to_what_was_kept(shared_norn: NornServer) -> None:
    app = shelf(shared_norn, retain=2)
    for answer in ANSWERS:
        app.deploy(answer)
    assert shared_norn.norn("rollback", app.name).exit_status == 0
    assert app.get() == "three"


def test_what_would_go_is_listed_with_why_and_nothing_is_removed(shared_norn: NornServer) -> None:
    app = shelf(shared_norn)
    tags = [app.deploy(answer) for answer in ANSWERS]
    app.declare("CREATE TABLE IF NOT EXISTS books (id bigint PRIMARY KEY)", more="artifacts: {retain: 1}\n")
    listed = shared_norn.norn("prune", app.name, "--dry-run").json()["fates"]
    fates = {fate["name"]: fate for fate in listed}
    assert [fates[tag]["stays"] for tag in tags] == [False, False, True, True]
    assert fates[tags[2]]["why"] == "a rollback would go to it now"
    assert fates[tags[3]]["why"] == "it is live"
    assert images(app) == tags[::-1]


def test_a_lowered_retain_removes_the_surplus_at_the_next_run(shared_norn: NornServer) -> None:
    app = shelf(shared_norn)
    tags = [app.deploy(answer) for answer in ANSWERS]
    app.declare("CREATE TABLE IF NOT EXISTS books (id bigint PRIMARY KEY)", more="artifacts: {retain: 1}\n")
    done = shared_norn.norn("prune", app.name)
    assert done.exit_status == 0, done.err
    assert images(app) == tags[:1:-1]


def test_a_snapshot_that_was_taken_to_be_kept_is_kept(shared_norn: NornServer) -> None:
    app = shelf(shared_norn, retain=1)
    app.deploy("one")
    shared_norn.norn("snapshots", "create", app.name, "--keep")
    kept = snapshots(app)[0]
    for answer in ANSWERS[1:]:
        app.deploy(answer)
    assert kept in snapshots(app)


def test_a_former_database_stays_for_its_time_and_then_goes(shared_norn: NornServer) -> None:
    app = shelf(shared_norn)
    app.deploy("one")
    shared_norn.norn("snapshots", "create", app.name)
    done = shared_norn.norn("snapshots", "restore", app.name, snapshots(app)[0], "--yes")
    former = done.json()["result"]["former"]

    def there() -> bool:
        with app.database() as connection:
            return connection.execute("SELECT FROM pg_database WHERE datname = %s", (former,)).fetchone() is not None

    shared_norn.norn("prune", app.name)
    assert there()
    app.declare("SELECT 1", more="snapshots: {keepReplaced: 0s}\n")
    shared_norn.norn("prune", app.name)
    assert not there()
    assert shared_norn.norn("snapshots", "undo", app.name, "--yes").exit_status == 4


def test_nothing_of_other_names_is_touched(shared_norn: NornServer) -> None:
    app = shelf(shared_norn, retain=1)
    app.deploy("one")
    mine = shared_norn.home / "snapshots" / f"{app.name}_by_hand.dump"
    mine.write_text("mine")
    for answer in ANSWERS[1:]:
        app.deploy(answer)
    assert mine.read_text() == "mine"


# ---- the disk ----------------------------------------------------------------------------------------------------


def test_metrics_say_what_the_snapshots_take_and_what_is_left(shared_norn: NornServer) -> None:
    shelf(shared_norn).deploy("one")
    text = shared_norn.api("GET", "/metrics").body.decode()
    values = dict(line.split() for line in text.splitlines() if line.startswith("norn_snapshots_"))
    files = (shared_norn.home / "snapshots").glob("*Z.dump")
    assert float(values["norn_snapshots_bytes"]) == sum(path.stat().st_size for path in files)
    assert float(values["norn_snapshots_free_bytes"]) > 0


def test_the_doctor_says_whether_the_next_snapshot_has_room(shared_norn: NornServer) -> None:
    shelf(shared_norn).deploy("one")
    findings = shared_norn.norn("doctor").json()["findings"]
    (found,) = [finding for finding in findings if finding["check"] == "snapshots"]
    assert found["ok"]
    assert "bytes free" in found["message"]
