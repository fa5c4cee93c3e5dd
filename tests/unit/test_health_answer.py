"""What anybody may ask: whether the server can work. It costs little however often, and names nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from norn.bootstrap import server as servers
from norn.bootstrap.server import Server
from norn.errors import DatabaseUnavailable


class Parts:
    """A database and a directory of apps, and how often the database was asked."""

    cluster = settings = None

    def __init__(self) -> None:
        self.asked = 0
        self.source = self

    async def now(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        raise DatabaseUnavailable('connection to "db.example.com", port 5432 failed for user "norn"')

    async def apps(self) -> list[Any]:
        return []


class Clock:
    """Whose time passes when the test says so."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(servers, "time", clock)
    return clock


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
def server(parts: Parts) -> Server:
    server = Server(cast("Any", parts))
    server._store = cast("Any", SimpleNamespace(now=parts.now))
    return server


async def test_all_who_ask_within_a_second_share_one_look(server: Server, parts: Parts, clock: Clock) -> None:
    await asyncio.gather(*(server.health() for _ in range(10)))
    clock.now += 0.9
    await server.health()
    assert parts.asked == 1


async def test_it_is_looked_again_after_that_second(server: Server, parts: Parts, clock: Clock) -> None:
    await server.health()
    clock.now += 1.0
    await server.health()
    assert parts.asked == 2


async def test_nothing_of_what_does_not_answer_is_named(server: Server) -> None:
    assert (await server.health())["database"] == {"ok": False, "message": "does not answer"}
