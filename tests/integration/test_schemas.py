"""What is read of an app's database for a verdict, on real servers."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.fixtures.norn import until
from tests.fixtures.postgres import PostgresServer

from norn.adapters.postgres.clients import installations
from norn.adapters.postgres.sessions import Session, session
from norn.adapters.snapshots.contents import table_contents
from norn.adapters.snapshots.ledgers import read_ledgers
from norn.adapters.snapshots.loss import take_anchor
from norn.adapters.snapshots.schemas import PostgresSchemas, read_schema
from norn.adapters.snapshots.written import rows_written
from norn.domain.contents import rewritten
from norn.domain.ports import AppDatabase
from norn.domain.schema import changes
from norn.domain.schema.structure import Structure, facts_of

pytestmark = pytest.mark.xdist_group("schemas")
APP = "app_shop"


def made(server: PostgresServer) -> str:
    """A new database of the app's role; its URL for the administrator."""
    with server.connect() as connection:
        connection.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (APP,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(APP), APP))
        connection.execute(sql.SQL("CREATE DATABASE shop OWNER {}").format(sql.Identifier(APP)))
    return make_conninfo(server.url, dbname="shop")


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return made(postgres)


def run(url: str, *statements: str, role: str = APP) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
        for statement in statements:
            connection.execute(statement)


def alone(url: str) -> None:
    """Until all other sessions of the database have ended: what a session has counted is written when it ends."""
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(url, autocommit=True) as connection:
        until(lambda: not connection.execute(others).fetchall(), "the end of the other sessions")


@asynccontextmanager
async def looking(url: str) -> AsyncIterator[Session]:
    async with session(url) as connection, connection.transaction(force_rollback=True):
        yield connection


async def schema_codes(url: str, *statements: str) -> list[str]:
    """Of the changes that these statements make."""
    async with session(url) as connection:
        before = await read_schema(connection, APP)
        run(url, *statements)
        return [change.code for change in changes(before, await read_schema(connection, APP))]


ODD = 'CREATE TABLE "Odd "" table" (id bigserial PRIMARY KEY, "a, b" text, "x""y" int CHECK ("x""y" > 0))'


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ('ALTER TABLE "Odd "" table" DROP COLUMN "a, b"', ["column_dropped"]),
        ('ALTER TABLE "Odd "" table" RENAME "a, b" TO c', ["column_renamed"]),
        ('ALTER TABLE "Odd "" table" RENAME TO plain', ["relation_renamed"]),
        ('CREATE UNIQUE INDEX ON "Odd "" table" ("x""y")', ["unique_added"]),
        ('DROP TABLE "Odd "" table"', ["relation_dropped"]),
    ],
)
async def test_odd_names(url: str, statement: str, expected: list[str]) -> None:
    run(url, ODD)
    assert await schema_codes(url, statement) == expected


async def test_how_far_a_sequence_is_counts(url: str) -> None:
    run(url, "CREATE TABLE t (id serial PRIMARY KEY)", "INSERT INTO t SELECT FROM generate_series(1, 9)")
    assert await schema_codes(url, "INSERT INTO t DEFAULT VALUES") == []
    assert await schema_codes(url, "SELECT setval('t_id_seq', 3)") == ["sequence_moved_back"]


async def test_a_role_that_is_not_the_owner_has_what_it_was_granted(url: str, postgres: PostgresServer) -> None:
    with postgres.connect("shop") as connection:
        connection.execute("CREATE TABLE theirs (a int)")
        connection.execute(sql.SQL("GRANT SELECT, INSERT ON theirs TO {}").format(sql.Identifier(APP)))
    async with session(url) as connection:
        before = await read_schema(connection, APP)
        with postgres.connect("shop") as admin:
            admin.execute(sql.SQL("REVOKE INSERT ON theirs FROM {}").format(sql.Identifier(APP)))
        (found,) = changes(before, await read_schema(connection, APP))
    assert (found.code, found.remedy) == ("privilege_revoked", f"GRANT INSERT ON TABLE public.theirs TO {APP}")


async def test_norns_own_reading_is_no_use_of_a_table(url: str) -> None:
    run(url, "CREATE TABLE t (id serial PRIMARY KEY, a text)", "INSERT INTO t (a) VALUES ('x')")

    async def uses() -> int:
        async with session(url) as connection:
            (entry,) = Structure((await read_schema(connection, APP)).catalog).of_kinds(("table",))
            return int(facts_of(entry)["uses"])

    alone(url)
    before = await uses()
    await table_contents(url, 5.0)
    async with looking(url) as connection:
        anchor = await take_anchor(connection)
    await rows_written(url, anchor, None, budget_s=5.0)
    alone(url)
    assert await uses() == before


async def test_rows_that_were_updated_are_noticed_and_new_columns_are_not(url: str) -> None:
    run(url, "CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    before = await table_contents(url, 5.0)
    run(url, "ALTER TABLE t ADD b int; UPDATE t SET b = 1", "INSERT INTO t VALUES (3, 'z')")
    run(url, "ALTER TABLE t DROP b")
    filled = await table_contents(url, 5.0)
    run(url, "DELETE FROM t WHERE id = 3")
    assert rewritten(before, await table_contents(url, 5.0)) == ()
    run(url, "UPDATE t SET a = 'w' WHERE id = 2")
    (found,) = rewritten(before, await table_contents(url, 5.0))
    assert (found.table, found.columns) == ("public.t", ("a",))
    assert filled["public.t"].rows == 3


async def test_rows_are_counted_by_the_migration_and_since(url: str) -> None:
    run(url, "CREATE TABLE t (id int)", "INSERT INTO t SELECT generate_series(1, 5)")
    async with looking(url) as connection:
        before = await take_anchor(connection)
    run(url, "INSERT INTO t SELECT generate_series(6, 8)")
    async with looking(url) as connection:
        after = await take_anchor(connection)
    run(url, "UPDATE t SET id = -id WHERE id < 3")
    written = await rows_written(url, before, after, budget_s=5.0)
    assert written is not None
    (found,) = written
    assert (found.table, found.by_migration, found.since, found.complete) == ("public.t", 3, 2, True)


async def test_without_time_it_is_at_least_what_was_found(url: str) -> None:
    run(url, "CREATE TABLE t (id int)")
    async with looking(url) as connection:
        before = await take_anchor(connection)
    written = await rows_written(url, before, None, budget_s=-1.0)
    assert written is not None
    (found,) = written
    assert (found.complete, found.since) == (False, 0)


async def test_in_another_database_an_anchor_says_nothing(url: str, postgres: PostgresServer) -> None:
    async with looking(make_conninfo(postgres.url, dbname="postgres")) as connection:
        elsewhere = await take_anchor(connection)
    assert await rows_written(url, elsewhere, None, budget_s=5.0) is None


@pytest.mark.parametrize(
    ("statement", "tool", "revisions"),
    [
        ("CREATE TABLE alembic_version AS SELECT 'a1'::varchar(32) AS version_num", "Alembic", ("a1",)),
        ("CREATE TABLE django_migrations AS SELECT 1 AS id, 'shop' AS app, '0001' AS name, now() AS applied", "Django",
         ("shop.0001",)),
        ("CREATE TABLE schema_migrations AS SELECT '2026'::text AS version", "Rails or dbmate", ("2026",)),
        ("CREATE TABLE schema_migrations AS SELECT 7::bigint AS version, false AS dirty", "golang-migrate", ("7",)),
        ("CREATE TABLE schema_migrations AS SELECT 7::bigint AS version, now() AS inserted_at", "Ecto", ("7",)),
        ("CREATE TABLE goose_db_version AS SELECT v AS version_id, v < 3 AS is_applied FROM generate_series(1, 3) v",
         "goose", ("2", "1")),
        (("CREATE TABLE _prisma_migrations AS SELECT 'm1' AS migration_name, now() AS finished_at, "
          "NULL::timestamptz AS rolled_back_at"), "Prisma", ("m1",)),
        (("CREATE TABLE flyway_schema_history AS SELECT 1 AS installed_rank, '1.2' AS version, 'V' AS script, "
          "true AS success"), "Flyway", ("1.2",)),
        ("CREATE TABLE knex_migrations AS SELECT 'k1' AS name, 1 AS batch, now() AS migration_time", "Knex", ("k1",)),
        ("CREATE TABLE atlas_schema_revisions AS SELECT '1' AS version, '' AS description, now() AS executed_at",
         "Atlas", ("1",)),
        (("CREATE SCHEMA sqitch; CREATE TABLE sqitch.changes AS SELECT 'x' AS change_id, 'c' AS change, "
          "'p' AS project, now() AS planned_at"), "Sqitch", ("p:c",)),
    ],
)  # fmt: skip
async def test_a_ledger_is_recognised_by_its_shape(
    url: str, statement: str, tool: str, revisions: tuple[str, ...]
) -> None:
    run(url, statement)
    async with looking(url) as connection:
        (found,) = await read_ledgers(connection)
    assert (found.tool, found.revisions) == (tool, revisions)


async def test_a_table_that_only_has_the_name_of_a_ledger_is_none(url: str) -> None:
    run(url, "CREATE TABLE migrations (id int)", "CREATE TABLE changes (a int)")
    async with looking(url) as connection:
        assert await read_ledgers(connection) == ()


# ---- statements that were seen -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counting() -> Iterator[PostgresServer]:
    """Debian's PostgreSQL 15, which has pg_stat_statements."""
    if 15 not in installations():
        pytest.skip("PostgreSQL 15 is not installed here (apt-get install postgresql-15)")
    with tempfile.TemporaryDirectory(prefix="norn-test-pg-") as name:
        Path(name).chmod(0o755)
        more = {"shared_preload_libraries": "pg_stat_statements"}
        server = PostgresServer(Path(name) / "server", 15, more)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def database(url: str) -> AppDatabase:
    return AppDatabase("shop", "shop", make_conninfo(url, user=APP), url, 150000)


async def test_statements_that_the_app_has_run_are_prepared_on_the_new_schema(counting: PostgresServer) -> None:
    url = made(counting)
    run(url, "CREATE EXTENSION pg_stat_statements", role="norn")
    run(
        url,
        "CREATE TABLE notes (id int, title text, views int)",
        "SELECT title FROM notes WHERE id = 7",
        "UPDATE notes SET views = views + 1 WHERE id = 7",
        "SELECT sum(views) FROM notes",
    )
    before = await PostgresSchemas().state(database(url))
    assert before.statements is not None
    assert "SELECT title FROM notes WHERE id = $1" in before.statements
    run(url, "ALTER TABLE notes RENAME title TO name; ALTER TABLE notes ALTER views TYPE text")
    _, failing = await PostgresSchemas().look(database(url), before.statements)
    assert failing["SELECT title FROM notes WHERE id = $1"] == 'column "title" does not exist'
    assert "SELECT sum(views) FROM notes" in failing, "a function that the new type has not"
    assert "CREATE" not in "".join(failing)


async def test_what_failed_before_does_not_count(counting: PostgresServer) -> None:
    url = made(counting)
    run(url, "CREATE EXTENSION pg_stat_statements", role="norn")
    run(url, "CREATE TABLE notes (id int)", "SELECT id FROM notes", "ALTER TABLE notes RENAME id TO number")
    before = await PostgresSchemas().state(database(url))
    assert before.statements is not None
    assert "SELECT id FROM notes" not in before.statements


async def test_nothing_that_is_prepared_is_executed(counting: PostgresServer) -> None:
    url = made(counting)
    run(url, "CREATE TABLE notes (id int)")
    tricks = ["DELETE FROM notes", "SELECT 1; DROP TABLE notes", "INSERT INTO notes VALUES (1)"]
    _, failing = await PostgresSchemas().look(database(url), tricks)
    assert list(failing) == ["SELECT 1; DROP TABLE notes"], "two statements cannot be prepared as one"
    with counting.connect("shop") as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,)


async def test_a_server_that_keeps_no_statements_is_none(url: str) -> None:
    assert (await PostgresSchemas().state(database(url))).statements is None
