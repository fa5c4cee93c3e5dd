"""The verdict on a schema, against an oracle that really runs old code's statements after the migration."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.fixtures.migrations import Migration, random_migration, random_model
from tests.fixtures.oracle import Oracle, Outcome
from tests.fixtures.postgres import PostgresServer, serving

from norn.adapters.postgres.sessions import session
from norn.adapters.snapshots.schemas import read_schema
from norn.domain.schema import Change, Schema, changes
from norn.domain.verdict import Level

APP = "app_shop"
RUNS = 300


@pytest.fixture(scope="module", params=[16], ids=["PostgreSQL 16"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    for server in serving(request.param):
        with server.connect() as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(APP)))
            connection.execute(sql.SQL("CREATE DATABASE shop OWNER {}").format(sql.Identifier(APP)))
        yield server


@dataclass
class Tally:
    """How often the verdict said what, where the oracle found what."""

    counts: Counter[tuple[str, Level]] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)

    def add(self, migration: Migration, found: Sequence[Change], outcome: Outcome) -> None:
        level = max((change.level for change in found), key=lambda level: level.weight, default=Level.SAFE)
        true = "fails" if outcome.failed else "lost" if outcome.lost else "nothing"
        self.counts[true, level] += 1
        codes = ", ".join(change.code for change in found)
        self.told.append(f"{true} / {level}: {migration.name} [{codes}] {outcome.failed[:2]} {outcome.lost[:1]}")

    def share(self, found: str, level: Level) -> float:
        total = sum(count for (what, _), count in self.counts.items() if what == found)
        return self.counts[found, level] / total if total else 0.0


class Shop:
    """An app's database, made anew for each migration."""

    def __init__(self, server: PostgresServer) -> None:
        self.admin_url = make_conninfo(server.url, dbname="shop")
        self.app_url = make_conninfo(server.url, dbname="shop", user=APP)
        self.connection = psycopg.connect(self.admin_url, autocommit=True)
        self._runner, self._sessions = asyncio.Runner(), AsyncExitStack()
        self._session = self._runner.run(self._sessions.enter_async_context(session(self.admin_url)))
        self.connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(APP)))

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self._runner.run(self._sessions.aclose())
        self._runner.close()

    def empty(self) -> None:
        self.connection.execute("DROP SCHEMA IF EXISTS public CASCADE")
        self.connection.execute("CREATE SCHEMA public")

    def run(self, statements: tuple[str, ...] | list[str]) -> None:
        for statement in statements:
            self.connection.execute(statement)

    def schema(self) -> Schema:
        return self._runner.run(read_schema(self._session, APP))


def judged(shop: Shop, rng: Random, *, evenly: bool = False) -> tuple[Migration, tuple[Change, ...], Outcome] | None:
    """A random migration, what the verdict says of it, and what is true; None where it cannot be carried out."""
    model = random_model(rng)
    migration = random_migration(rng, model, evenly=evenly)
    shop.empty()
    shop.run(model.sql())
    oracle = Oracle(shop.connection)
    before = shop.schema()
    try:
        shop.run(migration.statements)
    except psycopg.Error as e:
        print("INVALID", migration, e)
        return None
    return migration, changes(before, shop.schema()), oracle.judge()


def test_the_verdict_agrees_with_what_old_code_meets(server: PostgresServer) -> None:
    with Shop(server) as shop:
        tally = Tally()
        for seed in range(RUNS):
            found = judged(shop, Random(seed))
            if found is not None:
                tally.add(*found)
    from pathlib import Path

    Path("/tmp/oracle.txt").write_text("\n".join(sorted(tally.told)) + str(tally.counts))
    assert tally.share("fails", Level.UNSAFE) >= 0.95
    assert tally.share("nothing", Level.SAFE) >= 0.90
    assert tally.share("nothing", Level.UNSAFE) <= 0.03
    assert not tally.counts["fails", Level.SAFE]
    assert not tally.counts["lost", Level.SAFE]
