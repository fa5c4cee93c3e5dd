"""The outbox on a real PostgreSQL: what gets in with an operation's end, who may send it, and when it is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.fixtures.postgres import serving

from norn.adapters.postgres import notification_queries
from norn.adapters.postgres.connections import Connections
from norn.adapters.postgres.outbox import PostgresOutbox
from norn.adapters.postgres.schema import ensure_database, migrate
from norn.adapters.postgres.store import PostgresStore
from norn.domain.notifications import Answer, judge
from norn.domain.operations import OperationKind, OperationStatus
from norn.operations.services import new_id

pytestmark = pytest.mark.xdist_group("notifications")

URLS = ["http://a/1", "http://b/2"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    for server in serving(18):
        url = asyncio.run(ensure_database(server.url, "norn"))
        migrate(url)
        yield url


class Database:
    def __init__(self, connections: Connections) -> None:
        self.store, self.outbox = PostgresStore(connections), PostgresOutbox(connections)
        self.connections = connections

    async def sql(self, statement: Any) -> list[dict[str, Any]]:
        async with self.connections.connection() as connection:
            cursor = await connection.execute(statement)
            return await cursor.fetchall() if cursor.description else []

    async def ended(self, kind: OperationKind, status: OperationStatus, *, commit: bool = True, **params: Any) -> str:
        """An operation that has ended so; in a transaction that is not committed where `commit` is False."""
        id_ = new_id()
        async with self.store.accepting(f"app-{id_}") as accepting:
            await accepting.add_operation(id_, kind, params, "ada", "because")
        claim = await self.store.claim("server", 60, [])
        assert claim is not None
        assert claim.operation.id == id_
        try:
            async with self.store.fenced(claim) as fenced:
                await fenced.mark(committed=True)
                await fenced.end(status, {"code": "x", "message": "y", "output": "z"}, None)
                if not commit:
                    raise InterruptedError
        except InterruptedError:
            await self.sql(f"DELETE FROM operations WHERE id = '{id_}'")
        return id_

    async def addressed(self) -> str:
        """A notification with two receivers."""
        id_ = f"msg_{await self.ended(OperationKind.RESTORE, OperationStatus.FAILED)}"
        await self.outbox.address(id_, URLS)
        return id_

    async def ids(self) -> list[str]:
        return [row["id"] for row in await self.sql("SELECT id FROM notifications ORDER BY id")]


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    connections = Connections(url, size=6)
    await connections.open()
    found = Database(connections)
    await found.sql("DELETE FROM notifications")
    yield found
    await connections.close()


async def test_a_notification_is_there_with_the_end_of_its_operation_and_only_with_it(database: Database) -> None:
    await database.ended(OperationKind.ROLLBACK, OperationStatus.SUCCEEDED, commit=False)
    assert await database.ids() == []
    await database.ended(OperationKind.DEPLOY, OperationStatus.CANCELLED)
    assert await database.ids() == []
    id_ = await database.ended(OperationKind.ROLLBACK, OperationStatus.SUCCEEDED, automatic=True)
    (row,) = await database.sql("SELECT event, payload FROM notifications")
    assert (row["event"], row["payload"]["event"]) == ("rollback.automatic", "rollback.automatic")
    assert (row["payload"]["operationId"], row["payload"]["reason"]) == (id_, "because")
    assert row["payload"]["error"] == {"code": "x", "message": "y"}
    (found,) = await database.outbox.unaddressed(10)
    assert (found.id, found.event, found.attempts) == (f"msg_{id_}", "rollback.automatic", 0)


async def test_addressing_twice_sends_once(database: Database) -> None:
    id_ = await database.addressed()
    await database.outbox.address(id_, URLS)
    assert await database.outbox.unaddressed(10) == []
    assert len(await database.outbox.claim(60, 10)) == 2


async def test_servers_that_ask_at_the_same_time_get_different_deliveries_and_do_not_wait(database: Database) -> None:
    for _ in range(3):
        await database.addressed()
    async with database.connections.transaction() as connection:  # one that is in the middle of it
        cursor = await connection.execute(notification_queries.CLAIM, {"claim_s": 60, "limit": 2})
        first = {(row["notification_id"], row["url"]) for row in await cursor.fetchall()}
        async with asyncio.timeout(10):
            others = await database.outbox.claim(60, 10)
    second = {(delivery.notification_id, delivery.url) for delivery in others}
    assert (len(first), len(second), len(first | second)) == (2, 4, 6)
    assert await database.outbox.claim(60, 10) == []


async def test_a_claim_ends_by_itself_and_the_attempt_has_counted(database: Database) -> None:
    await database.addressed()
    assert [delivery.attempt for delivery in await database.outbox.claim(0.05, 10)] == [1, 1]
    async with asyncio.timeout(10):
        while not (again := await database.outbox.claim(60, 10)):
            await asyncio.sleep(0.02)
    assert {delivery.attempt for delivery in again} == {2}
    assert 50 < (await database.outbox.next_due_s() or 0) <= 60


async def test_who_settles_late_changes_nothing_but_that_it_has_arrived(database: Database) -> None:
    await database.addressed()
    late, other = await database.outbox.claim(0, 10)
    current, _ = sorted(await database.outbox.claim(60, 10), key=lambda each: each.url != late.url)
    await database.outbox.settle(late, judge(Answer(410), late.attempt))
    row = f"SELECT next_at, delivered_at, last_error FROM deliveries WHERE url = '{late.url}'"
    assert (await database.sql(row))[0]["next_at"] is not None
    await database.outbox.settle(late, judge(Answer(200), late.attempt))
    await database.outbox.settle(current, judge(Answer(500), current.attempt))
    (found,) = await database.sql(row)
    assert found["delivered_at"] is not None
    assert (found["next_at"], found["last_error"]) == (None, "")
    assert other.url != late.url


async def test_what_has_arrived_is_forgotten_first_and_what_waits_is_never(database: Database) -> None:
    arrived, undelivered, pending, unaddressed = [await database.addressed() for _ in range(4)]
    await database.sql("UPDATE deliveries SET next_at = NULL, delivered_at = now()")
    await database.sql(f"UPDATE deliveries SET delivered_at = NULL WHERE notification_id = '{undelivered}'")
    await database.sql(
        f"UPDATE deliveries SET delivered_at = NULL, next_at = now() WHERE notification_id = '{pending}'"
    )
    await database.sql(f"UPDATE notifications SET next_at = now() WHERE id = '{unaddressed}'")
    for days, left in [
        (6, [arrived, undelivered, pending, unaddressed]),
        (8, [undelivered, pending, unaddressed]),
        (31, [pending, unaddressed]),
    ]:
        await database.sql(f"UPDATE notifications SET at = now() - interval '{days} days'")
        await database.store.tidy()
        assert await database.ids() == sorted(left)
