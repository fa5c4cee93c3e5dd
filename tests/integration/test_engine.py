"""The engine on a real PostgreSQL: claims, leases, the fence, cancelling, taking over, and the order of events."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg.pq import PipelineStatus
from tests.fixtures.postgres import PostgresServer, serving

from norn.adapters.postgres.connections import Connections
from norn.adapters.postgres.schema import ensure_database, migrate
from norn.adapters.postgres.store import PostgresStore
from norn.domain.audit import Asked
from norn.domain.claims import Claim
from norn.domain.operations import Operation, OperationKind, OperationStatus, StepStatus
from norn.domain.ports import Health
from norn.domain.store import AppState, Changed
from norn.errors import Busy, DatabaseUnavailable, IdempotencyKeyReused, LeaseLost, NotPossible, StepFailed
from norn.operations import execution
from norn.operations.cancel import request_cancel
from norn.operations.engine import Engine
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.services import Caller, Services, new_id, once, take_alone

pytestmark = pytest.mark.xdist_group("engine")  # one server of each version will do

KIND = OperationKind.RESTART
ASKED = Asked(KIND.value, "shop")
SHORT_LEASE_S = 0.2
TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Norn's own database on a server of its own."""
    for server in serving(18):
        yield prepared(server)


def prepared(server: PostgresServer) -> str:
    url = asyncio.run(ensure_database(server.url, "norn"))
    migrate(url)
    return url


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    connections = Connections(url, size=6)
    await connections.open()
    yield PostgresStore(connections)
    async with connections.connection() as connection:  # nothing of one test is claimed in the next
        await connection.execute(
            "UPDATE operations SET status = 'cancelled', finished_at = now(), lease_until = NULL "
            "WHERE status IN ('queued', 'running')"
        )
    await connections.close()


@pytest.fixture
def app() -> str:
    """An app of the test's own."""
    return f"app-{new_id()[-10:]}"


def services_of(store: PostgresStore) -> Services:
    unused = cast("Any", None)
    return Services(store, unused, unused, unused, unused, unused, unused, unused, unused, unused, unused, Path())


async def take(store: PostgresStore, app: str) -> str:
    """Accept an operation, whatever else the app does."""
    id_ = new_id()
    async with store.accepting(app) as transaction:
        await transaction.add_operation(id_, KIND, {}, "ada", "")
    return id_


async def claim(store: PostgresStore, server: str, id_: str, lease_s: float = 60.0) -> Claim:
    """Claim until it is that operation (the tests share a database)."""
    while True:
        found = await store.claim(server, lease_s, [])
        if found is not None and found.operation.id == id_:
            return found
        await asyncio.sleep(0.02)


@asynccontextmanager
async def working(
    store: PostgresStore, *steps: Step, server: str = "", whole: bool = False, **more: Any
) -> AsyncIterator[Engine]:
    """A server that works on operations, as long as the block lasts."""
    engine = Engine(store, lambda _: Procedure(steps, whole=whole), server or new_id(), **more)

    async def listen() -> None:
        async for payload in store.notifications():
            kind, _, operation_id = payload.partition(":")
            if kind == "cancel":
                engine.cancel(operation_id)
            else:
                engine.wake()

    await engine.start()
    listening = asyncio.create_task(listen())
    try:
        yield engine
    finally:
        await engine.stop()
        listening.cancel()


async def ended(store: PostgresStore, id_: str) -> Operation:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            operation = await store.operation(id_)
            assert operation is not None
            if operation.status.ended:
                return operation
            await asyncio.sleep(0.01)


class Recorder:
    """Steps that note what they do, and wait where they are told to."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    def step(self, name: str, *, waits: bool = False, fails: bool = False, undo: bool = True) -> Step:
        async def run(run: Run) -> None:
            self.notes.append(name)
            self.begun.set()
            if waits:
                await self.go_on.wait()
            if fails:
                raise StepFailed(f"{name} failed")

        async def undo_it(_run: Run) -> None:
            self.notes.append(f"undo {name}")

        return Step(name, run, undo=undo_it if undo else None)


# ---- claims ------------------------------------------------------------------------------------------------------


async def test_two_operations_of_an_app_never_run_at_once(store: PostgresStore, app: str) -> None:
    first, second = await take(store, app), await take(store, app)
    await claim(store, "a", first)
    assert await store.claim("b", 60.0, []) is None
    async with store.accepting(app) as transaction:
        assert [(o.id, o.status.value) for o in await transaction.active()] == [(second, "queued"), (first, "running")]


async def test_the_database_itself_refuses_a_second_running_one(store: PostgresStore, app: str, url: str) -> None:
    first, second = await take(store, app), await take(store, app)
    await claim(store, "a", first)
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("UPDATE operations SET status = 'running', lease_until = now() WHERE id = %s", (second,))


async def test_two_servers_that_claim_at_once_get_one_each(store: PostgresStore) -> None:
    ids = {await take(store, f"{new_id()[-12:]}") for _ in range(8)}
    claims = await asyncio.gather(*(store.claim(f"s{n}", 60.0, []) for n in range(12)))
    got = [found.operation.id for found in claims if found is not None and found.operation.id in ids]
    assert len(got) == len(set(got)), "nobody got one that another had"


async def test_a_request_for_a_busy_app_is_refused_naming_what_is_in_the_way(store: PostgresStore, app: str) -> None:
    first = await take(store, app)
    with pytest.raises(Busy) as refused:
        await take_alone(services_of(store), app, KIND, Caller("bob"), "")
    assert refused.value.facts["operationId"] == first


# ---- the fence ---------------------------------------------------------------------------------------------------


async def test_a_server_that_lost_its_lease_cannot_write(store: PostgresStore, app: str) -> None:
    id_ = await take(store, app)
    old = await claim(store, "paused", id_, lease_s=SHORT_LEASE_S)
    new = await claim(store, "successor", id_)
    assert new.fence > old.fence
    with pytest.raises(LeaseLost):
        async with store.fenced(old) as transaction:
            await transaction.begin_step(0, "write over")
    operation = await store.operation(id_)
    assert operation is not None
    assert list(operation.steps) == []


async def test_the_fence_of_a_later_operation_of_an_app_is_higher_than_every_earlier_one(
    store: PostgresStore, app: str
) -> None:
    first = await claim(store, "one", await take(store, app), lease_s=SHORT_LEASE_S)
    again = await claim(store, "two", first.operation.id)
    async with store.fenced(again) as transaction:
        await transaction.end(OperationStatus.SUCCEEDED, None, None)
    later = await claim(store, "one", await take(store, app))
    assert first.fence < again.fence < later.fence


async def test_a_clock_that_was_ahead_once_makes_no_fence_lower_than_one_before_it(
    store: PostgresStore, app: str
) -> None:
    first = await claim(store, "one", await take(store, app))
    ahead = first.fence + 10**15
    async with store._connections.connection() as connection:
        await connection.execute("UPDATE operations SET fence = %s, lease_until = now() WHERE app = %s", (ahead, app))
    assert (await claim(store, "two", first.operation.id)).fence == ahead + 1


async def test_fences_go_on_above_those_that_a_lost_database_has_given_out(store: PostgresStore, app: str) -> None:
    before = time.time_ns() // 1000
    taken = await claim(store, "one", await take(store, app))
    assert taken.fence >= before


async def test_a_heartbeat_tells_a_server_what_it_has_lost(store: PostgresStore, app: str) -> None:
    id_ = await take(store, app)
    old = await claim(store, "paused", id_, lease_s=SHORT_LEASE_S)
    await claim(store, "successor", id_)
    assert (await store.beat("paused", {id_: old.fence}, 60.0)).held == frozenset()


@asynccontextmanager
async def connected(store: PostgresStore, server: str) -> AsyncIterator[None]:
    """A server that is known and lives, but beats no more."""
    await store.register(server)
    holding = asyncio.create_task(store.hold(server))
    async with asyncio.timeout(TIMEOUT_S):
        while not await holds(store, server):
            await asyncio.sleep(0.02)
    yield
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


async def holds(store: PostgresStore, server: str) -> bool:
    rows = await store._all("SELECT holds FROM servers WHERE id = %(id)s", id=server)
    return bool(rows[0]["holds"])


async def test_a_server_whose_connection_has_gone_is_dead_long_before_its_lease_ends(
    store: PostgresStore, app: str
) -> None:
    id_ = await take(store, app)
    server = new_id()
    async with connected(store, server):
        await claim(store, server, id_, lease_s=600.0)
    async with asyncio.timeout(TIMEOUT_S):
        taken = await claim(store, "successor", id_, lease_s=SHORT_LEASE_S)
    assert taken.operation.claims == 2


async def test_a_server_that_is_merely_late_keeps_what_it_has_for_as_long_as_its_connection_lasts(
    store: PostgresStore, app: str
) -> None:
    id_ = await take(store, app)
    server = new_id()
    async with connected(store, server):
        await claim(store, server, id_, lease_s=600.0)
        while next(found for found in await store.servers() if found.id == server).silent_s < 1.8:
            await asyncio.sleep(0.05)
        assert await store.claim("successor", SHORT_LEASE_S, []) is None


async def test_what_needs_a_place_is_claimed_there_alone(store: PostgresStore, url: str, app: str) -> None:
    connections = Connections(url, size=2)
    await connections.open()
    here = PostgresStore(connections, "here")
    id_ = await take(here, app)
    assert await store.claim("elsewhere", 60.0, []) is None
    assert (await claim(here, "at home", id_)).operation.id == id_
    await connections.close()


async def test_a_heartbeat_keeps_a_lease(store: PostgresStore, app: str) -> None:
    id_ = await take(store, app)
    kept = await claim(store, "a", id_, lease_s=SHORT_LEASE_S)
    assert (await store.beat("a", {id_: kept.fence}, 60.0)).held == {id_}
    assert await store.claim("b", 60.0, []) is None


async def test_what_nobody_takes_over_has_a_stale_lease(store: PostgresStore, app: str, url: str) -> None:
    id_ = await take(store, app)
    await claim(store, "dead", id_)
    assert id_ not in [stale.operation_id for stale in await store.stale_leases()]
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE operations SET lease_until = now() - interval '1 minute' WHERE id = %s", (id_,))
    (stale,) = [stale for stale in await store.stale_leases() if stale.operation_id == id_]
    assert (stale.app, stale.owner, stale.overdue_s >= 60) == (app, "dead", True)


async def test_what_was_said_of_its_health_is_kept_for_a_day(store: PostgresStore, app: str, url: str) -> None:
    for message in ("old", "of today"):
        await store.note_health(app, Health(wanted=1, ready=1, restarts=0, message=message))
    with psycopg.connect(url) as connection:
        aged = "UPDATE health_checks SET at = at - interval '25 hours' WHERE app = %s AND message = 'old'"
        connection.execute(aged, (app,))
    await store.tidy()
    checks = await store.health_checks(app, 30 * 3600.0, 10)
    assert [check.health.message for check in checks] == ["of today"]


# ---- steps -------------------------------------------------------------------------------------------------------


async def test_steps_run_in_order_and_are_kept(store: PostgresStore, app: str) -> None:
    recorder = Recorder()
    async with working(store, recorder.step("one"), recorder.step("two")):
        operation = await ended(store, await take(store, app))
    assert recorder.notes == ["one", "two"]
    assert [(step.step, step.status) for step in operation.steps] == [
        ("one", StepStatus.DONE), ("two", StepStatus.DONE),
    ]  # fmt: skip


async def test_a_failed_step_has_those_before_it_undone_backwards(store: PostgresStore, app: str) -> None:
    recorder = Recorder()
    steps = (recorder.step("one"), recorder.step("two"), recorder.step("three", fails=True), recorder.step("four"))
    async with working(store, *steps):
        operation = await ended(store, await take(store, app))
    assert recorder.notes == ["one", "two", "three", "undo three", "undo two", "undo one"]
    assert operation.status is OperationStatus.FAILED
    assert (operation.error or {})["message"] == "three failed"


async def test_what_is_committed_is_not_undone(store: PostgresStore, app: str) -> None:
    recorder = Recorder()

    async def commit(run: Run) -> None:
        async with run.transaction() as transaction:
            await transaction.mark(committed=True)

    async with working(store, recorder.step("one"), Step("commit", commit), recorder.step("three", fails=True)):
        operation = await ended(store, await take(store, app))
    assert (recorder.notes, operation.status) == (["one", "three"], OperationStatus.FAILED)


async def test_a_defect_in_a_step_ends_the_operation_and_says_so(store: PostgresStore, app: str) -> None:
    async def broken(_run: Run) -> None:
        raise ZeroDivisionError("by nought")

    async with working(store, Step("broken", broken)):
        operation = await ended(store, await take(store, app))
    assert operation.status is OperationStatus.FAILED
    assert "A defect in Norn: ZeroDivisionError" in (operation.error or {})["message"]


async def test_an_undo_that_fails_stops_no_other_and_is_told_beside_the_error(store: PostgresStore, app: str) -> None:
    recorder = Recorder()

    async def cannot(_run: Run) -> None:
        raise StepFailed("it is stuck")

    sticky = Step("sticky", recorder.step("sticky").run, undo=cannot)
    async with working(store, recorder.step("one"), sticky, recorder.step("three", fails=True)):
        operation = await ended(store, await take(store, app))
    error = operation.error or {}
    assert recorder.notes[-1] == "undo one"
    assert (error["message"], error["undoErrors"][0]["message"]) == ("three failed", "it is stuck")


async def test_an_undo_that_has_to_be_whole_is_tried_again_before_those_before_it(
    store: PostgresStore, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "UNDO_PAUSE_S", 0.01)
    recorder, tries = Recorder(), [0]

    async def at_last(_run: Run) -> None:
        tries[0] += 1
        if tries[0] < 3:
            raise StepFailed("not yet")
        recorder.notes.append("undo sticky")

    sticky = Step("sticky", recorder.step("sticky").run, undo=at_last)
    async with working(store, recorder.step("one"), sticky, recorder.step("three", fails=True), whole=True):
        operation = await ended(store, await take(store, app))
    assert recorder.notes[-3:] == ["undo three", "undo sticky", "undo one"]
    assert "undoErrors" not in (operation.error or {})


async def test_an_undo_that_has_to_be_whole_leaves_the_rest_where_it_cannot_be(
    store: PostgresStore, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "UNDO_PATIENCE_S", 0.0)
    recorder = Recorder()

    async def cannot(_run: Run) -> None:
        raise StepFailed("it is stuck")

    sticky = Step("sticky", recorder.step("sticky").run, undo=cannot)
    async with working(store, recorder.step("one"), sticky, recorder.step("three", fails=True), whole=True):
        operation = await ended(store, await take(store, app))
    assert recorder.notes[-1] == "undo three"
    assert (operation.error or {})["undoErrors"][0]["message"] == "it is stuck"


async def test_what_a_run_holds_is_let_go_when_it_ends_however_it_ends(store: PostgresStore, app: str) -> None:
    gone: list[str] = []

    async def hold(run: Run) -> None:
        async def let_go() -> None:
            gone.append(run.id)

        run.on_leave(let_go)
        raise StepFailed("no further")

    async with working(store, Step("hold", hold)):
        id_ = await take(store, app)
        await ended(store, id_)
        await asyncio.wait_for(until(lambda: gone == [id_]), TIMEOUT_S)


# ---- cancelling --------------------------------------------------------------------------------------------------


async def test_a_cancelled_operation_stops_at_once_and_is_undone(store: PostgresStore, app: str) -> None:
    recorder = Recorder()
    async with working(store, recorder.step("one"), recorder.step("two", waits=True)):
        id_ = await take(store, app)
        await asyncio.wait_for(until(lambda: "two" in recorder.notes), TIMEOUT_S)
        await request_cancel(services_of(store), id_, "not now", Caller("bob"))
        operation = await ended(store, id_)
    assert operation.status is OperationStatus.CANCELLED
    assert recorder.notes == ["one", "two", "undo two", "undo one"]
    assert (operation.error or {})["message"] == "Cancelled by bob: not now."


async def test_one_that_waits_is_cancelled_without_having_begun(store: PostgresStore, app: str) -> None:
    recorder = Recorder()
    id_ = await take(store, app)
    await request_cancel(services_of(store), id_, "", Caller("bob"))
    async with working(store, recorder.step("one")):
        operation = await ended(store, id_)
    assert (operation.status, recorder.notes) == (OperationStatus.CANCELLED, [])


async def test_one_that_has_ended_cannot_be_cancelled(store: PostgresStore, app: str) -> None:
    async with working(store, Recorder().step("one")):
        id_ = await take(store, app)
        await ended(store, id_)
    with pytest.raises(NotPossible, match="ended"):
        await request_cancel(services_of(store), id_, "", Caller("bob"))


async def until(look: Callable[[], bool]) -> None:
    while not look():
        await asyncio.sleep(0.01)


async def test_an_engine_that_is_stopped_as_it_is_woken_stops(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()

    async def nothing(*_: object) -> None:
        looked.set()

    monkeypatch.setattr(store, "claim", nothing)
    engine = Engine(store, lambda _: Procedure(()), new_id())
    await engine.start()
    await looked.wait()
    await asyncio.sleep(0)  # it waits for the next wake-up now
    engine.wake()
    await asyncio.wait_for(engine.stop(), TIMEOUT_S)


async def test_a_transaction_that_is_cancelled_leaves_no_connection_in_pipeline_mode(url: str) -> None:
    """What is done in such a one afterwards is answered, and never committed."""
    connections = Connections(url, size=2)
    await connections.open()

    async def write() -> None:
        async with connections.transaction() as connection:
            cursor = await connection.execute("SELECT 1")
            await cursor.fetchone()
            await connection.execute("SELECT pg_notify('nobody', '')")

    moments = random.Random(1)
    try:
        for _ in range(300):
            writing = asyncio.create_task(write())
            await asyncio.sleep(moments.uniform(0, 0.003))
            writing.cancel()
            await asyncio.wait({writing})
            async with connections.connection() as one, connections.connection() as other:
                modes = {connection.pgconn.pipeline_status for connection in (one, other)}
            assert modes == {PipelineStatus.OFF}
    finally:
        await connections.close()


async def test_statements_that_a_newer_norn_has_outdated_are_prepared_anew(url: str) -> None:
    connections = Connections(url, size=3)
    await connections.open()
    try:
        await connections.do("CREATE TABLE grows (id integer)")
        async with connections.connection(), connections.connection(), connections.connection():
            pass  # all three are there
        for _ in range(24):  # in turns; a statement is prepared when a connection has had it some times
            await connections.all("SELECT * FROM grows")
        await connections.do("ALTER TABLE grows ADD COLUMN more text")
        with pytest.raises(DatabaseUnavailable, match="changed the schema"):
            await connections.all("SELECT * FROM grows")
        for _ in range(6):
            assert await connections.all("SELECT * FROM grows") == []
    finally:
        await connections.close()


# ---- taking over -------------------------------------------------------------------------------------------------


async def test_a_stopped_servers_operation_goes_on_elsewhere_with_the_step_under_way(
    store: PostgresStore, app: str
) -> None:
    recorder = Recorder()
    steps = (recorder.step("one"), recorder.step("two", waits=True), recorder.step("three"))
    async with working(store, *steps, server="first"):
        id_ = await take(store, app)
        await asyncio.wait_for(until(lambda: "two" in recorder.notes), TIMEOUT_S)
    recorder.go_on.set()
    async with working(store, *steps, server="second"):
        operation = await ended(store, id_)
    assert recorder.notes == ["one", "two", "two", "three"]
    assert operation.status is OperationStatus.SUCCEEDED
    assert operation.claims == 1, "a server that was stopped in good order is not held against the operation"


async def test_a_failure_noted_before_a_crash_is_undone_never_run_again(store: PostgresStore, app: str) -> None:
    recorder = Recorder()
    id_ = await take(store, app)
    crashed = await claim(store, "crashed", id_, lease_s=SHORT_LEASE_S)
    async with store.fenced(crashed) as transaction:
        await transaction.begin_step(0, "one")
        await transaction.end_step(0, StepStatus.DONE, "")
        await transaction.mark(undoing={"code": "step_failed", "message": "before the crash"})
    async with working(store, recorder.step("one"), recorder.step("two")):
        operation = await ended(store, id_)
    assert recorder.notes == ["undo one"]
    assert (operation.status, (operation.error or {})["message"]) == (OperationStatus.FAILED, "before the crash")


async def test_one_that_takes_down_every_server_is_given_up(
    store: PostgresStore, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("norn.operations.execution.MAX_CLAIMS", 2)
    recorder = Recorder()
    id_ = await take(store, app)
    for server in ("a", "b"):
        await claim(store, server, id_, lease_s=SHORT_LEASE_S)
    async with working(store, recorder.step("one")):
        operation = await ended(store, id_)
    assert (operation.error or {})["code"] == "abandoned"
    assert recorder.notes == []


async def test_the_next_operation_of_the_app_begins_when_the_first_has_ended(store: PostgresStore, app: str) -> None:
    recorder = Recorder()
    first, second = await take(store, app), await take(store, app)
    async with working(store, recorder.step("one")):
        operations = [await ended(store, first), await ended(store, second)]
    assert operations[0].finished_at is not None
    assert operations[1].started_at is not None
    assert operations[0].finished_at <= operations[1].started_at


# ---- requests that come twice ------------------------------------------------------------------------------------


async def test_the_same_key_and_body_answer_with_the_same_operation(store: PostgresStore, app: str) -> None:
    services, caller = services_of(store), Caller("ada", new_id(), "hash")
    first, second = [
        await once(services, caller, ASKED, lambda: take_alone(services, app, KIND, caller, "")) for _ in range(2)
    ]
    assert first == second


async def test_the_same_key_with_another_body_is_refused(store: PostgresStore, app: str) -> None:
    services, key = services_of(store), new_id()
    one, other = Caller("ada", key, "one"), Caller("ada", key, "other")
    await once(services, one, ASKED, lambda: take_alone(services, app, KIND, one, ""))
    with pytest.raises(IdempotencyKeyReused):
        await once(services, other, ASKED, lambda: take_alone(services, app, KIND, other, ""))


async def test_the_same_request_sent_at_once_is_taken_once(store: PostgresStore, app: str) -> None:
    services, caller = services_of(store), Caller("ada", new_id(), "hash")
    ids = await asyncio.gather(
        *(once(services, caller, ASKED, lambda: take_alone(services, app, KIND, caller, "")) for _ in range(5))
    )
    assert len(set(ids)) == 1


async def test_what_has_ended_is_not_cancelled_by_what_pre_empts_it(store: PostgresStore, app: str) -> None:
    id_ = await take(store, app)
    async with store.accepting(app) as transaction:
        assert await transaction.cancel(id_, "ada", "goes back", preempted_by=new_id())
        assert not await transaction.cancel(id_, "ben", "goes back", preempted_by=new_id())


# ---- what a request was decided on --------------------------------------------------------------------------------


async def take_as_seen(store: PostgresStore, app: str, seen: AppState, key: str = "") -> str:
    """Accept an operation that was decided on when the app stood like that."""
    id_ = new_id()
    async with store.accepting(app, seen=seen) as transaction:
        await transaction.add_operation(id_, KIND, {}, "ada", "")
        if key:
            await transaction.remember(key, "hash", id_)
    return id_


async def test_a_request_is_taken_where_all_is_as_it_was_seen(store: PostgresStore, app: str) -> None:
    await take(store, app)
    id_ = await take_as_seen(store, app, await store.app_state(app))
    assert id_ in [operation.id for operation in (await store.app_state(app)).active]


async def test_a_request_is_not_taken_where_something_else_is_under_way_by_now(store: PostgresStore, app: str) -> None:
    seen = await store.app_state(app)
    other = await take(store, app)
    with pytest.raises(Changed):
        await take_as_seen(store, app, seen)
    assert [operation.id for operation in (await store.app_state(app)).active] == [other]


async def test_a_request_is_not_taken_where_what_is_under_way_has_ended(store: PostgresStore, app: str) -> None:
    id_ = await take(store, app)
    seen = await store.app_state(app)
    async with working(store):
        await ended(store, id_)
    with pytest.raises(Changed):
        await take_as_seen(store, app, seen)


async def test_a_request_is_not_taken_where_what_is_under_way_has_passed_the_point_of_no_return(
    store: PostgresStore, app: str
) -> None:
    id_ = await take(store, app)
    claimed = await claim(store, "one", id_)
    seen = await store.app_state(app)
    async with store.fenced(claimed) as transaction:
        await transaction.mark(committed=True)
    with pytest.raises(Changed):
        await take_as_seen(store, app, seen)


async def test_a_request_is_not_taken_where_something_else_is_live_by_now(store: PostgresStore, app: str) -> None:
    id_ = await take(store, app)
    claimed = await claim(store, "one", id_)
    async with store.accepting(app) as accepting:
        await accepting.add_deployment(
            id_, kind="deploy", status="deploying", image_tag=f"{app}:1", commit_sha="", requested_by="ada"
        )
    seen = await store.app_state(app)
    async with store.fenced(claimed) as transaction:
        await transaction.make_live()
    with pytest.raises(Changed):
        await take_as_seen(store, app, seen)


async def test_a_request_whose_key_was_used_meanwhile_is_not_taken(store: PostgresStore, app: str) -> None:
    seen, key = await store.app_state(app), new_id()
    await take_as_seen(store, f"{app}-2", await store.app_state(f"{app}-2"), key)
    with pytest.raises(Changed):
        await take_as_seen(store, app, seen, key)
    assert (await store.app_state(app)).active == []


# ---- the audit ---------------------------------------------------------------------------------------------------


async def test_what_is_not_committed_is_not_in_the_audit_and_what_is_always_is(store: PostgresStore, app: str) -> None:
    with suppress(InterruptedError):
        async with store.accepting(app) as transaction:
            await transaction.add_operation(new_id(), KIND, {}, "ada", "")
            raise InterruptedError
    id_ = await take(store, app)
    async with working(store):
        await ended(store, id_)
    kept = await store.audit.entries([app], None, 10)
    assert [(found.entry.action, found.entry.subject) for found in kept] == [
        (f"{KIND.value}.end", id_),
        (f"{KIND.value}.request", id_),
    ]


# ---- events ------------------------------------------------------------------------------------------------------


async def test_who_has_seen_an_event_has_seen_all_before_it_whichever_transaction_began_first(
    store: PostgresStore,
) -> None:
    """A number handed out at the beginning would be skipped by a reader who looks before the slower one commits."""
    _, begin = await store.kept_events()
    seen: list[int] = []
    stop = asyncio.Event()

    async def read() -> None:
        after = begin
        while not stop.is_set() or after < (await store.kept_events())[1]:
            for event in await store.events_after(after):
                seen.append(event.seq)
                after = event.seq
            await asyncio.sleep(0)

    async def write(number: int) -> None:
        for _ in range(5):
            async with store.accepting(f"w{number}-{new_id()[-8:]}") as transaction:
                await asyncio.sleep(0.002 * (number % 3))
                await transaction.add_operation(new_id(), KIND, {}, "ada", "")
                await asyncio.sleep(0.002 * ((number + 1) % 3))

    reader = asyncio.create_task(read())
    await asyncio.gather(*(write(number) for number in range(4)))
    stop.set()
    await asyncio.wait_for(reader, TIMEOUT_S)
    there = [event.seq for event in await store.events_after(begin)]
    assert seen == there
    assert len(there) == 20


async def test_what_is_not_committed_is_no_event(store: PostgresStore, app: str) -> None:
    _, begin = await store.kept_events()

    async def take_and_fail() -> None:
        async with store.accepting(app) as transaction:
            await transaction.add_operation(new_id(), KIND, {}, "ada", "")
            raise StepFailed("on second thoughts")

    with pytest.raises(StepFailed):
        await take_and_fail()
    assert await store.events_after(begin, app=app) == []
