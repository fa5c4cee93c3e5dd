"""The fixture that replays published migration histories."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.fixtures.histories import HISTORIES, History, StepFailed
from tests.fixtures.postgres import PostgresServer, serving

CONTRIB = next(software for software in HISTORIES if software.name == "Django contrib")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    yield from serving(16)


def _database(server: PostgresServer, name: str, template: str = "template1") -> str:
    with server.connect() as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return make_conninfo(server.url, dbname=name)


def test_a_history_is_replayed_to_its_end_and_goes_on_where_it_stopped(server: PostgresServer) -> None:
    url = _database(server, "whole")
    with History(CONTRIB, url) as history:
        remaining = history.remaining
        first = list(islice(history, 5))
    with History(CONTRIB, url) as history:
        rest = list(history)
        assert history.remaining == 0
        assert history.step() is None
    steps = [str(step) for step in (*first, *rest)]
    assert len(steps) == remaining == len(set(steps)) > 20
    assert steps.index("auth.0001_initial") < steps.index("admin.0001_initial")
    assert sum(step.ddl_statements > 0 for step in (*first, *rest)) > 12
    with server.connect("whole") as connection:
        assert connection.execute("SELECT count(*) FROM django_migrations").fetchone() == (remaining,)


def test_a_step_that_failed_is_tried_again(server: PostgresServer) -> None:
    url = _database(server, "blocked")
    with History(CONTRIB, url) as history, server.connect("blocked") as connection:
        connection.execute("CREATE TABLE django_session ()")
        with pytest.raises(StepFailed, match='"django_session" already exists'):
            list(history)
        connection.execute("DROP TABLE django_session")
        step = history.step()
        assert step is not None
        assert str(step) == "sessions.0001_initial"
        list(history)


def test_between_two_steps_the_database_can_be_a_template(server: PostgresServer) -> None:
    url = _database(server, "original")
    with History(CONTRIB, url) as history:
        history.step()
        _database(server, "copied", template="original")
        assert history.step() is not None


def test_a_history_that_cannot_begin_says_why(server: PostgresServer) -> None:
    with pytest.raises(StepFailed, match='database "missing" does not exist'):
        History(CONTRIB, make_conninfo(server.url, dbname="missing")).__enter__()
