"""Restores beside the live database and the swap, on each major version: nothing lost, and the live one untouched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.restores import COPY, FORMER, LIVE, READER, Shop
from tests.fixtures.restores import shop as made

from norn.domain.catalog import compare
from norn.domain.ports import Moment
from norn.errors import RestoreFailed

pytestmark = pytest.mark.xdist_group("restores")


@pytest.fixture
def shop(postgres: PostgresServer, tmp_path: Path) -> Iterator[Shop]:
    with made(postgres, tmp_path / "snapshots") as found:
        yield found


def test_what_comes_back_is_what_there_was_catalog_to_catalog(shop: Shop) -> None:
    before, rows = shop.catalog(), shop.rows()
    shop.restore(shop.snapshot())
    assert compare(before, shop.catalog()).summary() == ""
    assert shop.rows() == rows


def test_large_objects_come_back(shop: Shop) -> None:
    before = shop.execute("SELECT oid, lo_get(oid) FROM pg_largeobject_metadata ORDER BY oid")
    shop.restore(shop.snapshot())
    assert shop.execute("SELECT oid, lo_get(oid) FROM pg_largeobject_metadata ORDER BY oid") == before


def test_what_the_database_has_of_its_own_is_taken_over(shop: Shop) -> None:
    before = shop.properties()
    shop.restore(shop.snapshot())
    assert shop.properties() == before


def test_what_has_been_revoked_since_the_snapshot_stays_revoked(shop: Shop) -> None:
    taken = shop.snapshot()
    quoted = f'"{LIVE.replace(chr(34), chr(34) * 2)}"'
    reader = f'"{READER.replace(chr(34), chr(34) * 2)}"'
    shop.execute(f"REVOKE CONNECT ON DATABASE {quoted} FROM {reader}")
    shop.execute(f"ALTER DATABASE {quoted} SET work_mem = '9MB'")
    before = shop.properties()
    shop.restore(taken)
    assert shop.properties() == before


def test_rows_written_since_are_gone_and_the_former_database_has_them(shop: Shop) -> None:
    taken = shop.snapshot()
    shop.execute("DELETE FROM replies")
    shop.restore(taken)
    assert shop.rows()["public.replies"] == taken.tables["public.replies"].rows
    assert shop.rows(FORMER)["public.replies"] == 0


def test_swapping_back_is_the_undo(shop: Shop) -> None:
    taken = shop.snapshot()
    shop.execute("DELETE FROM replies")
    before = shop.state()
    shop.restore(taken)
    shop.swap(FORMER, COPY)
    assert shop.state() == before


def test_a_swap_that_has_happened_is_not_done_again(shop: Shop) -> None:
    shop.restore(shop.snapshot())
    after = shop.state()
    shop.swap()
    assert shop.state() == after


def test_what_would_be_lost_is_counted(shop: Shop) -> None:
    taken = shop.snapshot()
    shop.execute("UPDATE notes SET title = 'other' WHERE id = (SELECT min(id) FROM notes)")
    shop.execute("DELETE FROM replies")
    shop.copy(taken)
    loss = {table.table: table for table in shop.run(shop.restores.loss(shop.database, COPY, taken)).tables}
    assert loss["public.notes"].written == 1
    assert loss["public.replies"].deleted == taken.tables["public.replies"].rows
    assert set(loss) == {"public.notes", "public.replies"}


def test_after_a_restore_what_an_undo_would_lose_is_counted_from_the_swap(shop: Shop) -> None:
    shop.copy(shop.snapshot())
    moment = shop.run(shop.restores.moment(shop.database, COPY))
    shop.swap()
    assert shop.run(shop.restores.loss_since(shop.database, moment)).nothing
    shop.execute("UPDATE notes SET title = 'other' WHERE id = (SELECT min(id) FROM notes)")
    shop.execute("DELETE FROM replies")
    loss = {table.table: table for table in shop.run(shop.restores.loss_since(shop.database, moment)).tables}
    assert loss["public.notes"].written == 1
    assert loss["public.replies"].deleted == moment.tables["public.replies"].rows


def test_what_follows_from_tables_is_no_table_of_a_snapshots_own(shop: Shop) -> None:
    taken = shop.snapshot()
    assert {"public.per_status", "public.never_filled"} < set(taken.tables)
    assert set(taken.tables) - set(taken.own_tables) == {"public.per_status", "public.never_filled"}


def test_what_is_not_counted_in_time_is_said_to_be_unknown(shop: Shop) -> None:
    taken = shop.snapshot()
    loss = shop.run(shop.restores.loss_since(shop.database, Moment(taken.anchor, taken.tables), budget_s=0))
    assert {"public.notes", "public.replies"} < {table.table for table in loss.tables}
    assert {table.text().partition(": ")[2] for table in loss.tables} == {"unknown (not counted within 0 s)"}


def test_the_restored_database_has_statistics(shop: Shop) -> None:
    shop.restore(shop.snapshot())
    query = "SELECT count(*) > 0 FROM pg_stats WHERE schemaname = 'public' AND tablename = 'notes'"
    assert shop.execute(query) == [(True,)]


def test_a_copy_that_an_interrupted_attempt_began_is_made_anew(shop: Shop) -> None:
    taken = shop.snapshot()
    with shop.server.connect() as connection:
        connection.execute(f"CREATE DATABASE {COPY}")
    with shop.server.connect(COPY) as connection:
        connection.execute("CREATE TABLE half_done ()")
    shop.copy(taken)
    assert compare(taken.catalog, shop.catalog(COPY)).summary() == ""


def test_nobody_but_norn_gets_into_the_copy_before_it_is_live(shop: Shop) -> None:
    shop.copy(shop.snapshot())
    url = make_conninfo(shop.server.url, dbname=COPY)
    with psycopg.connect(url, autocommit=True) as connection:
        query = "SELECT has_database_privilege(%s, current_database(), 'CONNECT')"
        assert connection.execute(query, (READER,)).fetchone() == (False,)


def test_clients_at_work_are_ended_and_find_the_restored_database(shop: Shop) -> None:
    taken = shop.snapshot()
    shop.copy(taken)
    stop, served, failed = threading.Event(), [0] * 5, [0] * 5

    def work(number: int) -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(shop.database.url, autocommit=True, connect_timeout=5) as connection:
                    while not stop.is_set():
                        connection.execute("SELECT count(*) FROM public.notes")
                        served[number] += 1
            except psycopg.OperationalError:
                failed[number] += 1

    clients = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for client in clients:
        client.start()
    try:
        while not all(served):
            stop.wait(0.01)
        shop.swap()
        after = list(served)
        while any(now <= then for now, then in zip(served, after, strict=True)):
            stop.wait(0.01)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert all(failed), "each of them was in the live database, and had to come again"


# ---- what is in the way ------------------------------------------------------------------------------------------


def test_an_open_prepared_transaction_is_named_and_keeps_the_swap_from_happening(shop: Shop) -> None:
    shop.copy(shop.snapshot())
    shop.execute("BEGIN; DELETE FROM replies; PREPARE TRANSACTION 'forgotten'")
    before = shop.properties()
    assert "forgotten" in " ".join(shop.run(shop.restores.obstacles(shop.database)))
    with pytest.raises(RestoreFailed):
        shop.swap()
    assert shop.properties() == before
    assert FORMER not in shop.databases()


def test_with_nothing_in_the_way_there_are_no_obstacles(shop: Shop) -> None:
    assert shop.run(shop.restores.obstacles(shop.database)) == []


def test_the_live_database_is_never_dropped(shop: Shop) -> None:
    with pytest.raises(ValueError, match="live"):
        shop.run(shop.restores.drop(shop.database, LIVE))


def test_dropping_what_is_not_there_does_nothing(shop: Shop) -> None:
    before = shop.databases()
    shop.run(shop.restores.drop(shop.database, COPY))
    assert shop.databases() == before


def test_room_on_a_server_of_this_machine_is_known(shop: Shop) -> None:
    assert (shop.run(shop.restores.free_bytes(shop.database)) or 0) > 0
