"""Migrations as Jobs, and the database that an app and Norn are to have in common."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from tests.fixtures.clusters import ClusterApp, Namespace, get
from tests.fixtures.norn import NornServer, served, until
from tests.fixtures.postgres import PostgresServer, serving

MORE = """\
services: {{postgres: {{database: {database}}}}}
migrations: {{command: python3 migrate.py, lockTimeout: 2s}}
"""
MIGRATE = """\
import os, sys, time
import psycopg
print("migrating as", os.environ["PGAPPNAME"], flush=True)
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
{body}
"""


def migration(*statements: str, then: str = "pass") -> dict[str, str]:
    body = "".join(f"    connection.execute({statement!r})\n" for statement in statements) + f"    {then}\n"
    return {"migrate.py": MIGRATE.format(body=body)}


def app_with_database(server: NornServer, space: Namespace, name: str, more: str = "") -> ClusterApp:
    return ClusterApp(server, space, name, more=MORE.format(database=name.replace("-", "_")) + more)


def step(server: NornServer, operation_id: str, name: str) -> str:
    found = next(step for step in server.operation(operation_id)["steps"] if step["step"] == name)
    output: str = found["output"]
    return output


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[PostgresServer]:
    yield from serving(16)


def test_a_migration_runs_as_a_job_with_the_new_image_and_leaves_nothing(server: NornServer, space: Namespace) -> None:
    app = app_with_database(server, space, "ledger")
    app.deploy("one", files=migration("CREATE TABLE entries (id int)"))
    (deployment,) = server.history("ledger")
    output = step(server, deployment["id"], "migrate")
    assert "migrating as norn-migrate" in output
    assert deployment["snapshot"]
    assert deployment["verdict"] is None, "Norn and the app reach the same database"
    assert space.all("jobs") == []
    (pod,) = space.pods("ledger")
    assert "DATABASE_URL=postgresql://app_ledger:" in get(pod["status"]["podIP"], 8080, "/env")


def test_a_migration_that_fails_stops_the_deploy_with_what_was_live_still_live(
    server: NornServer, space: Namespace
) -> None:
    app = app_with_database(server, space, "failing")
    app.deploy("one", files=migration("CREATE TABLE entries (id int)"))
    app.commit("two", files=migration("CREATE TABLE entries (id int)"))
    failed = server.norn("deploy", "failing")
    assert failed.exit_status == 1
    assert "already exists" in failed.err
    assert app.answers() == {"one"}
    assert space.all("jobs") == []


def test_a_migration_waits_for_a_lock_no_longer_than_it_says(server: NornServer, space: Namespace) -> None:
    app = app_with_database(server, space, "locked")
    app.deploy("one", files=migration("CREATE TABLE entries (id int)"))
    (pod,) = space.pods("locked")
    environment = get(pod["status"]["podIP"], 8080, "/env").splitlines()
    url = next(line.partition("=")[2] for line in environment if line.startswith("DATABASE_URL="))
    app.commit("two", files=migration("ALTER TABLE entries ADD COLUMN name text"))
    with psycopg.connect(url) as held:
        held.execute("SELECT * FROM entries")
        failed = server.norn("deploy", "locked")
    assert failed.exit_status == 1
    assert "lockTimeout" in failed.err


def test_the_next_server_follows_a_migration_to_its_end(space: Namespace) -> None:
    with served(**space.settings()) as server:
        app = app_with_database(server, space, "lasting")
        app.commit("one", files=migration("CREATE TABLE entries (id int)", then='time.sleep(8); print("done")'))
        started = server.api("POST", "/api/apps/lasting/deploy", {})
        until(lambda: "migrating as" in str(server.operation(started.body["id"])["steps"]), "the migration")
        server.kill()
        server.start()
        operation = server.ended(started.body["id"])
        assert operation["status"] == "succeeded", operation["error"]
        output = step(server, started.body["id"], "migrate")
        assert "going on with it" in output
        assert "done" in output


def test_a_cancelled_deploy_ends_its_migration(server: NornServer, space: Namespace) -> None:
    app = app_with_database(server, space, "stopped")
    app.commit("one", files=migration("CREATE TABLE entries (id int)", then="time.sleep(600)"))
    started = server.api("POST", "/api/apps/stopped/deploy", {})
    until(lambda: "migrating as" in str(server.operation(started.body["id"])["steps"]), "the migration")
    server.norn("cancel", started.body["id"])
    assert server.ended(started.body["id"])["status"] == "cancelled"
    assert space.all("jobs") == []


def test_an_image_that_a_migration_cannot_have_fails_at_once(server: NornServer, space: Namespace) -> None:
    """The Job would wait for ever: a migration has no progress deadline."""
    from tests.cluster.test_rollbacks import delete_from_registry

    app = app_with_database(server, space, "imageless", "build: {test: sh -c 'echo testing; sleep 8'}\n")
    tag = app.commit("one", files=migration("SELECT 1"))
    started = server.api("POST", "/api/apps/imageless/deploy", {})
    until(lambda: "testing" in str(server.operation(started.body["id"])["steps"]), "the image at work in its test")
    delete_from_registry(tag, server.history("imageless")[0]["digest"])
    operation = server.ended(started.body["id"])
    assert operation["status"] == "failed"
    assert operation["error"]["code"] in ("migration_failed", "image_missing")


def test_another_database_than_norns_fails_the_deploy_before_the_snapshot(
    server: NornServer, space: Namespace, elsewhere: PostgresServer
) -> None:
    app = app_with_database(server, space, "elsewhere", f"env: {{DATABASE_URL: '{elsewhere.url}'}}\n")
    app.commit("one", files=migration("SELECT 1"))
    failed = server.norn("deploy", "elsewhere")
    assert failed.exit_status == 1
    assert "another database" in failed.err
    assert failed.json()["snapshot"] is None


def test_a_database_that_cannot_be_compared_is_a_caution(server: NornServer, space: Namespace) -> None:
    url = "postgresql://nobody@unknown.invalid/db"
    app = app_with_database(server, space, "unproven", f"env: {{DATABASE_URL: '{url}'}}\n")
    app.commit("one", files={"migrate.py": "print('nothing to do')\n"})
    done = server.norn("deploy", "unproven")
    assert done.exit_status == 0, done.err
    (finding,) = done.json()["verdict"]["findings"]
    assert (finding["code"], finding["level"]) == ("database_unverified", "caution")


def test_a_secret_that_norn_may_not_read_and_that_no_infraspec_lists_is_a_caution(
    server: NornServer, space: Namespace
) -> None:
    app = app_with_database(server, space, "unlisted")
    app.commit("one", files={"migrate.py": "print('nothing to do')\n"})
    server.norn("secrets", "set", "unlisted", "OTHER", stdin="x")
    assert server.norn("deploy", "unlisted").json()["verdict"] is None
    server.norn("secrets", "set", "unlisted", "DATABASE_URL", stdin="postgresql://nobody@unknown.invalid/db")
    app.commit("two")
    (finding,) = server.norn("deploy", "unlisted").json()["verdict"]["findings"]
    assert finding["code"] == "database_unverified"
    assert "cannot be read" in finding["message"]
