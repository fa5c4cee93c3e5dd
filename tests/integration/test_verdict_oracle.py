"""The verdict on a schema, against an oracle that really runs old code's statements after the migration."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.fixtures.histories import HISTORIES, History, Software, StepFailed
from tests.fixtures.migrations import CLASSES, Migration, random_migration, random_model
from tests.fixtures.oracle import Oracle, Outcome, Row, remove
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.shop import APP, Shop, serving_shops

from norn.domain.contents import rewritten
from norn.domain.schema import Change, changes
from norn.domain.verdict import Level

RUNS = 300
SHORT = {"Django contrib", "django-axes", "django-post-office", "django-q2"}
"""Histories that take a few seconds each; the others are for `make faults`."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    yield from serving_shops(16)


@dataclass
class Tally:
    """How often the verdict said what, where the oracle found what."""

    counts: Counter[tuple[str, Level]] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)

    def add(self, name: str, found: Sequence[Change], outcome: Outcome, at_least: Level = Level.SAFE) -> None:
        level = max(level_of(found), at_least, key=lambda level: level.weight)
        true = "fails" if outcome.failed else "lost" if outcome.lost else "nothing"
        self.counts[true, level] += 1
        codes = ", ".join(change.code for change in found if change.level is not Level.SAFE)
        self.told.append(f"{true} / {level.value}: {name} [{codes}] {outcome.failed[:2]} {outcome.lost[:1]}")

    def of(self, true: str) -> int:
        return sum(count for (what, _), count in self.counts.items() if what == true)

    def share(self, true: str, level: Level) -> float:
        return self.counts[true, level] / self.of(true) if self.of(true) else 0.0

    def unlike(self, true: str, level: Level) -> str:
        """For the message of an assertion: those that were told otherwise."""
        return "\n".join(line for line in self.told if line.startswith(true) and f"/ {level.value}:" not in line)


def level_of(found: Sequence[Change]) -> Level:
    return max((change.level for change in found), key=lambda level: level.weight, default=Level.SAFE)


@pytest.fixture(scope="module")
def shop(server: PostgresServer) -> Iterator[Shop]:
    with Shop(server) as shop:
        yield shop


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
    except psycopg.Error:
        return None  # a later change wants what an earlier one has taken away
    return migration, changes(before, shop.schema()), oracle.judge()


@pytest.mark.timeout(900)  # two minutes where others are at work as well
def test_the_verdict_agrees_with_what_old_code_meets(shop: Shop) -> None:
    """The figures that `docs/verdict.md` gives, over migrations about as often as in real histories."""
    tally = Tally()
    for seed in itertools.count():
        found = judged(shop, Random(seed))
        if found is not None:
            tally.add(found[0].name, found[1], found[2])
        if tally.counts.total() == RUNS:
            break
    assert all(tally.of(true) >= 5 for true in ("fails", "lost", "nothing")), tally.counts
    assert not tally.counts["fails", Level.SAFE], tally.unlike("fails", Level.UNSAFE)
    assert not tally.counts["lost", Level.SAFE], tally.unlike("lost", Level.CAUTION)
    assert tally.share("fails", Level.UNSAFE) >= 0.95, tally.unlike("fails", Level.UNSAFE)
    assert tally.share("nothing", Level.SAFE) >= 0.90, tally.unlike("nothing", Level.SAFE)
    assert tally.share("nothing", Level.UNSAFE) <= 0.03, tally.unlike("nothing", Level.SAFE)


@settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_it_never_says_safe_where_old_code_fails_or_contents_are_gone(shop: Shop, rng: Random) -> None:
    found = judged(shop, rng, evenly=True)
    if found is not None and level_of(found[1]) is Level.SAFE:
        assert (found[2].failed, found[2].lost) == ([], []), found[0]


@pytest.mark.long
@pytest.mark.parametrize("major", [15, 18])
def test_it_agrees_on_other_versions_of_postgresql(major: int) -> None:
    for other in serving_shops(major):
        tally = Tally()
        with Shop(other) as shop:
            for seed in range(600):
                found = judged(shop, Random(seed), evenly=True)
                if found is not None:
                    tally.add(found[0].name, found[1], found[2])
        assert not tally.counts["fails", Level.SAFE], tally.unlike("fails", Level.UNSAFE)
        assert not tally.counts["lost", Level.SAFE], tally.unlike("lost", Level.CAUTION)
        assert tally.share("fails", Level.UNSAFE) >= 0.95, tally.unlike("fails", Level.UNSAFE)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_the_generator_makes_a_migration_that_can_be_carried_out(shop: Shop, name: str) -> None:
    for seed in range(200):
        rng = Random(seed)
        model = random_model(rng)
        made = CLASSES[name][1](rng, rng.choice(model.tables), model)
        if made is not None:
            shop.empty()
            shop.run([*model.sql(), *made])
            return
    pytest.fail("it fits no schema")


def test_every_random_migration_changes_something() -> None:
    for seed in range(500):
        rng = Random(seed)
        assert random_migration(rng, random_model(rng)).statements


# ---- real histories --------------------------------------------------------------------------------------------------


def replayed(server: PostgresServer, software: Software) -> Tally:
    """Each step over rows that old code has written before it; they stay, but for those that a step does not like."""
    tally, added = Tally(), list[Row]()
    with server.connect() as admin:
        admin.execute("DROP DATABASE IF EXISTS history WITH (FORCE)")
        admin.execute(sql.SQL("CREATE DATABASE history OWNER {}").format(sql.Identifier(APP)))
    url = make_conninfo(server.url, dbname="history", user=APP, password=APP)
    with Shop(server, "history") as shop, History(software, url) as history:
        while (done := step(shop, history, added, tally)) is not None:
            assert done
    return tally


def step(shop: Shop, history: History, added: list[Row], tally: Tally) -> str | None:
    """One migration, judged where it changes anything; its name, None where there is none left."""
    oracle = Oracle(shop.connection)
    added += oracle.added
    before, held = shop.schema(), shop.contents()
    try:
        done = history.step()
    except StepFailed:  # it does not like the rows: once more without
        remove(shop.connection, added)
        oracle, before, held = Oracle(shop.connection, fill=False), shop.schema(), shop.contents()
        done = history.step()
    if done is None:
        return None
    if done.sql_statements:
        found, changed = changes(before, shop.schema()), rewritten(held, shop.contents())
        tally.add(f"{done.app}.{done.name}", found, oracle.judge(), Level.CAUTION if changed else Level.SAFE)
    return done.name


@pytest.mark.parametrize(
    "software",
    [pytest.param(one, id=one.name, marks=[] if one.name in SHORT else [pytest.mark.long]) for one in HISTORIES],
)
def test_it_agrees_over_a_published_history(server: PostgresServer, software: Software) -> None:
    tally = replayed(server, software)
    assert tally.counts.total() >= 5
    assert not tally.counts["fails", Level.SAFE], tally.unlike("fails", Level.UNSAFE)
    assert not tally.counts["lost", Level.SAFE], tally.unlike("lost", Level.CAUTION)
