"""The apps' databases: each app has one, and a role of its own that alone may connect to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.fixtures.postgres import PostgresServer

from norn.adapters.postgres.databases import PostgresDatabases
from norn.adapters.postgres.passwords import Passwords
from norn.domain.infraspec import PostgresService
from norn.domain.ports import AppDatabase
from norn.errors import NotPossible, Unavailable

pytestmark = pytest.mark.xdist_group("databases")  # one server of each version will do


def databases(url: str, passwords: Path) -> PostgresDatabases:
    async def server_url() -> str:
        return url

    return PostgresDatabases(server_url, Passwords(passwords))


def ensure(postgres: PostgresServer, passwords: Path, app: str, name: str, url: str | None = None) -> AppDatabase:
    return asyncio.run(databases(postgres.url, passwords).ensure(app, PostgresService(name, url)))


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    return tmp_path / "passwords"


def test_an_app_can_make_tables_in_its_database(postgres: PostgresServer, passwords: Path) -> None:
    database = ensure(postgres, passwords, "my-shop", "my_shop")
    with psycopg.connect(database.url) as connection:
        connection.execute("CREATE TABLE orders (id bigint)")
        row = connection.execute("SELECT current_user, current_database()").fetchone()
    assert row == ("app_my_shop", "my_shop")
    assert database.major == postgres.major


def test_a_second_look_finds_the_same_one(postgres: PostgresServer, passwords: Path) -> None:
    first = ensure(postgres, passwords, "twice", "twice")
    assert ensure(postgres, passwords, "twice", "twice") == first
    psycopg.connect(first.url).close()


def test_another_app_cannot_connect_to_it(postgres: PostgresServer, passwords: Path) -> None:
    mine = ensure(postgres, passwords, "mine", "mine")
    others = ensure(postgres, passwords, "others", "others")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(others.url, dbname=mine.name)


def test_another_app_that_names_the_database_of_the_first_is_refused(postgres: PostgresServer, passwords: Path) -> None:
    ensure(postgres, passwords, "first", "taken")
    with pytest.raises(NotPossible) as refused:
        ensure(postgres, passwords, "second", "taken")
    assert "app_first" in refused.value.message
    assert "GRANT app_first TO app_second" in refused.value.hint


def test_the_role_is_no_superuser_and_makes_nothing_but_tables(postgres: PostgresServer, passwords: Path) -> None:
    ensure(postgres, passwords, "modest", "modest")
    with postgres.connect() as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = 'app_modest'"
        ).fetchone()
    assert row == (False, False, False, False)


def test_the_password_is_in_a_file_that_only_its_owner_reads(postgres: PostgresServer, passwords: Path) -> None:
    database = ensure(postgres, passwords, "private", "private")
    kept = passwords / "private"
    assert kept.read_text() in database.url
    assert (kept.stat().st_mode & 0o777, passwords.stat().st_mode & 0o777) == (0o600, 0o700)


def test_an_administrator_with_an_odd_password_will_do(postgres: PostgresServer, passwords: Path) -> None:
    odd = "p@ss/w:rd %'\"\\ ?#é"
    with postgres.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS odd")
        connection.execute(sql.SQL("CREATE ROLE odd LOGIN CREATEDB CREATEROLE PASSWORD {}").format(sql.Literal(odd)))
    url = make_conninfo(postgres.url, user="odd", password=odd)
    database = asyncio.run(databases(url, passwords).ensure("oddly", PostgresService("oddly", None)))
    with psycopg.connect(database.url) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("app_oddly",)


def test_a_url_of_the_infraspec_is_used_as_it_is(postgres: PostgresServer, passwords: Path) -> None:
    given = ensure(postgres, passwords, "elsewhere", "elsewhere").url
    database = ensure(postgres, passwords, "guest", "elsewhere", given)
    assert (database.url, database.name) == (given, "elsewhere")
    assert not (passwords / "guest").exists()


def test_a_url_that_leads_to_another_database_than_the_infraspec_names_is_refused(
    postgres: PostgresServer, passwords: Path
) -> None:
    given = ensure(postgres, passwords, "elsewhere", "elsewhere").url
    with pytest.raises(NotPossible, match="elsewhere"):
        ensure(postgres, passwords, "guest", "another", given)


def test_a_server_that_does_not_answer_is_said_without_its_password(passwords: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        asyncio.run(
            databases("postgresql://norn:hidden-word@127.0.0.1:1/postgres", passwords).ensure(
                "lost", PostgresService("lost", None)
            )
        )
    assert "hidden-word" not in refused.value.message + str(refused.value.facts)
    assert "NORN_POSTGRES_URL" in refused.value.hint


def test_the_sessions_of_an_interrupted_migration_are_ended_and_no_others(
    postgres: PostgresServer, passwords: Path
) -> None:
    database = ensure(postgres, passwords, "stuck", "stuck")
    app: psycopg.Connection[Any] = psycopg.connect(database.url, application_name="app")
    migration: psycopg.Connection[Any] = psycopg.connect(database.url, application_name="norn-migrate")
    ended = asyncio.run(databases(postgres.url, passwords).end_sessions(database, "norn-migrate"))
    assert ended == 1
    assert app.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        migration.execute("SELECT 1")
    app.close()
    migration.close()


async def test_operations_on_one_database_exclude_each_other(passwords: Path, postgres: PostgresServer) -> None:
    known = databases(postgres.url, passwords)
    database = await known.ensure("myapp", PostgresService("alone_db"))
    printed: list[str] = []
    order: list[str] = []

    async def second() -> None:
        async with known.alone(database, printed.append):
            order.append("second")

    async with known.alone(database, printed.append):
        waiting = asyncio.create_task(second())
        while not printed:
            await asyncio.sleep(0.01)
        order.append("first")
    await waiting
    assert order == ["first", "second"]
    assert "alone_db" in printed[0]


async def test_two_ways_to_one_database_have_one_identity(passwords: Path, postgres: PostgresServer) -> None:
    known = databases(postgres.url, passwords)
    database = await known.ensure("myapp", PostgresService("same_db"))
    other = await known.ensure("myapp", PostgresService("other_db"))
    assert await known.identity(database.url) == await known.identity(database.admin_url)
    assert await known.identity(database.url) != await known.identity(other.url)
    assert await known.identity("postgresql://127.0.0.1:1/none") is None
