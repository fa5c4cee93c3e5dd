"""The verdict on a real server: what is said before a rollback, what it stops, and what helps."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import Finished, NornServer, until

pytestmark = pytest.mark.xdist_group("verdict")
_names = iter(f"judged{number}" for number in range(100))


@pytest.fixture
def app(shared_norn: NornServer) -> App:
    """Its first version is live, and has written two rows."""
    app = App(shared_norn, next(_names))
    app.declare("CREATE TABLE books (id bigint PRIMARY KEY, title text, city text)")
    app.deploy("one")
    with app.database() as connection:
        connection.execute("INSERT INTO books VALUES (1, 'a', 'x'), (2, 'b', 'y')")
    return app


def verdict(app: App, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = dry_run(app, *arguments).json()["verdict"]
    return document


def dry_run(app: App, *arguments: str) -> Finished:
    """One whose look at everything came to its end: it has two seconds, which a busy machine may need for others."""

    def whole() -> Finished | None:
        done = app.server.norn("rollback", app.name, "--dry-run", *arguments)
        found = done.json()["verdict"]["findings"]
        return None if any("it took longer than" in each.get("why", "") for each in found) else done

    found = until(whole, "a verdict on everything")
    assert found is not None
    return found


def codes(found: dict[str, Any], level: str = "") -> list[str]:
    return [finding["code"] for finding in found["findings"] if level in ("", finding["level"])]


def finding(found: dict[str, Any], code: str) -> dict[str, Any]:
    return next(finding for finding in found["findings"] if finding["code"] == code)


def migrated(app: App, statement: str, answer: str = "two", **more: Any) -> None:
    app.declare(statement, **more)
    app.deploy(answer)


def test_an_addition_is_safe_and_says_how_many_rows_were_written_since(app: App) -> None:
    migrated(app, "ALTER TABLE books ADD pages integer")
    with app.database() as connection:
        connection.execute("INSERT INTO books VALUES (3, 'c', 'z', 7)")
    # A verdict that was kept a moment ago, before the row, is used as it is.
    found = until(lambda: now if "rows_written" in codes(now := verdict(app)) else None, "a verdict of now", 60)
    assert found is not None
    assert (found["level"], codes(found)) == ("safe", ["schema_compatible", "rows_written"])
    (table,) = finding(found, "rows_written")["tables"]
    assert table == {"table": "public.books", "byMigration": 0, "since": 1, "complete": True}


def test_unsafe_is_refused_with_the_ways_out_and_force_goes_on(app: App) -> None:
    migrated(app, "ALTER TABLE books DROP COLUMN city")
    refused = app.server.norn("rollback", app.name)
    assert refused.exit_status == 4
    dropped = finding(refused.json()["verdict"], "column_dropped")
    snapshot = app.server.api("GET", f"/api/apps/{app.name}/snapshots").body["snapshots"][0]["name"]
    assert dropped["snapshot"] == snapshot
    commands = [way["command"] for way in dropped["ways"]]
    assert commands == [f"norn rollback {app.name} --to {refused.json()['target']['imageTag']} --restore-snapshot",
                        f"norn deploy {app.name}"]  # fmt: skip
    assert commands[0] in refused.err
    assert app.get() == "two", "nothing was changed"
    forced = app.server.norn("rollback", app.name, "--force")
    assert (forced.exit_status, app.get()) == (0, "one")
    kept = app.server.api("GET", f"/api/deployments/{forced.json()['id']}").body["verdict"]
    assert codes(kept, "unsafe") == ["column_dropped"], "the history keeps the verdict that was gone on in spite of"


def test_the_statement_that_helps_makes_it_safe(app: App) -> None:
    migrated(app, "ALTER TABLE books ADD pages integer NOT NULL DEFAULT 0; ALTER TABLE books ALTER pages DROP DEFAULT")
    helps = finding(verdict(app), "required_column_added")["ways"][0]["statement"]
    with app.database() as connection:
        connection.execute(helps)
    found = until(lambda: now if (now := verdict(app))["level"] == "safe" else None, "the new verdict", 90)
    assert found is not None
    assert "schema_drift" in codes(found), "it is told that somebody has been at the schema"


def test_what_was_dropped_and_put_back_is_lost_and_the_snapshot_is_named(app: App) -> None:
    migrated(app, "ALTER TABLE books DROP COLUMN city")
    migrated(app, "ALTER TABLE books ADD COLUMN city text", "three")
    first = app.tag(app.git("rev-list", "--max-parents=0", "HEAD"))
    found = verdict(app, "--to", first)
    lost = finding(found, "contents_lost")
    assert (found["level"], lost["subject"]) == ("caution", "column public.books.city")
    oldest = [deployment["snapshot"] for deployment in app.server.history(app.name) if deployment["snapshot"]][1]
    assert lost["snapshot"] == oldest


def test_rows_that_the_migration_has_changed_are_a_caution(app: App) -> None:
    migrated(app, "UPDATE books SET city = upper(city) WHERE id = 1")
    found = verdict(app)
    assert found["level"] == "caution"
    assert finding(found, "rows_changed")["tables"] == [{"table": "public.books", "rows": 1, "columns": ["city"]}]


def test_rows_that_a_failed_migration_has_changed_are_a_caution(app: App) -> None:
    app.declare("UPDATE books SET city = upper(city); COMMIT; SELECT nothing")
    app.commit("two")
    failed = app.server.norn("deploy", app.name)
    assert failed.exit_status == 1
    assert "can go on with it: rows_changed" in failed.err
    migrated(app, "ALTER TABLE books ADD pages integer", "three")
    found = verdict(app)
    assert (found["level"], finding(found, "rows_changed")["tables"][0]["columns"]) == ("caution", ["city"])


def test_rows_that_were_changed_as_their_table_went_behind_a_view_are_a_caution(app: App) -> None:
    migrated(app, "ALTER TABLE books RENAME TO volumes; UPDATE volumes SET city = upper(city); "
             "CREATE VIEW books AS SELECT * FROM volumes")  # fmt: skip
    found = verdict(app)
    assert finding(found, "rows_changed")["tables"][0]["table"] == "public.books"


def test_a_table_that_was_rewritten_is_a_caution_though_the_app_updates_it(app: App) -> None:
    with app.database() as connection:
        connection.execute("UPDATE books SET title = 'c' WHERE id = 1")
    migrated(app, "ALTER TABLE books ALTER city TYPE text USING upper(city)")
    found = verdict(app)
    assert (found["level"], finding(found, "rows_changed")["tables"][0]["whole"]) == ("caution", True)


def test_a_database_that_was_made_anew_by_hand_is_a_caution(app: App) -> None:
    migrated(app, "ALTER TABLE books ADD pages integer")
    with app.database("postgres") as connection:
        (owner,) = connection.execute(  # type: ignore[misc]
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (app.name,)
        ).fetchone()
        connection.execute(f"DROP DATABASE {app.name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {app.name} OWNER {owner}")
    with app.database() as connection:
        connection.execute(f"SET ROLE {owner}")
        connection.execute("CREATE TABLE books (id bigint PRIMARY KEY, title text, city text, pages integer)")
    why = "the database is another one than at that time, and no restore of this app has put it there"
    until(lambda: why in [each.get("why") for each in verdict(app)["findings"]], "that it is said", 90)


def test_filling_a_new_column_is_none(app: App) -> None:
    migrated(app, "ALTER TABLE books ADD pages integer; UPDATE books SET pages = 7")
    assert verdict(app)["level"] == "safe"


def test_a_deploy_says_beforehand_whether_it_can_be_rolled_back(app: App) -> None:
    migrated(app, "ALTER TABLE books RENAME city TO town")
    newest = app.server.history(app.name)[0]["id"]
    output = next(step["output"] for step in app.server.operation(newest)["steps"] if step["step"] == "migrate")
    assert "could not be rolled back by its code alone" in output
    assert "unsafe column_renamed" in output


def test_status_says_at_any_time_what_it_could_be_rolled_back_to(app: App) -> None:
    migrated(app, "ALTER TABLE books DROP COLUMN city")
    ready = app.server.status(app.name)["rollback"]
    assert (ready["possible"], ready["verdict"]["level"]) == (True, "unsafe")
    shown = app.server.norn("status", app.name, "-o", "text")
    assert f"could be rolled back to {ready['target']['imageTag']}: unsafe" in shown.out


def test_changed_settings_are_named_and_never_shown(app: App) -> None:
    app.server.norn("secrets", "set", app.name, "SMTP_KEY", stdin="hunter2")
    app.declare("SELECT 1", more="env: {COLOUR: blue}\nsecrets: [SMTP_KEY]\n")
    app.deploy("two")
    app.declare("SELECT 1", more="env: {COLOUR: green}\nsecrets: [SMTP_KEY]\n")
    app.deploy("three")
    verdict(app)  # what is known by now is kept, but not over what changes
    app.server.norn("secrets", "set", app.name, "SMTP_KEY", stdin="hunter3")
    reply = dry_run(app)
    changed = finding(reply.json()["verdict"], "configuration_changed")
    assert changed["changed"] == ["env COLOUR", "secret SMTP_KEY"]
    assert "hunter" not in reply.out + reply.err
    template = finding(verdict(app, "--template"), "configuration_changed")
    assert template["changed"] == ["secret SMTP_KEY"], "the template brings its own variables back"


def test_another_health_check_than_the_image_was_made_for_is_unsafe_but_with_the_template(app: App) -> None:
    app.declare("SELECT 1")
    spec = app.path / "infraspec.yaml"
    spec.write_text(spec.read_text().replace("healthcheck: /health", "healthcheck: /uid"))
    app.deploy("two")
    found = verdict_of_refused(app)
    assert finding(found, "template_incompatible")["different"] == ["healthcheck"]
    assert "template_incompatible" not in codes(verdict(app, "--template"))


def test_going_forward_again_after_a_rollback_with_the_template_names_what_is_not_as_it_was(app: App) -> None:
    app.declare("SELECT 1", more="env: {COLOUR: blue}\n")
    app.deploy("two")
    app.declare("SELECT 1", more="env: {COLOUR: green}\n")
    newer = app.deploy("three")
    back = app.server.norn("rollback", app.name, "--template")
    assert back.exit_status == 0, back.err
    app.server.ended(back.json()["id"])
    found = verdict(app, "--to", newer)
    assert finding(found, "configuration_changed")["changed"] == ["env COLOUR"]


def verdict_of_refused(app: App) -> dict[str, Any]:
    refused = dry_run(app)
    assert refused.exit_status == 4, "a dry run exits as the real run would"
    document: dict[str, Any] = refused.json()["verdict"]
    return document


@pytest.fixture
def outage() -> Iterator[str]:
    """Somebody else's server, which answers 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/health"
        server.shutdown()
        thread.join()


def test_the_targets_own_dependencies_are_asked(app: App, outage: str) -> None:
    app.declare("SELECT 1", more=f"dependencies: [{{name: payments, url: '{outage}'}}]\n")
    app.deploy("two")
    app.declare("SELECT 1")
    app.deploy("three")
    found = verdict(app)
    assert (found["level"], finding(found, "dependency")["status"]) == ("caution", 503)


def test_an_app_that_migrates_at_start_meets_a_revision_it_does_not_know(app: App) -> None:
    app.declare("CREATE TABLE alembic_version AS SELECT 5::text AS version_num")
    spec = app.path / "infraspec.yaml"
    spec.write_text(spec.read_text().replace("lockTimeout: 20s", "lockTimeout: 20s, atStart: true"))
    app.deploy("two")
    migrated(app, "UPDATE alembic_version SET version_num = 6", "three")
    found = verdict_of_refused(app)
    assert finding(found, "revision_unknown")["revisions"] == ["6"]


def test_a_restored_database_is_compared_by_name(app: App) -> None:
    migrated(app, "ALTER TABLE books DROP COLUMN city")
    back = app.server.norn("rollback", app.name, "--restore-snapshot", "--yes")
    assert back.exit_status == 0, back.err
    app.server.ended(back.json()["id"])
    migrated(app, "ALTER TABLE books ADD pages integer", "three")
    assert verdict(app)["level"] == "safe"
