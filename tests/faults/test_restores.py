"""Whatever goes wrong during a restore, the live database is as it was, and nothing is left beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.restores import COPY, FORMER, LIVE, Shop
from tests.fixtures.restores import shop as made

from norn.adapters.snapshots import restores
from norn.domain.snapshots import Snapshot
from norn.errors import NornError

pytestmark = pytest.mark.xdist_group("restore faults")
Damage = Callable[[bytearray], None]


@pytest.fixture
def shop(postgres: PostgresServer, tmp_path: Path) -> Iterator[Shop]:
    with made(postgres, tmp_path / "snapshots") as found:
        yield found


def fails_and_harms_nobody(shop: Shop, attempt: Callable[[], None]) -> None:
    before = shop.state()
    with pytest.raises(NornError):
        attempt()
    assert shop.state() == before
    shop.run(shop.restores.drop(shop.database, COPY))
    assert shop.databases() >= {LIVE}
    assert not shop.databases() & {COPY, FORMER}


def cut(n: int) -> Damage:
    def damage(content: bytearray) -> None:
        del content[n:]

    return damage


def flip(place: float) -> Damage:
    def damage(content: bytearray) -> None:
        content[int(place * (len(content) - 1))] ^= 0x10

    return damage


DAMAGES: dict[str, Damage] = {
    "empty": cut(0),
    "cut after its head": cut(100),
    "cut in the middle": cut(20_000),
    "cut by one byte": cut(-1),
    "a bit flipped at the beginning": flip(0.0),
    "a bit flipped in its list of contents": flip(0.2),
    "a bit flipped in the middle": flip(0.5),
    "a bit flipped near the end": flip(0.95),
    "a bit flipped at the end": flip(1.0),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_dump(shop: Shop, damage: Damage) -> None:
    taken = shop.snapshot()
    path = shop.directory / taken.name
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    fails_and_harms_nobody(shop, lambda: shop.restore(taken))


def test_the_dump_of_another_database(shop: Shop) -> None:
    taken = shop.snapshot()
    shop.execute("DELETE FROM replies")
    (shop.directory / taken.name).rename(shop.directory / "kept")
    (shop.directory / taken.name.replace(".dump", ".json")).unlink()
    shop.snapshot()  # another one, under the same name
    fails_and_harms_nobody(shop, lambda: shop.restore(taken))


def test_a_dump_that_has_gone(shop: Shop) -> None:
    taken = shop.snapshot()
    (shop.directory / taken.name).unlink()
    fails_and_harms_nobody(shop, lambda: shop.restore(taken))


@contextlib.contextmanager
def meanwhile(action: Callable[[], bool]) -> Iterator[list[bool]]:
    """Again and again beside the block until the action says that it has done what it is for; whether it has."""
    over, done = threading.Event(), [False]

    def work() -> None:
        while not over.is_set():
            with contextlib.suppress(psycopg.Error, OSError):
                if action():
                    done[0] = True
                    return
            over.wait(0.005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


LINGERS = f"""
CREATE FUNCTION public.lingers(number integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN IF current_database() = '{COPY}' THEN PERFORM pg_sleep(60); END IF; RETURN number; END $$;
CREATE TABLE public.lingering AS SELECT 1 AS number;
CREATE INDEX ON public.lingering (public.lingers(number));
"""
"""An index that takes a minute to be made in the copy, and there alone: what is to happen meanwhile has the time."""


def restoring_fails_when(shop: Shop, action: Callable[[], bool]) -> None:
    shop.execute(LINGERS)
    taken = shop.snapshot()

    def attempt() -> None:
        with meanwhile(action) as done:
            shop.copy(taken)
        raise AssertionError(f"it was restored all the same; the fault happened: {done[0]}")

    fails_and_harms_nobody(shop, attempt)


def test_pg_restore_is_killed(shop: Shop) -> None:
    port = f"PGPORT={conninfo_to_dict(shop.server.url)['port']}".encode()

    def kill() -> bool:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                argv = (process / "cmdline").read_bytes().split(b"\0")
                mine = port in (process / "environ").read_bytes().split(b"\0")  # other tests restore, too
                if mine and argv[0].endswith(b"/pg_restore"):
                    os.kill(int(process.name), signal.SIGKILL)
                    return True
        return False

    restoring_fails_when(shop, kill)


def end_sessions_of_the_copy(shop: Shop, condition: str) -> Callable[[], bool]:
    def end() -> bool:
        with shop.server.connect() as connection:
            cursor = connection.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{COPY}' AND {condition}"
            )
            return bool(cursor.fetchall())

    return end


def test_a_restoring_session_is_ended(shop: Shop) -> None:
    restoring_fails_when(shop, end_sessions_of_the_copy(shop, "application_name = 'norn-restore'"))


def test_the_copy_is_dropped_by_somebody_else(shop: Shop) -> None:
    def drop() -> bool:
        with shop.server.connect() as connection:
            if connection.execute("SELECT FROM pg_stat_activity WHERE datname = %s", (COPY,)).fetchone() is None:
                return False
            connection.execute(f"DROP DATABASE {COPY} WITH (FORCE)")
            return True

    restoring_fails_when(shop, drop)


def test_the_server_restarts(shop: Shop) -> None:
    def restart() -> bool:
        with shop.server.connect() as connection:
            if connection.execute("SELECT FROM pg_stat_activity WHERE datname = %s", (COPY,)).fetchone() is None:
                return False
        shop.server.stop()
        shop.server.start()
        return True

    restoring_fails_when(shop, restart)


def swapping_fails(shop: Shop, taken: Snapshot) -> None:
    shop.copy(taken)
    fails_and_harms_nobody(shop, shop.swap)


def test_a_prepared_transaction_is_open(shop: Shop) -> None:
    taken = shop.snapshot()
    shop.execute("BEGIN; DELETE FROM replies; PREPARE TRANSACTION 'forgotten'")
    swapping_fails(shop, taken)


async def nobody_ends_them(*_: object) -> None:
    """A colleague who hangs: old sessions stay."""


def test_a_session_that_cannot_be_ended(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restores, "_end_sessions", nobody_ends_them)
    taken = shop.snapshot()
    with shop.server.connect(LIVE):
        swapping_fails(shop, taken)


def test_the_swapping_session_is_ended(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restores, "_end_sessions", nobody_ends_them)

    def end() -> bool:
        with shop.server.connect() as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE%%RENAME%%'"
            return bool(connection.execute(query).fetchall())

    taken = shop.snapshot()
    with shop.server.connect(LIVE), meanwhile(end):
        swapping_fails(shop, taken)


def test_the_copy_has_gone_before_the_swap(shop: Shop) -> None:
    shop.copy(shop.snapshot())
    shop.run(shop.restores.drop(shop.database, COPY))
    fails_and_harms_nobody(shop, shop.swap)


def test_the_name_of_the_former_database_is_taken(shop: Shop) -> None:
    shop.copy(shop.snapshot())
    before = shop.state()
    with shop.server.connect() as connection:
        connection.execute(f"CREATE DATABASE {FORMER}")
    with pytest.raises(NornError):
        shop.swap()
    assert shop.state() == before
