"""What a restore would lose, on each major version: exact wherever it says a number, and never a silent nothing.

Every case has a schema of its own in one database. All are set up, then comes the snapshot, then all are changed, and
one look at the database (and one at a copy of it, where no transaction of the snapshot means anything) tells of all.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.fixtures.norn import until
from tests.fixtures.postgres import PostgresServer

from norn.adapters.postgres.clients import find_client
from norn.adapters.snapshots import keys, reading
from norn.adapters.snapshots import loss as loss_module
from norn.adapters.snapshots.catalog import table_states
from norn.adapters.snapshots.loss import loss_of, take_anchor
from norn.adapters.snapshots.tables import Table
from norn.domain.loss import Loss, TableLoss
from norn.domain.snapshots import Anchor, TableState
from norn.errors import Unavailable

pytestmark = pytest.mark.xdist_group("loss")  # one server of each version will do

TEN = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 10) AS n"
TEN_WITHOUT_KEY = TEN.replace(" PRIMARY KEY", "")
NOTHING = (0, 0)
ODD = '"50% ""Off"" {} Order"'


@dataclass(frozen=True)
class Case:
    """What is there, what is done to it, and the rows written and deleted in the table `t` (or another one)."""

    name: str
    setup: str
    change: str
    loss: tuple[int | None, int | None]
    why: str = ""
    elsewhere: tuple[int | None, int | None] | None = None
    """What is found in another database than the snapshot's, where that is something else."""
    elsewhere_why: str = ""
    table: str = "t"


ELSEWHERE = "is in another database than at the snapshot, and has no key"
AWAY = "is in another database than at the snapshot, and has other columns"
CASES = [
    Case("nothing", TEN, "", NOTHING),
    Case("insert", TEN, "INSERT INTO t VALUES (11), (12)", (2, 0)),
    Case("update", TEN, "UPDATE t SET v = 'w' WHERE id < 4", (3, 0)),
    Case("update that says what it said before", TEN, "UPDATE t SET v = v WHERE id < 4", (3, 0), elsewhere=NOTHING),
    Case("update to null", TEN, "UPDATE t SET v = NULL WHERE id = 1", (1, 0)),
    Case("null to empty", TEN + "; UPDATE t SET v = NULL", "UPDATE t SET v = '' WHERE id = 1", (1, 0)),
    Case("update of the key", TEN, "UPDATE t SET id = 99 WHERE id = 1", (1, 1)),
    Case("delete", TEN, "DELETE FROM t WHERE id < 5", (0, 4)),
    Case("delete and as many inserts", TEN, "DELETE FROM t WHERE id < 3; INSERT INTO t VALUES (11), (12)", (2, 2)),
    Case("delete and insert of the same key", TEN, "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'x')", (1, 0)),
    Case("update then delete", TEN, "UPDATE t SET v = 'w' WHERE id < 4; DELETE FROM t WHERE id < 3", (1, 2)),
    Case("insert then delete", TEN, "INSERT INTO t VALUES (11); DELETE FROM t WHERE id = 11", NOTHING),
    Case("truncate", TEN, "TRUNCATE t", (0, 10)),
    Case("truncate then refill", TEN, "TRUNCATE t; INSERT INTO t VALUES (1, 'v1'), (2, 'x'), (11, 'v')", (2, 8)),
    Case("vacuum freeze after inserts", TEN, "INSERT INTO t VALUES (11), (12); VACUUM FREEZE t", (2, 0)),
    Case("vacuum full", TEN, "INSERT INTO t VALUES (11); VACUUM FULL t", (1, 0)),
    Case("rewritten by alter", TEN, "ALTER TABLE t SET ACCESS METHOD heap; ALTER TABLE t ALTER id TYPE bigint; "
         "ALTER TABLE t ALTER id TYPE int; INSERT INTO t VALUES (11); DELETE FROM t WHERE id = 1", (1, 1)),
    Case("another column since", TEN, "ALTER TABLE t ADD more int; INSERT INTO t VALUES (11); "
         "DELETE FROM t WHERE id < 3", (1, 2), elsewhere=(None, 2), elsewhere_why=AWAY),
    Case("another key since", TEN, "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (v); UPDATE t SET v = 'w' "
         "WHERE id = 1", (1, None), "has another key", elsewhere=(1, None),
         elsewhere_why=ELSEWHERE.replace("no key", "another key")),
    Case("no key, insert", TEN_WITHOUT_KEY, "INSERT INTO t VALUES (11), (11)", (2, 0)),
    Case("no key, delete", TEN_WITHOUT_KEY, "DELETE FROM t WHERE id < 3", (0, 2)),
    Case("no key, delete of a double", TEN_WITHOUT_KEY + "; INSERT INTO t VALUES (1, 'v1'), (1, 'v1')",
         "DELETE FROM t WHERE ctid = (SELECT max(ctid) FROM t)", (0, 1)),
    Case("no key, update", TEN_WITHOUT_KEY, "UPDATE t SET v = 'w' WHERE id < 3", (2, None), "no primary key",
         elsewhere_why=ELSEWHERE),
    Case("no key, rewritten", TEN_WITHOUT_KEY, "UPDATE t SET v = 'w' WHERE id < 3; VACUUM FULL t", (2, None),
         "was rewritten since, and has no key", elsewhere_why=ELSEWHERE),
    Case("no key, rewritten, unchanged", TEN_WITHOUT_KEY, "VACUUM FULL t", NOTHING),
    Case("no key, other columns", TEN_WITHOUT_KEY, "ALTER TABLE t ADD more float DEFAULT random()", (None, None),
         "was rewritten since, and has no key", elsewhere_why=ELSEWHERE),
    Case("unique index in place of a key", "CREATE TABLE t (id int NOT NULL UNIQUE, v text); "
         "INSERT INTO t VALUES (1), (2)",
         "UPDATE t SET v = 'w' WHERE id = 1; DELETE FROM t WHERE id = 2", (1, 1)),
    Case("unique index that takes nulls is no key", "CREATE TABLE t (id int UNIQUE, v text); "
         "INSERT INTO t VALUES (1), (2)",
         "UPDATE t SET v = 'w' WHERE id = 1", (1, None), "no primary key", elsewhere_why=ELSEWHERE),
    Case("unique index of some rows is no key", "CREATE TABLE t (id int NOT NULL, v text); "
         "CREATE UNIQUE INDEX ON t (id) WHERE id > 0; INSERT INTO t VALUES (1), (2)",
         "UPDATE t SET v = 'w' WHERE id = 1", (1, None), "no primary key", elsewhere_why=ELSEWHERE),
    Case("unique index of an expression is no key", "CREATE TABLE t (id int NOT NULL, v text); "
         "CREATE UNIQUE INDEX ON t (id, abs(id)); INSERT INTO t VALUES (1), (2)",
         "UPDATE t SET v = 'w' WHERE id = 1", (1, None), "no primary key", elsewhere_why=ELSEWHERE),
    Case("covering index", "CREATE TABLE t (id int NOT NULL, v text); CREATE UNIQUE INDEX ON t (id) INCLUDE (v); "
         "INSERT INTO t VALUES (1, 'a'), (2, 'b')", "UPDATE t SET v = 'w' WHERE id = 1", (1, 0)),
    Case("composite key", "CREATE TABLE t (a int, b text, v int, PRIMARY KEY (b, a)); "
         "INSERT INTO t VALUES (1, 'x', 0), (1, 'y', 0), (2, 'x', 0)",
         "DELETE FROM t WHERE (a, b) = (1, 'x'); UPDATE t SET v = 1 WHERE a = 2", (1, 1)),
    Case("composite key with commas", "CREATE TABLE t (a text, b text, PRIMARY KEY (a, b)); "
         "INSERT INTO t VALUES ('x,y', 'z'), ('k', 'l')", "UPDATE t SET a = 'x', b = 'y,z' WHERE a = 'x,y'", (1, 1)),
    Case("key with enum", "CREATE TYPE mood AS ENUM ('well', 'ill', 'dead'); "
         "CREATE TABLE t (m mood PRIMARY KEY, v int); INSERT INTO t VALUES ('well'), ('ill'), ('dead')",
         "DELETE FROM t WHERE m = 'ill'; UPDATE t SET v = 1 WHERE m = 'dead'", (1, 1)),
    Case("text keys with quotes", "CREATE TABLE t (k text PRIMARY KEY, v int); "
         "INSERT INTO t VALUES ('it''s'), ('say \"x\"'), (E'back\\\\slash'), ('Größe'), ('')",
         "DELETE FROM t WHERE k IN ('', 'it''s'); UPDATE t SET v = 1 WHERE k = 'Größe'", (1, 2)),
    Case("names with capitals, quotes and per cent", f'CREATE TABLE {ODD} ("Id %s" int PRIMARY KEY, "V {{}}" int); '
         f"INSERT INTO {ODD} VALUES (1), (2), (3)", f'DELETE FROM {ODD} WHERE "Id %s" = 1; '
         f'UPDATE {ODD} SET "V {{}}" = 1 WHERE "Id %s" = 2', (1, 1), table=ODD),
    Case("column named as the table", "CREATE TABLE t (t int PRIMARY KEY, v int); INSERT INTO t VALUES (1), (2)",
         "DELETE FROM t WHERE t = 1; UPDATE t SET v = 2", (1, 1)),
    Case("every kind of value", "CREATE TABLE t (id int PRIMARY KEY, f float8, at timestamptz, d interval, b bytea, "
         "m money, j jsonb, a text[], r int4range, c regclass); INSERT INTO t SELECT n, 0.1 + n, now(), '1 day', "
         "'\\xff', 2.5, '{\"a\": null}', '{a,NULL}', '[1,2)', 't' FROM generate_series(1, 5) AS n",
         "INSERT INTO t VALUES (11)", (1, 0)),
    Case("a float's last digit", "CREATE TABLE t (id int PRIMARY KEY, f float8); INSERT INTO t VALUES (1, 0.3)",
         "UPDATE t SET f = 0.1::float8 + 0.2::float8", (1, 0)),
    Case("leaf of a partitioned table", "CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); "
         "CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100); INSERT INTO p VALUES (1), (2), (3)",
         "DELETE FROM p WHERE id = 1; UPDATE p SET v = 1 WHERE id = 2", (1, 1)),
    Case("partitioned table itself", "CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); "
         "CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100)", "INSERT INTO p VALUES (1)", NOTHING, table="p"),
    Case("parent of an inherited table", TEN + "; CREATE TABLE child () INHERITS (t)",
         "INSERT INTO child VALUES (1), (2)", NOTHING),
    Case("created since", "", TEN, (10, 0)),
    Case("dropped since", TEN, "DROP TABLE t", (0, 10)),
    Case("dropped and made again", TEN, f"DROP TABLE t; {TEN}; UPDATE t SET v = 'w' WHERE id = 1", (1, 0)),
    Case("generated column", "CREATE TABLE t (id int PRIMARY KEY, v int, w int GENERATED ALWAYS AS (v * 2) STORED); "
         "INSERT INTO t (id, v) VALUES (1, 1), (2, 2), (3, 3)",
         "UPDATE t SET v = 5 WHERE id = 1; DELETE FROM t WHERE id = 2", (1, 1)),
    Case("row security, for its owner", TEN + "; ALTER TABLE t ENABLE ROW LEVEL SECURITY; "
         "CREATE POLICY none ON t USING (false)",
         "DELETE FROM t WHERE id = 1; UPDATE t SET v = 'w' WHERE id = 2", (1, 1)),
    Case("rolled back", TEN, "BEGIN; INSERT INTO t VALUES (11); DELETE FROM t WHERE id = 1; ROLLBACK", NOTHING),
    Case("savepoints", TEN, "BEGIN; SAVEPOINT a; INSERT INTO t VALUES (11); SAVEPOINT b; INSERT INTO t VALUES (12); "
         "RELEASE b; SAVEPOINT c; INSERT INTO t VALUES (13); ROLLBACK TO c; COMMIT", (2, 0)),
    Case("row locks", TEN, "BEGIN; SELECT * FROM t FOR UPDATE; COMMIT; BEGIN; SELECT * FROM t FOR SHARE; COMMIT",
         NOTHING),
    Case("unlogged", TEN.replace("CREATE", "CREATE UNLOGGED"), "INSERT INTO t VALUES (11)", (1, 0)),
    Case("materialised view", TEN + "; CREATE MATERIALIZED VIEW seen AS SELECT * FROM t",
         "REFRESH MATERIALIZED VIEW seen; CREATE MATERIALIZED VIEW more AS SELECT 1", NOTHING, table="seen"),
    Case("no columns", "CREATE TABLE t (); INSERT INTO t DEFAULT VALUES", "INSERT INTO t DEFAULT VALUES", (1, 0)),
    Case("began before the snapshot", TEN, "-- in the fixture", (2, 0)),
    Case("began before the snapshot, in a savepoint", TEN, "-- in the fixture", (2, 1)),
    Case("began before the snapshot, in a savepoint, no key", TEN_WITHOUT_KEY, "-- in the fixture", (2, None),
         "was being written at the snapshot, and has no key", elsewhere_why=ELSEWHERE),
]  # fmt: skip
UNDER_WAY = {  # in a transaction that ends when the snapshot is taken
    "began before the snapshot": "UPDATE {t} SET v = 'w' WHERE id < 3",
    "began before the snapshot, in a savepoint": "SAVEPOINT a; INSERT INTO {t} VALUES (11); UPDATE {t} SET v = 'w' "
    "WHERE id = 1; DELETE FROM {t} WHERE id = 2; RELEASE a",
    "began before the snapshot, in a savepoint, no key": "SAVEPOINT a; INSERT INTO {t} VALUES (11); "
    "UPDATE {t} SET v = 'w' WHERE id = 1; RELEASE a",
}


def schema_of(case: Case) -> str:
    return f"c{CASES.index(case):02}"


def url_of(postgres: PostgresServer, name: str) -> str:
    return make_conninfo(postgres.url, dbname=name)


def recreate(postgres: PostgresServer, name: str, template: str | None = None) -> str:
    with postgres.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        of = sql.SQL("TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
        connection.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), of))
    return url_of(postgres, name)


def script(connection: psycopg.Connection[Any], text: str, schema: str = "public") -> None:
    """Statement by statement (a semicolon and a blank end one), each in a transaction of its own unless it says so."""
    connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
    for statement in text.split("; "):
        if statement and not statement.startswith("--"):
            connection.execute(statement.encode())


def restore(postgres: PostgresServer, name: str, copy: str) -> str:
    """A copy by dump and restore: its OIDs, files and transactions are others."""
    url = recreate(postgres, copy)
    programs = [find_client(program, postgres.major) for program in ("pg_dump", "pg_restore")]
    dump = subprocess.run([programs[0], "-Fc", url_of(postgres, name)], check=True, capture_output=True).stdout
    subprocess.run([programs[1], "-d", url], check=True, input=dump)
    return url


def snapshot(url: str) -> tuple[Anchor, dict[str, TableState]]:
    """As a snapshot does it: the anchor, and all tables with their rows, in one transaction."""

    async def take() -> tuple[Anchor, dict[str, TableState]]:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            return await take_anchor(connection), await table_states(connection)

    return asyncio.run(take())


def anchor_of(url: str) -> Anchor:
    async def take() -> Anchor:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            return await take_anchor(connection)

    return asyncio.run(take())


def look(live: str, copy: str, anchor: Anchor, states: Mapping[str, TableState], **more: Any) -> Loss:
    return asyncio.run(loss_of(live, copy, anchor, states, **more))


@dataclass(frozen=True)
class Found:
    here: dict[str, TableLoss]
    elsewhere: dict[str, TableLoss]

    def __repr__(self) -> str:
        return "Found"


@pytest.fixture(scope="module")
def found(postgres: PostgresServer) -> Found:
    """The loss of all cases in the snapshot's database, and in another one with the same rows."""
    live = recreate(postgres, "cases")
    with postgres.connect("cases") as connection, postgres.connect("cases") as under_way:
        for case in CASES:
            connection.execute(f"CREATE SCHEMA {schema_of(case)}".encode())
            script(connection, case.setup, schema_of(case))
        under_way.execute("BEGIN")
        for case in CASES:
            if case.name in UNDER_WAY:
                script(under_way, UNDER_WAY[case.name].format(t=f"{schema_of(case)}.t"), "public")
        script(connection, "CREATE TABLE later (id int)")  # a transaction that began later, and ended before
        anchor, states = snapshot(live)
        copy = restore(postgres, "cases", "cases_copy")
        under_way.execute("COMMIT")
        for case in CASES:
            script(connection, case.change, schema_of(case))
    swapped = recreate(postgres, "cases_swapped", template="cases")
    return Found(
        {table.table: table for table in look(live, copy, anchor, states).tables},
        {table.table: table for table in look(swapped, copy, anchor, states).tables},
    )


def named(case: Case) -> str:
    return f"{schema_of(case)}.{case.table}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_written_and_deleted_since(found: Found, case: Case) -> None:
    loss = found.here.get(named(case), TableLoss(named(case), 0, 0))
    assert (loss.written, loss.deleted, loss.why) == (*case.loss, case.why)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_differs_in_another_database_than_the_snapshots(found: Found, case: Case) -> None:
    loss = found.elsewhere.get(named(case), TableLoss(named(case), 0, 0))
    assert (loss.written, loss.deleted, loss.why) == (*(case.elsewhere or case.loss), case.elsewhere_why)


# ---- what is the same for every table ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shop:
    """A small database, its copy, and the snapshot that the copy is of."""

    postgres: PostgresServer
    live: str
    copy: str
    anchor: Anchor
    states: dict[str, TableState]

    def look(self, **more: Any) -> Loss:
        return look(self.live, self.copy, self.anchor, self.states, **more)

    def change(self, text: str) -> None:
        with self.postgres.connect("shop") as connection:
            script(connection, text)

    def somebody_waits(self) -> bool:
        """For a lock on one of its tables."""
        waiting = "SELECT FROM pg_stat_activity WHERE datname = 'shop' AND wait_event_type = 'Lock'"
        with self.postgres.connect() as connection:
            return connection.execute(waiting).fetchone() is not None

    def __repr__(self) -> str:
        return "Shop"


@pytest.fixture
def shop(postgres: PostgresServer) -> Shop:
    live = recreate(postgres, "shop")
    with postgres.connect("shop") as connection:
        script(connection, f"{TEN}; CREATE TABLE other AS SELECT * FROM t")
    anchor, states = snapshot(live)
    return Shop(postgres, live, recreate(postgres, "shop_copy", template="shop"), anchor, states)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look waits for locks for as long as a test may need for what it does meanwhile."""
    monkeypatch.setitem(reading._SETTINGS, "lock_timeout", "60s")


def test_where_nothing_happened_the_loss_is_nothing(shop: Shop) -> None:
    assert shop.look().nothing


def test_an_anchor_of_another_server_does_not_count(shop: Shop) -> None:
    anchor = replace(shop.anchor, system_identifier="7")
    shop.change("UPDATE t SET v = v")  # written by a later transaction, and yet the same
    assert look(shop.live, shop.copy, anchor, shop.states).nothing


def test_an_anchor_without_a_server_does_not_count(shop: Shop, reader: str) -> None:
    shop.change(f"REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; GRANT pg_read_all_data TO {reader}")
    live = make_conninfo(shop.live, user=reader, password="reader")
    anchor = anchor_of(live)
    shop.change("UPDATE t SET v = v")
    assert look(live, shop.copy, anchor, shop.states).nothing


def test_an_anchor_that_is_ahead_of_the_database_does_not_count(shop: Shop) -> None:
    anchor = replace(shop.anchor, snapshot="900000000:900000000:")
    shop.change("UPDATE t SET v = 'w' WHERE id = 1")
    assert look(shop.live, shop.copy, anchor, shop.states).written == 1


def test_a_table_that_the_snapshot_does_not_know_is_compared_with_the_copy(shop: Shop) -> None:
    shop.change("UPDATE t SET v = v; INSERT INTO t VALUES (11)")
    assert look(shop.live, shop.copy, shop.anchor, {}).tables == (TableLoss("public.t", 1, 0),)


def test_a_snapshot_with_too_few_rows_is_not_believed(shop: Shop) -> None:
    states = shop.states | {"public.t": replace(shop.states["public.t"], rows=9)}
    assert look(shop.live, shop.copy, shop.anchor, states).nothing


def test_whatever_the_database_sets_both_sides_have_one_text_form(shop: Shop) -> None:
    shop.change(
        "ALTER TABLE t ADD at timestamptz, ADD f float8, ADD r regclass; UPDATE t SET at = now(), f = 1.0 / 3, r = 't'"
    )
    copy = recreate(shop.postgres, "shop_copy", template="shop")
    shop.change(
        "ALTER DATABASE shop SET TimeZone = 'Asia/Tokyo'; ALTER DATABASE shop SET DateStyle = 'German'; "
        "ALTER DATABASE shop SET extra_float_digits = -5; ALTER DATABASE shop_copy SET search_path = pg_catalog"
    )
    assert look(shop.live, copy, shop.anchor, {}).nothing


def test_a_locked_table_is_unknown(shop: Shop) -> None:
    with shop.postgres.connect("shop") as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        loss = shop.look()
    assert loss.tables == (TableLoss("public.t", None, None, "is locked"),)


@pytest.mark.usefixtures("patience")
def test_a_table_that_takes_too_long_is_unknown(shop: Shop) -> None:
    with shop.postgres.connect("shop") as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        loss = shop.look(table_timeout_s=2.0)
    assert loss.tables == (TableLoss("public.t", None, None, "took longer than 2 s"),)


def test_no_time_at_all_makes_every_table_unknown(shop: Shop) -> None:
    assert len(shop.look(table_timeout_s=0.0).unknown) == 2


@pytest.mark.usefixtures("patience")
def test_looking_keeps_no_lock_on_a_table_that_it_is_done_with(shop: Shop) -> None:
    with ThreadPoolExecutor(1) as pool, shop.postgres.connect("shop") as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        looking = pool.submit(shop.look, parallel=1)
        until(shop.somebody_waits, "the look at `t`, after that at `other`")
        shop.change("SET lock_timeout = '20s'; ALTER TABLE other ADD more int")
        assert not looking.done()
        connection.execute("COMMIT")
        looking.result()


@pytest.mark.usefixtures("patience")
def test_a_table_that_is_rewritten_during_the_look_is_unknown(shop: Shop) -> None:
    with ThreadPoolExecutor(1) as pool, shop.postgres.connect("shop") as connection:
        connection.execute("BEGIN")
        connection.execute("ALTER TABLE t ALTER id TYPE bigint")
        looking = pool.submit(shop.look)
        until(shop.somebody_waits, "the look at the table")
        connection.execute("COMMIT")
        loss = looking.result()
    assert loss.tables == (TableLoss("public.t", None, None, "was rewritten while it was looked at"),)


def test_a_role_that_may_not_read_a_table_makes_it_unknown(shop: Shop, reader: str) -> None:
    shop.change(f"GRANT SELECT ON other TO {reader}")
    live = make_conninfo(shop.live, user=reader, password="reader")
    assert look(live, shop.copy, shop.anchor, shop.states).tables == (
        TableLoss("public.t", None, None, "permission denied for table t"),
    )


def test_rows_hidden_by_row_security_are_unknown_and_not_gone(shop: Shop, reader: str) -> None:
    shop.change(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}; ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    live = make_conninfo(shop.live, user=reader, password="reader")
    (loss,) = look(live, shop.copy, shop.anchor, shop.states).tables
    assert loss.unknown
    assert "row-level security" in loss.why


def test_a_role_that_may_not_ask_for_the_server_takes_an_anchor_without_it(shop: Shop, reader: str) -> None:
    shop.change("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    anchor = anchor_of(make_conninfo(shop.live, user=reader, password="reader"))
    assert anchor.system_identifier == ""


@pytest.fixture
def reader(postgres: PostgresServer) -> Iterator[str]:
    """A role that may do nothing yet."""
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    yield "reader"
    with postgres.connect("shop") as connection:
        connection.execute("DROP OWNED BY reader")
        connection.execute("DROP ROLE reader")


def test_every_role_may_ask_for_the_server(shop: Shop, reader: str) -> None:
    anchor = anchor_of(make_conninfo(shop.live, user=reader, password="reader"))
    assert anchor.system_identifier == shop.anchor.system_identifier != ""


def test_an_anchor_survives_json(shop: Shop) -> None:
    at = shop.anchor.at.replace(microsecond=0)
    anchor = replace(shop.anchor, at=at)
    assert Anchor.from_json(anchor.to_json()) == anchor


def test_a_database_that_is_not_there_is_said(shop: Shop) -> None:
    with pytest.raises(Unavailable, match="nowhere"):
        look(make_conninfo(shop.live, dbname="nowhere"), shop.copy, shop.anchor, shop.states)


@pytest.mark.usefixtures("patience")
def test_a_session_that_is_ended_is_said_and_not_taken_for_an_unknown_table(shop: Shop) -> None:
    with ThreadPoolExecutor(1) as pool, shop.postgres.connect("shop") as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        looking = pool.submit(shop.look)
        until(shop.somebody_waits, "the look at the table")
        shop.change("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with pytest.raises(Unavailable):
            looking.result()


@pytest.mark.parametrize("xmin", [1, 2, 4_294_967_000], ids=["from the beginning", "frozen", "of the numbers before"])
def test_a_row_from_before_the_present_numbers_is_old(shop: Shop, xmin: int) -> None:
    with shop.postgres.connect("shop") as connection:
        connection.execute(f"CREATE VIEW rows AS SELECT '{xmin}'::xid AS xmin".encode())  # no table could have it
        table = Table("public", "rows", "public.rows", 0, 0, 0, {}, (), ())
        counts = loss_module.Since.parse("0:1:").counts(table)
        assert connection.execute(counts).fetchone() == (1, 0, 0)


def test_a_key_that_is_not_unique_is_said(shop: Shop) -> None:
    """As where an index is damaged."""
    shop.change("ALTER TABLE other ALTER id SET NOT NULL; CREATE INDEX broken ON other (id)")
    copy = recreate(shop.postgres, "shop_copy", template="shop")
    shop.change("INSERT INTO other VALUES (1, 'again')")
    for name in ("shop", "shop_copy"):
        with shop.postgres.connect(name) as connection:
            connection.execute("UPDATE pg_index SET indisunique = true WHERE indexrelid = 'broken'::regclass")
    assert look(shop.live, copy, shop.anchor, {}).tables == (
        TableLoss("public.other", None, None, "its key is not unique"),
    )


def test_one_connection_for_each_side_will_do(shop: Shop) -> None:
    shop.change("INSERT INTO t VALUES (11); INSERT INTO other VALUES (11)")
    assert shop.look(parallel=1).written == 2


def test_many_rows_are_compared_in_batches(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_BATCH_BYTES", 8_000)
    shop.change("INSERT INTO t SELECT n, 'v' || n FROM generate_series(11, 50000) AS n")
    copy = recreate(shop.postgres, "shop_copy", template="shop")
    anchor, states = snapshot(shop.live)
    shop.change("DELETE FROM t WHERE id % 7 = 0; UPDATE t SET v = 'w' WHERE id % 7 = 1; INSERT INTO t VALUES (-1)")
    expected = (TableLoss("public.t", 7143 + 1, 7142),)
    assert look(shop.live, copy, anchor, states).tables == expected
    assert look(shop.live, copy, anchor, {}).tables == expected


# ---- any sequence of changes -------------------------------------------------------------------------------------

CHANGES = st.lists(
    st.tuples(st.sampled_from(["insert", "update", "delete"]), st.integers(0, 7), st.integers(0, 2)), max_size=12
)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def modelled(postgres: PostgresServer) -> Iterator[tuple[psycopg.Connection[Any], psycopg.Connection[Any]]]:
    for name in ("model", "model_copy"):
        recreate(postgres, name)
    with postgres.connect("model") as live, postgres.connect("model_copy") as copy:
        for connection in (live, copy):
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
        yield live, copy


@dataclass
class Played:
    """What a model says became of the rows 0 to 4 (each with the value 0)."""

    rows: dict[int, int]
    touched: set[int]

    @property
    def deleted(self) -> int:
        return len(set(range(5)) - self.rows.keys())

    @property
    def written(self) -> int:
        return len(self.touched & self.rows.keys())

    @property
    def changed(self) -> int:
        return sum(1 for key, value in self.rows.items() if key not in range(5) or value != 0)


def play(connection: psycopg.Connection[Any], changes: list[tuple[str, int, int]]) -> Played:
    played = Played(dict.fromkeys(range(5), 0), set())
    for what, key, value in changes:
        if what == "delete":
            connection.execute("DELETE FROM t WHERE id = %s", (key,))
            played.rows.pop(key, None)
            continue
        if what == "insert":
            connection.execute("INSERT INTO t VALUES (%s, %s) ON CONFLICT DO NOTHING", (key, value))
        else:
            connection.execute("UPDATE t SET v = %s WHERE id = %s", (value, key))
        if (key in played.rows) == (what == "update"):
            played.rows[key] = value
            played.touched.add(key)
    return played


def begin_anew(*connections: psycopg.Connection[Any]) -> None:
    for connection in connections:
        connection.execute("TRUNCATE t")
        connection.execute("INSERT INTO t SELECT n, 0 FROM generate_series(0, 4) AS n")


@FEW
@given(changes=CHANGES)
def test_any_changes_are_counted_by_their_transactions(
    postgres: PostgresServer,
    modelled: tuple[psycopg.Connection[Any], psycopg.Connection[Any]],
    changes: list[tuple[str, int, int]],
) -> None:
    begin_anew(*modelled)
    live, copy = url_of(postgres, "model"), url_of(postgres, "model_copy")
    anchor, states = snapshot(live)
    played = play(modelled[0], changes)
    loss = look(live, copy, anchor, states)
    assert (loss.written, loss.deleted, loss.unknown) == (played.written, played.deleted, ())


@FEW
@given(changes=CHANGES)
def test_any_changes_are_found_by_comparing_with_the_copy(
    postgres: PostgresServer,
    modelled: tuple[psycopg.Connection[Any], psycopg.Connection[Any]],
    changes: list[tuple[str, int, int]],
) -> None:
    begin_anew(*modelled)
    live, copy = url_of(postgres, "model"), url_of(postgres, "model_copy")
    anchor, _states = snapshot(live)
    played = play(modelled[0], changes)
    loss = look(live, copy, anchor, {})
    assert (loss.written, loss.deleted, loss.unknown) == (played.changed, played.deleted, ())
