"""Snapshots, on each major version: restorable with plain pg_restore, whole or not there, never over another one."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.fixtures.postgres import PostgresServer

from norn.adapters import programs
from norn.adapters.postgres.clients import find_client
from norn.adapters.snapshots import archives, dumps, loss
from norn.adapters.snapshots.dumps import DumpSnapshots
from norn.domain.ports import AppDatabase
from norn.domain.snapshot_names import parse_snapshot_name, snapshot_name
from norn.domain.snapshots import Snapshot, SnapshotOrder
from norn.errors import NoRoom, ProgramMissing, SnapshotDamaged, SnapshotFailed, SnapshotMissing

pytestmark = pytest.mark.xdist_group("snapshots")  # one server of each version will do

AT = datetime(2026, 11, 24, 3, 0, 0, 123456, UTC)
SHA = "abc123def4567890"
ROWS = 20_000


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> AppDatabase:
    """A database with an underscore in its name, rows, and an enum."""
    with postgres.connect() as connection:
        connection.execute("CREATE DATABASE shop_db")
    with postgres.connect("shop_db") as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('well', 'ill')")
        connection.execute("CREATE TABLE orders (id bigint PRIMARY KEY, mood mood, note text)")
        connection.execute(f"INSERT INTO orders SELECT n, 'well', md5(n::text) FROM generate_series(1, {ROWS}) AS n")
        version = connection.info.server_version
    url = make_conninfo(postgres.url, dbname="shop_db")
    return AppDatabase("shop", "shop_db", url, url, version)


def take(directory: Path, database: AppDatabase, at: datetime = AT) -> Snapshot:
    order = SnapshotOrder("shop", SHA, "deploy1", "before the migration", at)
    return asyncio.run(DumpSnapshots(directory).take(database, order, lambda _text: None))


def beside(snapshot: Snapshot) -> str:
    return snapshot.name.replace(".dump", ".json")


def test_the_name_says_database_commit_and_time(database: AppDatabase, tmp_path: Path) -> None:
    taken = take(tmp_path / "snapshots", database)
    assert taken.name == "shop_db_abc123def456_20261124T030000123456Z.dump"
    assert (tmp_path / "snapshots" / taken.name).stat().st_size == taken.size_bytes


def test_plain_pg_restore_brings_all_of_it_back(
    database: AppDatabase, postgres: PostgresServer, tmp_path: Path
) -> None:
    taken = take(tmp_path, database)
    with postgres.connect() as connection:
        connection.execute("CREATE DATABASE restored")
    program = find_client("pg_restore", postgres.major)
    target = make_conninfo(postgres.url, dbname="restored")
    subprocess.run([program, "-d", target, tmp_path / taken.name], check=True)
    with postgres.connect("restored") as connection:
        assert connection.execute("SELECT count(*), max(mood)::text FROM orders").fetchone() == (ROWS, "well")
    with postgres.connect() as connection:
        connection.execute("DROP DATABASE restored")


def test_only_the_owner_reads_it(database: AppDatabase, tmp_path: Path) -> None:
    directory = tmp_path / "snapshots"
    taken = take(directory, database)
    for name in (taken.name, beside(taken)):
        assert (directory / name).stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


def test_one_that_is_there_is_never_written_over(database: AppDatabase, tmp_path: Path) -> None:
    taken = take(tmp_path, database)
    (tmp_path / taken.name).write_bytes(b"somebody's")
    with pytest.raises(SnapshotFailed):
        take(tmp_path, database)
    assert (tmp_path / taken.name).read_bytes() == b"somebody's"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([taken.name, beside(taken)])


def test_what_an_interrupted_one_left_is_cleared_away_by_the_next(database: AppDatabase, tmp_path: Path) -> None:
    earlier = tmp_path / "shop_db_abc123def456_20261124T020000000000Z.dump.part"
    others = tmp_path / "shop_abc123def456_20261124T020000000000Z.dump.part"
    for path in (earlier, others):
        path.write_bytes(b"half")
    taken = take(tmp_path, database)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([taken.name, beside(taken), others.name])


def test_a_dump_that_cannot_be_read_to_its_end_is_no_snapshot(
    database: AppDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: Path) -> None:
        if path.suffix == ".part":
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size - 1_000)

    monkeypatch.setattr(dumps, "sync", cut)
    with pytest.raises(SnapshotFailed):
        take(tmp_path, database)
    assert list(tmp_path.iterdir()) == []


async def test_one_that_is_stopped_as_it_gets_its_name_gets_it_before_whoever_tidies_up(
    database: AppDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing, may_go_on, published = threading.Event(), threading.Event(), threading.Event()
    sync = archives.sync

    def on_a_slow_disk(path: Path) -> None:
        if path.name.endswith(".json.part"):
            publishing.set()
            may_go_on.wait()
        sync(path)
        if path == tmp_path:  # which is the last of it
            published.set()

    monkeypatch.setattr(dumps, "sync", on_a_slow_disk)
    snapshots = DumpSnapshots(tmp_path)
    order = SnapshotOrder("shop", SHA, "deploy1", "before the migration", AT)
    taking = asyncio.create_task(snapshots.take(database, order, programs.ignore))
    await asyncio.to_thread(publishing.wait)
    taking.cancel()
    await asyncio.wait({taking}, timeout=0.05)
    still = not taking.done()
    may_go_on.set()
    await asyncio.gather(taking, return_exceptions=True)
    assert (still, taking.cancelled(), published.is_set()) == (True, True, True)
    await snapshots.remove(snapshot_name("shop_db", SHA, AT))
    assert list(tmp_path.iterdir()) == []


def test_the_password_is_in_no_argument(database: AppDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    run = programs.run

    async def watched(argv: Sequence[str], **more: Any) -> programs.Finished:
        seen.extend(argv)
        return await run(argv, **more)

    monkeypatch.setattr(programs, "run", watched)
    take(tmp_path, database)
    password = str(conninfo_to_dict(database.admin_url)["password"])
    assert seen
    assert not any(password in word for word in seen)


def test_those_there_are_come_newest_first_and_other_files_are_left_out(database: AppDatabase, tmp_path: Path) -> None:
    names = [take(tmp_path, database, AT + timedelta(hours=hour)).name for hour in range(2)]
    (tmp_path / "notes.txt").write_text("mine")
    assert asyncio.run(DumpSnapshots(tmp_path).names()) == names[::-1]


def test_a_server_without_a_client_of_its_version_is_refused_saying_what_to_install(tmp_path: Path) -> None:
    database = AppDatabase("shop", "shop_db", "", "", 990001)
    with pytest.raises(ProgramMissing) as refused:
        take(tmp_path, database)
    assert "postgresql-client-99" in refused.value.hint
    assert "looked at" in refused.value.message


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for nothing."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_full_disk_is_said_before_anything_is_written(database: AppDatabase, full_disk: Path) -> None:
    with pytest.raises(NoRoom) as refused:
        take(full_disk, database)
    assert refused.value.facts["neededBytes"] > refused.value.facts["freeBytes"]
    assert list(full_disk.iterdir()) == []


def test_a_disk_that_fills_meanwhile_is_said_and_leaves_nothing_behind(
    database: AppDatabase, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumps, "_SHRINKS_TO", 0.0)
    with pytest.raises(SnapshotFailed) as failed:
        take(full_disk, database)
    assert "space" in f"{failed.value.message} {failed.value.facts.get('output', '')}".lower()
    assert list(full_disk.iterdir()) == []


# ---- what is written down of it ----------------------------------------------------------------------------------


def test_what_it_holds_is_written_down_beside_it(database: AppDatabase, tmp_path: Path) -> None:
    taken = take(tmp_path, database)
    assert asyncio.run(DumpSnapshots(tmp_path).record(taken.name)) == taken
    assert (taken.app, taken.operation_id, taken.reason) == ("shop", "deploy1", "before the migration")
    assert taken.tables["public.orders"].rows == ROWS
    assert taken.sha256 == hashlib.sha256((tmp_path / taken.name).read_bytes()).hexdigest()
    assert taken.major == database.major


def test_rows_that_come_while_it_is_taken_are_neither_in_it_nor_counted(
    database: AppDatabase, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchored = loss.take_anchor

    async def and_then_a_row_comes(connection: Any) -> Any:
        anchor = await anchored(connection)
        with postgres.connect("shop_db") as other:
            other.execute("INSERT INTO orders VALUES (-1, 'well', 'late')")
        return anchor

    monkeypatch.setattr(dumps, "take_anchor", and_then_a_row_comes)
    try:
        taken = take(tmp_path, database)
    finally:
        with postgres.connect("shop_db") as other:
            other.execute("DELETE FROM orders WHERE id = -1")
    restored = subprocess.run(
        [find_client("pg_restore", postgres.major), "--data-only", "--file=-", tmp_path / taken.name],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert taken.tables["public.orders"].rows == ROWS
    assert "late" not in restored.stdout


def test_two_within_one_second_are_two(database: AppDatabase, tmp_path: Path) -> None:
    names = {take(tmp_path, database, AT + timedelta(microseconds=n)).name for n in range(2)}
    assert len(names) == 2


@pytest.mark.parametrize("damage", ["cut short", "a bit flipped", "another's"])
def test_a_damaged_dump_is_noticed(database: AppDatabase, tmp_path: Path, damage: str) -> None:
    taken, other = take(tmp_path, database), take(tmp_path / "other", database)
    path = tmp_path / taken.name
    content = bytearray(path.read_bytes())
    match damage:
        case "cut short":
            del content[-1_000:]
        case "a bit flipped":
            content[len(content) // 2] ^= 1
        case _:
            content = bytearray((tmp_path / "other" / other.name).read_bytes()) + b" "
    path.write_bytes(content)
    with pytest.raises(SnapshotDamaged):
        asyncio.run(DumpSnapshots(tmp_path).check(taken, lambda _text: None))


@pytest.mark.parametrize(
    "name", ["../secret", "nothing.dump", "../shop_db_abc123def456_20261124T030000123456Z.dump", "a\0b", ""]
)
def test_a_name_that_is_none_finds_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(SnapshotMissing):
        asyncio.run(DumpSnapshots(tmp_path / "snapshots").record(name))


def test_one_of_which_nothing_is_written_down_says_so(database: AppDatabase, tmp_path: Path) -> None:
    taken = take(tmp_path, database)
    (tmp_path / beside(taken)).unlink()
    with pytest.raises(SnapshotDamaged):
        asyncio.run(DumpSnapshots(tmp_path).record(taken.name))


def test_removing_it_removes_what_is_beside_it_and_nothing_else(database: AppDatabase, tmp_path: Path) -> None:
    taken, other = take(tmp_path, database), take(tmp_path, database, AT + timedelta(hours=1))
    asyncio.run(DumpSnapshots(tmp_path).remove(taken.name))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, beside(other)])


@pytest.mark.parametrize(
    "name", ["under_score", "Capital", "two words", "da-sh", 'quo"te', "it's", "per%cent/slash", ".hidden"]
)
def test_databases_of_any_name_have_snapshots(
    database: AppDatabase, postgres: PostgresServer, tmp_path: Path, name: str
) -> None:
    with postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        url = make_conninfo(postgres.url, dbname=name)
        taken = take(tmp_path, AppDatabase("shop", name, url, url, database.server_version))
        assert taken.database == name
        assert parse_snapshot_name(taken.name) == (name, SHA[:12], AT)
        assert asyncio.run(DumpSnapshots(tmp_path).names()) == [taken.name]
    finally:
        with postgres.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
