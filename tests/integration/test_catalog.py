"""A schema as data, on each major version: the same in a restored copy, and every change to it has a name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, dict_row
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.sample_database import another_database, copy, counts, fill
from tests.fixtures.schema_changes import CHANGES, NOTHING, OWNER, READER, SCHEMAS

from norn.adapters.snapshots import catalog
from norn.adapters.snapshots.catalog import read_catalog, table_states
from norn.domain.catalog import Catalog, Difference, compare

pytestmark = pytest.mark.xdist_group("catalog")  # one server of each version will do

_T = TypeVar("_T")
Session = psycopg.AsyncConnection[TupleRow]
After = Callable[[str], Catalog]


@pytest.fixture(scope="module")
def sample(postgres: PostgresServer) -> str:
    """The URL of a database with something of everything."""
    with postgres.connect() as connection:
        connection.execute(f"CREATE ROLE {OWNER}")
        connection.execute(f"CREATE ROLE {READER}")
        connection.execute("CREATE DATABASE sample")
    with postgres.connect("sample") as connection:
        fill(connection, OWNER, READER)
    return make_conninfo(postgres.url, dbname="sample")


@pytest.fixture(scope="module")
def schema(sample: str) -> Catalog:
    return read(sample, read_catalog)


@pytest.fixture(scope="module")
def after(sample: str) -> Iterator[After]:
    """The schema after a change, which is then undone; one session for all, which is a lot quicker."""
    with asyncio.Runner() as runner:
        connection = runner.run(connected(sample, autocommit=False))

        async def changed(change: str) -> Catalog:
            try:
                await connection.execute(change)
                return await read_catalog(connection)
            finally:
                await connection.rollback()

        yield lambda change: runner.run(changed(change))
        runner.run(connection.close())


def read(url: str, reading: Callable[[Session], Awaitable[_T]]) -> _T:
    async def looking() -> _T:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            return await reading(connection)

    return asyncio.run(looking())


async def connected(url: str, autocommit: bool) -> Session:
    return await psycopg.AsyncConnection.connect(url, autocommit=autocommit)


# ---- the same in a restored copy -------------------------------------------------------------------------------------


def test_a_restored_copy_has_the_same_schema(
    sample: str, schema: Catalog, postgres: PostgresServer, tmp_path: Path
) -> None:
    with another_database(postgres, "sample_copy") as url:
        copy(sample, url, postgres.major, tmp_path)
        difference = compare(schema, read(url, read_catalog))
    assert not difference, difference.summary(100)


def test_a_restored_copy_has_the_same_schema_as_the_digests_kept_beside_the_snapshot(
    sample: str, schema: Catalog, postgres: PostgresServer, tmp_path: Path
) -> None:
    kept = json.loads(json.dumps(schema.digests()))
    with another_database(postgres, "sample_copy") as url:
        copy(sample, url, postgres.major, tmp_path)
        difference = compare(kept, read(url, read_catalog))
    assert not difference, difference.summary(100)


@pytest.mark.parametrize("setup", SCHEMAS)
def test_this_too_is_the_same_in_a_restored_copy(
    setup: str, sample: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    with another_database(postgres, "one") as one, another_database(postgres, "other") as other:
        with psycopg.connect(one, autocommit=True) as connection:
            connection.execute(setup)
        copy(one, other, postgres.major, tmp_path)
        difference = compare(read(one, read_catalog), read(other, read_catalog))
    assert not difference, difference.summary(100)


def test_a_new_database_has_nothing(postgres: PostgresServer) -> None:
    with another_database(postgres, "empty") as url:
        assert read(url, read_catalog) == Catalog()


# ---- what counts as a change -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "how", "named"), CHANGES)
def test_a_change_is_noticed_and_named(change: str, how: str, named: str, after: After, schema: Catalog) -> None:
    difference = compare(schema, after(change))
    assert named in getattr(difference, how), difference


@pytest.mark.parametrize("change", NOTHING)
def test_what_is_no_change_is_not_taken_for_one(change: str, after: After, schema: Catalog) -> None:
    difference = compare(schema, after(change))
    assert not difference, difference.summary(100)


def test_nothing_else_is_named(after: After, schema: Catalog) -> None:
    difference = compare(schema, after("ALTER TABLE public.replies DROP COLUMN kind"))
    assert difference == Difference(
        missing=("column public.replies.kind", "constraint public.replies.replies_kind_check"),
        changed=("columns public.replies",),
    )


def test_an_index_that_is_not_valid_is_as_good_as_none(postgres: PostgresServer) -> None:
    with another_database(postgres, "broken") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1)")
            before = read(url, read_catalog)
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)")
        assert read(url, read_catalog) == before


def test_of_an_extension_only_its_version_and_schema_are_there(postgres: PostgresServer) -> None:
    with another_database(postgres, "extended") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            name, version = extension(connection)
            connection.execute("CREATE TABLE t (id serial PRIMARY KEY)")
            connection.execute(f"ALTER EXTENSION {name} ADD TABLE t")
            connection.execute(f"ALTER EXTENSION {name} ADD SEQUENCE t_id_seq")
        found = read(url, read_catalog)
    assert [(entry.label, entry.definition) for entry in found] == [
        (f"extension {name}", f"version {version} in public")
    ]


def extension(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    """Name and version of one that is installed now."""
    row = connection.execute(
        "SELECT name, default_version FROM pg_available_extensions WHERE name IN ('hstore', 'vector') LIMIT 1"
    ).fetchone()
    assert row is not None
    connection.execute(f"CREATE EXTENSION {row[0]}")
    return row[0], row[1]


def test_a_column_that_is_not_null_is_not_named_twice(after: After, schema: Catalog) -> None:
    difference = compare(schema, after("ALTER TABLE public.cache ALTER value SET NOT NULL"))
    assert difference == Difference(changed=("column public.cache.value",))


# ---- whatever the session and the database have set ------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "search_path = sales, pg_catalog",
        "search_path = ''",
        "search_path = pg_temp, public, pg_catalog",
        "TimeZone = 'America/Caracas'",
        "DateStyle = 'German'",
        "IntervalStyle = 'iso_8601'",
        "extra_float_digits = 0",
        "bytea_output = escape",
        "quote_all_identifiers = on",
        "client_encoding = LATIN1",
        "standard_conforming_strings = off",
    ],
)
async def test_a_setting_of_the_session_makes_no_difference(setting: str, sample: str, schema: Catalog) -> None:
    async with await connected(sample, autocommit=True) as connection:
        await connection.execute(f"SET {setting}")
        difference = compare(schema, await read_catalog(connection))
    assert not difference, difference.summary()


def test_the_search_path_of_the_database_makes_no_difference(postgres: PostgresServer) -> None:
    with another_database(postgres, "pathed") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA s; CREATE TYPE s.e AS ENUM ('a'); CREATE TABLE s.t (a s.e DEFAULT 'a')")
            connection.execute("CREATE FUNCTION s.f(s.e) RETURNS s.t LANGUAGE sql AS 'SELECT t FROM s.t'")
            connection.execute("CREATE VIEW s.v AS SELECT s.f(a) FROM s.t")
        before = read(url, read_catalog)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER DATABASE pathed SET search_path = s, pg_catalog")
        assert read(url, read_catalog) == before


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("reading", [read_catalog, table_states])
async def test_the_sessions_settings_are_afterwards_as_before(
    reading: Callable[[Session], Awaitable[object]], autocommit: bool, sample: str
) -> None:
    async with await connected(sample, autocommit) as connection:
        await connection.execute("SET search_path = sales, pg_catalog")
        await reading(connection)
        row = await (await connection.execute("SHOW search_path")).fetchone()
    assert row == ("sales, pg_catalog",)


@pytest.mark.parametrize("reading", [read_catalog, table_states])
async def test_no_transaction_is_left_open(reading: Callable[[Session], Awaitable[object]], sample: str) -> None:
    async with await connected(sample, autocommit=False) as connection:
        await reading(connection)
        assert connection.info.transaction_status == TransactionStatus.IDLE


@pytest.mark.parametrize("reading", [read_catalog, table_states])
async def test_no_lock_is_kept_in_the_sessions_transaction(
    reading: Callable[[Session], Awaitable[object]], sample: str
) -> None:
    async with await connected(sample, autocommit=False) as connection:
        await connection.execute("SELECT 1")
        await reading(connection)
        cursor = await connection.execute(
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation >= 16384"
        )
        assert await cursor.fetchone() == (0,)


async def test_it_reads_in_a_transaction_that_may_not_write(sample: str, schema: Catalog) -> None:
    async with await connected(sample, autocommit=False) as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        await connection.execute("SELECT 1")
        assert await read_catalog(connection) == schema


async def test_the_sessions_form_of_rows_makes_no_difference(sample: str, schema: Catalog) -> None:
    async with await psycopg.AsyncConnection.connect(sample, row_factory=dict_row) as connection:
        assert await read_catalog(connection) == schema


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_every_table_is_counted(sample: str, postgres: PostgresServer) -> None:
    states = read(sample, table_states)
    assert {name: state.rows for name, state in states.items()} == counts(postgres.major * 10_000)


async def test_rows_that_come_after_an_exported_moment_are_not_counted(sample: str) -> None:
    async with (
        await connected(sample, autocommit=False) as holder,
        await connected(sample, autocommit=True) as writer,
        await connected(sample, autocommit=False) as reader,
    ):
        await holder.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await reader.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        row = await (await holder.execute("SELECT pg_export_snapshot()")).fetchone()
        assert row is not None
        await writer.execute("INSERT INTO public.log VALUES ('late')")
        await reader.execute(f"SET TRANSACTION SNAPSHOT '{row[0]}'")
        states = await table_states(reader)
        await writer.execute("DELETE FROM public.log WHERE line = 'late'")
    assert states["public.log"].rows == 3


async def test_outside_a_transaction_all_is_counted_at_one_moment(sample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_TABLES_AT_A_TIME", 1)
    async with await connected(sample, autocommit=True) as connection, await connected(sample, True) as writer:
        rows, asked = catalog._rows, list[Any]()

        async def disturbed(*arguments: Any) -> list[tuple[Any, ...]]:
            if len(asked) == 1:
                await writer.execute("INSERT INTO public.log VALUES ('late')")
            asked.append(arguments)
            return await rows(*arguments)

        monkeypatch.setattr(catalog, "_rows", disturbed)
        states = await table_states(connection)
        await writer.execute("DELETE FROM public.log WHERE line = 'late'")
    assert states["public.log"].rows == 3


async def test_a_table_is_known_by_its_oid_and_its_file(sample: str) -> None:
    async with await connected(sample, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT oid::int8, pg_relation_filenode(oid)::int8 FROM pg_class WHERE oid = 'public.log'::regclass"
        )
        state = (await table_states(connection))["public.log"]
        assert await cursor.fetchone() == (state.oid, state.file)


async def test_a_table_that_was_emptied_has_another_file(sample: str) -> None:
    async with await connected(sample, autocommit=False) as connection:
        before = (await table_states(connection))["public.log"]
        await connection.execute("TRUNCATE public.log")
        after = (await table_states(connection))["public.log"]
        await connection.rollback()
    assert (after.rows, after.oid, after.file == before.file) == (0, before.oid, False)


async def test_tables_of_extensions_are_not_counted(sample: str, postgres: PostgresServer) -> None:
    with another_database(postgres, "extended") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            name, _ = extension(connection)
            connection.execute(f"CREATE TABLE t (); ALTER EXTENSION {name} ADD TABLE t; CREATE TABLE u ()")
        async with await connected(url, autocommit=True) as reader:
            assert list(await table_states(reader)) == ["public.u"]


@pytest.mark.parametrize("force", ["", "; ALTER TABLE t FORCE ROW LEVEL SECURITY"])
async def test_row_security_hides_no_rows(force: str, sample: str, postgres: PostgresServer) -> None:
    with another_database(postgres, "secured") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE t (a int); INSERT INTO t VALUES (1); ALTER TABLE t ENABLE ROW LEVEL SECURITY; "
                f"ALTER TABLE t OWNER TO {OWNER}{force}"
            )
        async with await connected(url, autocommit=True) as connection:
            await connection.execute(f"SET ROLE {OWNER}")
            if force:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await table_states(connection)
            else:
                assert (await table_states(connection))["public.t"].rows == 1


# ---- many of them ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(postgres: PostgresServer) -> Iterator[str]:
    """A database with 2,000 tables, of which each has as many rows as the last digit of its name says."""
    with another_database(postgres, "large") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "DO $$ BEGIN FOR n IN 0..1999 LOOP "
                "EXECUTE format('CREATE TABLE t%s AS SELECT FROM generate_series(1, %s)', n, n % 10); END LOOP; END $$"
            )
        yield url


def test_two_thousand_tables_are_read(large: str) -> None:
    found = read(large, read_catalog)
    assert {entry.name for entry in found if entry.kind == "table"} == {f"public.t{n}" for n in range(2000)}


def test_two_thousand_tables_are_counted(large: str) -> None:
    states = read(large, table_states)
    assert {name: state.rows for name, state in states.items()} == {f"public.t{n}": n % 10 for n in range(2000)}
