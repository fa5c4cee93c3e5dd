"""Events are read once for all who follow; each gets all of them, in order, wherever it begins, however slow it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from norn.domain.store import Event, Store
from norn.errors import DatabaseUnavailable
from norn.operations import feed as feeds
from norn.operations.events import Changes
from norn.operations.feed import Feed


class Events:
    """A store that holds events, and counts how often it is asked."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.asked = 0
        self.away = False
        self.changes = Changes()

    def happen(self, count: int = 1, *, app: str = "shop") -> None:
        for _ in range(count):
            seq = len(self.events) + 1
            self.events.append(Event(seq, datetime.now(UTC), app, f"{app}-1", "step", {}))
        self.changes.wake()

    async def kept_events(self) -> tuple[int, int]:
        await self._ask()
        return 1, len(self.events)

    async def events_after(
        self, seq: int, *, app: str | None = None, operation: str | None = None, limit: int = 500
    ) -> Sequence[Event]:
        found = [
            event for event in self.events[seq:] if app in (None, event.app) and operation in (None, event.operation_id)
        ][:limit]
        await self._ask()
        return found

    async def _ask(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise DatabaseUnavailable("away")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Events:
    monkeypatch.setattr(feeds, "LEAST_PAUSE_S", 0.0)
    monkeypatch.setattr(feeds, "POLL_S", 0.05)
    return Events()


@pytest.fixture
def feed(store: Events) -> Feed:
    return Feed(cast("Store", store), store.changes, lambda event: f"{event.seq:8}")


async def reading(feed: Feed) -> None:
    """Until it reads for those who follow."""
    async with asyncio.timeout(20):
        while not feed.reads:
            await asyncio.sleep(0)


async def asked_again(store: Events) -> None:
    """Until the store has been asked a few times more."""
    asked = store.asked
    async with asyncio.timeout(20):
        while store.asked < asked + 3:
            await asyncio.sleep(0)


async def take(feed: Feed, count: int, after: int, **wanted: Any) -> list[int]:
    """The numbers of the next so many events."""
    seqs: list[int] = []
    async with asyncio.timeout(20), aclosing(feed.follow(after, **wanted)) as batches:
        async for batch in batches:
            seqs += [one.event.seq for one in batch]
            if len(seqs) >= count:
                break
    return seqs


async def test_everybody_gets_all_of_them_in_order_and_the_database_is_read_once_for_all(
    store: Events, feed: Feed
) -> None:
    followers = [asyncio.create_task(take(feed, 300, 0)) for _ in range(50)]
    await reading(feed)
    asked = store.asked
    for _ in range(30):
        store.happen(10)
        await asyncio.sleep(0)
    assert await asyncio.gather(*followers) == [list(range(1, 301))] * 50
    assert store.asked - asked < 200


async def test_who_comes_back_goes_on_behind_what_it_has_seen(store: Events, feed: Feed) -> None:
    store.happen(500)
    staying = asyncio.create_task(take(feed, 700, 0))
    assert await take(feed, 200, 123) == list(range(124, 324))
    store.happen(200)
    assert (await take(feed, 377, 323))[:377] == list(range(324, 701))
    assert await staying == list(range(1, 701))


async def test_who_knows_of_more_than_was_read_here_gets_nothing_twice(store: Events, feed: Feed) -> None:
    staying = asyncio.create_task(take(feed, 11, 0))
    await reading(feed)
    store.events += [Event(seq, datetime.now(UTC), "shop", None, "step", {}) for seq in range(1, 11)]  # not said yet
    coming = asyncio.create_task(take(feed, 1, 10))
    await asyncio.sleep(0)
    store.happen(1)
    assert (await coming, await staying) == ([11], list(range(1, 12)))


async def test_who_is_slower_than_what_is_kept_reads_the_rest_from_the_database(
    store: Events, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "KEPT_CHARS", 80)  # ten of them
    seqs: list[int] = []
    async with asyncio.timeout(20), aclosing(feed.follow(0)) as batches:
        async for batch in batches:
            seqs += [one.event.seq for one in batch]
            if len(seqs) == 400:
                break
            if len(store.events) < 400:
                store.happen(100)
    assert seqs == list(range(1, 401))


@pytest.mark.parametrize(("wanted", "seqs"), [({"app": "shop"}, [1, 3, 5]), ({"operation": "pay-1"}, [2, 4, 6])])
async def test_of_an_app_or_an_operation_alone(
    store: Events, feed: Feed, wanted: dict[str, str], seqs: list[int]
) -> None:
    staying = asyncio.create_task(take(feed, 6, 0))
    for app in ("shop", "pay", "shop"):
        store.happen(app=app)
    following = asyncio.create_task(take(feed, 3, 0, **wanted))
    await reading(feed)
    for app in ("pay", "shop", "pay"):
        store.happen(app=app)
    assert await following == seqs
    await staying


@pytest.mark.parametrize(
    "wanted", [{"app": "pay"}, {"sees": lambda app: app == "pay"}], ids=["asks for another app", "sees another app"]
)
async def test_pauses_come_to_whom_nothing_concerns_however_much_happens(
    store: Events, feed: Feed, wanted: dict[str, Any]
) -> None:
    ended = asyncio.Event()

    async def busy() -> None:
        while not ended.is_set():
            store.happen()
            await asyncio.sleep(0)

    happening = asyncio.create_task(busy())
    async with asyncio.timeout(20), aclosing(feed.follow(0, **wanted)) as batches:
        assert [list(await anext(batches)) for _ in range(3)] == [[], [], []]
    ended.set()
    await happening


async def test_a_database_that_is_away_delays_them_and_loses_none(store: Events, feed: Feed) -> None:
    store.happen(5)
    following = asyncio.create_task(take(feed, 20, 0))
    await reading(feed)
    store.away = True
    store.happen(10)
    late = asyncio.create_task(take(feed, 20, 0))
    await asked_again(store)
    store.away = False
    store.happen(5)
    assert [await following, await late] == [list(range(1, 21))] * 2


async def test_it_reads_nothing_while_nobody_follows(store: Events, feed: Feed) -> None:
    store.happen(3)
    assert await take(feed, 3, 0) == [1, 2, 3]
    assert not feed.reads
