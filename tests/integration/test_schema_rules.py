"""Migrations that break old code in ways that are easily overlooked: each on a real server, with what fails there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.shop import Shop, serving_shops

from norn.domain.schema import changes
from norn.domain.verdict import Level

pytestmark = pytest.mark.xdist_group("schema_rules")
SAFE, CAUTION, UNSAFE = Level.SAFE, Level.CAUTION, Level.UNSAFE


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    yield from serving_shops(16)


@pytest.fixture(scope="module")
def shop(server: PostgresServer) -> Iterator[Shop]:
    with Shop(server) as shop:
        yield shop


@dataclass(frozen=True)
class Case:
    name: str
    old: str
    migration: str
    fails: str
    """What old code runs: it passes before the migration and fails after it; empty where nothing is known to fail."""
    expected: tuple[tuple[str, Level], ...]
    """The findings that are not safe."""


_ADDRESSES = (
    "CREATE TABLE addresses (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY, note text); "
    "INSERT INTO addresses VALUES (1), (2); INSERT INTO orders VALUES (1, 'x')"
)
_PARTITIONED = (
    "CREATE TABLE parcels (id int, address int REFERENCES addresses) PARTITION BY RANGE (id); "
    "CREATE TABLE parcels_1 PARTITION OF parcels FOR VALUES FROM (0) TO (9)"
)
_USERS = "CREATE TABLE users (id serial PRIMARY KEY, name text, email text); INSERT INTO users (name) VALUES ('a')"
_INSERT = "INSERT INTO users (name) VALUES ('b')"
_BOTH = "CREATE TABLE t (id int PRIMARY KEY, a int, b boolean, state text)"

KEYS = [
    Case("a new column refers to an old table", _ADDRESSES,
         "ALTER TABLE orders ADD billing int REFERENCES addresses; UPDATE orders SET billing = 2",
         "DELETE FROM addresses WHERE id = 2", (("referenced", CAUTION),)),
    Case("a new column is deleted with what it refers to", _ADDRESSES,
         "ALTER TABLE orders ADD billing int REFERENCES addresses ON DELETE CASCADE; UPDATE orders SET billing = 2",
         "", (("foreign_key_changed", CAUTION),)),
    Case("a new column refers to a new table", _ADDRESSES,
         "CREATE TABLE cities (id int PRIMARY KEY); ALTER TABLE orders ADD city int REFERENCES cities", "", ()),
    Case("a new partitioned table refers to an old one", _ADDRESSES,
         f"{_PARTITIONED}; INSERT INTO parcels VALUES (1, 2)",
         "DELETE FROM addresses WHERE id = 2", (("referenced", CAUTION),)),
    Case("a new partitioned table without rows", _ADDRESSES, _PARTITIONED, "", ()),
    Case("an old column that was made anew refers to a table", _ADDRESSES,
         "ALTER TABLE orders DROP note; ALTER TABLE orders ADD note int REFERENCES addresses",
         "INSERT INTO orders (id, note) VALUES (2, '7')",
         (("type_changed", UNSAFE), ("contents_lost", CAUTION), ("foreign_key_added", UNSAFE))),
    Case("an old column that was made anew has to be unique", _USERS,
         "ALTER TABLE users DROP email; ALTER TABLE users ADD email text UNIQUE",
         "INSERT INTO users (email) VALUES ('x'), ('x')", (("contents_lost", CAUTION), ("unique_added", UNSAFE))),
    Case("an old column that was made anew has a check", _USERS,
         "ALTER TABLE users DROP email; ALTER TABLE users ADD email text CHECK (email <> '')",
         "INSERT INTO users (email) VALUES ('')", (("contents_lost", CAUTION), ("check_added", UNSAFE))),
    Case("an old column that was made anew was unique", f"{_USERS}; CREATE UNIQUE INDEX ON users (email)",
         "ALTER TABLE users DROP email; ALTER TABLE users ADD email text",
         "INSERT INTO users (email) VALUES ('x') ON CONFLICT (email) DO NOTHING",
         (("contents_lost", CAUTION), ("unique_dropped", UNSAFE))),
    Case("a required column was renamed, and another one has its name",
         "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL)",
         "ALTER TABLE users RENAME name TO full_name; ALTER TABLE users ADD name text NOT NULL DEFAULT ''",
         _INSERT, (("contents_lost", CAUTION), ("required_column_added", UNSAFE))),
    Case("a constraint became an index of the same name",
         f"{_USERS}; ALTER TABLE users ADD CONSTRAINT e UNIQUE (email)",
         "ALTER TABLE users DROP CONSTRAINT e; CREATE UNIQUE INDEX e ON users (email)",
         "INSERT INTO users (email) VALUES ('x') ON CONFLICT ON CONSTRAINT e DO NOTHING",
         (("constraint_renamed", CAUTION),)),
]  # fmt: skip

CHECKS = [
    Case("one of two new columns has to be there", _USERS,
         "ALTER TABLE users ADD org int, ADD team int; "
         "ALTER TABLE users ADD CHECK (num_nonnulls(org, team) = 1) NOT VALID", _INSERT, (("check_added", UNSAFE),)),
    Case("either of two new columns has to be there", _USERS,
         "ALTER TABLE users ADD org int, ADD team int; "
         "ALTER TABLE users ADD CHECK (org IS NOT NULL OR team IS NOT NULL) NOT VALID",
         _INSERT, (("check_added", UNSAFE),)),
    Case("a check that takes null for something", _USERS,
         "ALTER TABLE users ADD tax int; ALTER TABLE users ADD CHECK (coalesce(tax, 0) > 0) NOT VALID",
         _INSERT, (("check_added", CAUTION),)),
    Case("a check that distinguishes null", _USERS,
         "ALTER TABLE users ADD tax int; "
         "ALTER TABLE users ADD CHECK (CASE WHEN tax > 0 THEN true ELSE false END) NOT VALID",
         _INSERT, (("check_added", CAUTION),)),
    Case("checks that null passes", _USERS,
         "ALTER TABLE users ADD tax numeric CHECK (tax > 0 AND tax < 100), "
         "ADD tone varchar(9) CHECK (tone IN ('a', 'b')), ADD k int[] CHECK (k[1] > 0), "
         "ADD code text CHECK (char_length(code) <= 255), ADD at timestamptz CHECK (at > '2020-01-01'), "
         "ADD more int CHECK (more IS NULL OR more BETWEEN 2 AND 5), ADD link text CHECK (link LIKE 'http%')", "", ()),
    Case("a check on an old column and a new one that is null", _USERS,
         "ALTER TABLE users ADD nick text; ALTER TABLE users ADD CHECK (nick <> name)", "", ()),
    Case("parentheses elsewhere", f"{_BOTH}; ALTER TABLE t ADD CONSTRAINT c CHECK ((a > 0 AND b) OR state = 'x')",
         "ALTER TABLE t DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (a > 0 AND (b OR state = 'x'))",
         "INSERT INTO t (id, a, b, state) VALUES (1, -1, false, 'x')", (("check_added", UNSAFE),)),
    Case("a blank within quotes", f"{_BOTH}; ALTER TABLE t ADD CONSTRAINT c CHECK (state <> 'in progress')",
         "ALTER TABLE t DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (state <> 'inprogress')",
         "INSERT INTO t (id, state) VALUES (1, 'inprogress')", (("check_added", UNSAFE),)),
    Case("the opposite of a looser one", f"{_BOTH}; ALTER TABLE t ADD CONSTRAINT c CHECK (NOT a >= 5)",
         "ALTER TABLE t DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (NOT a >= 3)",
         "INSERT INTO t (id, a) VALUES (1, 4)", (("check_added", UNSAFE),)),
    Case("the same check for a longer type",
         "CREATE TABLE t (a varchar(9) CONSTRAINT c CHECK (a IN ('x', 'in progress')), b int CHECK (b > -5))",
         "ALTER TABLE t ALTER a TYPE text", "", ()),
]  # fmt: skip

_OVERVIEW = f"{_USERS}; CREATE VIEW overview AS SELECT id, name FROM users"
_FULL_NAME = (
    "ALTER TABLE users RENAME TO people; ALTER TABLE people ADD full_name text; ALTER TABLE people DROP name; "
    "CREATE VIEW users AS SELECT id, email, full_name AS name FROM people"
)
RELATIONS = [
    Case("a view became a table", _OVERVIEW, "DROP VIEW overview; CREATE TABLE overview AS SELECT id, name FROM users",
         "", (("view_changed", CAUTION),)),
    Case("a materialized view became a table", f"{_USERS}; CREATE MATERIALIZED VIEW overview AS SELECT name FROM users",
         "DROP MATERIALIZED VIEW overview; CREATE TABLE overview AS SELECT name FROM users",
         "REFRESH MATERIALIZED VIEW overview", (("view_changed", CAUTION),)),
    Case("a column behind a view is another one", _USERS, _FULL_NAME, "", (("contents_lost", CAUTION),)),
    Case("a column behind a view is another one, and was unique",
         f"{_USERS}; CREATE UNIQUE INDEX ON users (name)", _FULL_NAME,
         "INSERT INTO users (name) VALUES ('b') ON CONFLICT (name) DO NOTHING",
         (("contents_lost", CAUTION), ("unique_dropped", UNSAFE))),
    Case("a required, unique column behind a view is another one",
         "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL UNIQUE)",
         "ALTER TABLE users RENAME TO people; ALTER TABLE people ADD full_name text NOT NULL UNIQUE; "
         "ALTER TABLE people DROP name; CREATE VIEW users AS SELECT id, full_name AS name FROM people",
         "", (("contents_lost", CAUTION), ("constraint_renamed", CAUTION))),
    Case("two columns of a view have each other's names",
         f"{_USERS}; CREATE VIEW overview AS SELECT name AS x, email AS y FROM users",
         "DROP VIEW overview; CREATE VIEW overview AS SELECT name AS y, email AS x FROM users", "",
         (("view_changed", CAUTION),)),
    Case("a column that a view shows was renamed", _OVERVIEW, "ALTER TABLE users RENAME name TO title",
         "SELECT name FROM users", (("column_renamed", UNSAFE),)),
    Case("a table is no part of another any more",
         "CREATE TABLE animals (name text); CREATE TABLE birds () INHERITS (animals)",
         "ALTER TABLE birds NO INHERIT animals", "", (("contents_lost", CAUTION),)),
    Case("a partitioned table is behind a view",
         "CREATE TABLE events (id int) PARTITION BY RANGE (id); "
         "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (9)",
         "ALTER TABLE events RENAME TO happenings; CREATE VIEW events AS SELECT * FROM happenings", "", ()),
]  # fmt: skip

OTHERS = [
    Case("the sequence of a column has another name", _USERS, "ALTER SEQUENCE users_id_seq RENAME TO people_id_seq",
         "SELECT nextval('users_id_seq')", (("sequence_dropped", CAUTION),)),
    Case("the sequence of a column was dropped", _USERS,
         "ALTER TABLE users ALTER id DROP DEFAULT; DROP SEQUENCE users_id_seq",
         "SELECT nextval('users_id_seq')", (("default_dropped", UNSAFE), ("sequence_dropped", CAUTION))),
    Case("the sequence of a column went with it", _USERS, "ALTER TABLE users DROP id", "SELECT id FROM users",
         (("column_dropped", UNSAFE),)),
    Case("a sequence in other steps", "CREATE SEQUENCE tickets INCREMENT 50", "ALTER SEQUENCE tickets INCREMENT 1",
         "", (("sequence_changed", CAUTION),)),
    Case("a sequence that begins again", "CREATE SEQUENCE tickets", "ALTER SEQUENCE tickets CYCLE",
         "", (("sequence_changed", CAUTION),)),
    Case("a sequence with more room", "CREATE SEQUENCE tickets AS integer", "ALTER SEQUENCE tickets AS bigint",
         "", ()),
    Case("a default where null had been", f"{_USERS}; ALTER TABLE users ADD deleted_at timestamptz",
         "ALTER TABLE users ALTER deleted_at SET DEFAULT now()", "", (("default_changed", CAUTION),)),
    Case("a default where null was never", "CREATE TABLE t (a int NOT NULL)", "ALTER TABLE t ALTER a SET DEFAULT 1",
         "", ()),
    Case("a function that makes a call ambiguous", "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a'",
         "CREATE FUNCTION f(a int, b int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT a'",
         "SELECT f(1)", (("function_changed", CAUTION),)),
    Case("a function of the same name with more arguments",
         "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a'",
         "CREATE FUNCTION f(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT a'", "", ()),
    Case("the right to empty a table", _USERS, "REVOKE TRUNCATE ON users FROM CURRENT_USER", "TRUNCATE users",
         (("privilege_revoked", CAUTION),)),
    Case("the right to one column", f"{_USERS}; REVOKE ALL ON users FROM CURRENT_USER; "
         "GRANT SELECT (name, email) ON users TO CURRENT_USER", "REVOKE SELECT (name) ON users FROM CURRENT_USER",
         "SELECT name FROM users", (("privilege_revoked", UNSAFE),)),
    Case("the right to one column, and then to all", f"{_USERS}; REVOKE ALL ON users FROM CURRENT_USER; "
         "GRANT SELECT (name) ON users TO CURRENT_USER",
         "REVOKE SELECT (name) ON users FROM CURRENT_USER; GRANT SELECT ON users TO CURRENT_USER", "", ()),
]  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in (*KEYS, *CHECKS, *RELATIONS, *OTHERS)])
def test_a_change_that_is_easily_overlooked(shop: Shop, case: Case) -> None:
    shop.empty()
    shop.run([case.old])
    assert not error(shop, case.fails), "it does not even run before"
    before = shop.schema()
    shop.run([case.migration])
    assert bool(error(shop, case.fails)) is bool(case.fails)
    found = {(change.code, change.level) for change in changes(before, shop.schema()) if change.level is not SAFE}
    assert found == set(case.expected)


def error(shop: Shop, statement: str) -> str:
    if not statement:
        return ""
    try:
        with shop.connection.transaction(force_rollback=True):
            shop.connection.execute(statement)
    except psycopg.Error as error:
        return str(error)
    return ""
