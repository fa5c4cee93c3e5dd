"""What an app's database looks like, and what that means for code that was there before (the protocol `Schemas`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from norn.adapters.postgres.sessions import Session, session
from norn.adapters.snapshots.catalog import read_catalog
from norn.adapters.snapshots.contents import table_contents
from norn.adapters.snapshots.ledgers import read_ledgers
from norn.adapters.snapshots.loss import take_anchor
from norn.adapters.snapshots.statements import failing_statements, seen_statements
from norn.adapters.snapshots.written import rows_written
from norn.domain.ports import AppDatabase
from norn.domain.schema import Access, Schema
from norn.domain.snapshots import Anchor
from norn.domain.surroundings import DatabaseState
from norn.domain.written import Written
from norn.errors import NotPossible

_CONTENTS_S = 2.0
"""For reading all tables: what does not get its turn in it is not known."""
_NOT_LONG = "SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '20s'"
"""Whoever migrates or rewrites a table does not have to wait for this, nor the other way round."""
_ROLES = sql.SQL("""
SELECT pg_catalog.quote_ident(r.rolname), r.rolname = {role}, r.rolsuper, r.rolbypassrls
  FROM pg_catalog.pg_roles AS r
 WHERE CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles AS o WHERE o.rolname = {role} AND o.rolsuper)
            THEN r.rolname = {role} ELSE pg_catalog.pg_has_role({role}, r.oid, 'USAGE') END
""")
_COUNTED_SINCE = sql.SQL("""
SELECT coalesce(stats_reset, '-infinity') > '-infinity', stats_reset
  FROM pg_catalog.pg_stat_database WHERE datname = pg_catalog.current_database()
""")
_FILES = sql.SQL("""
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_relation_filenode(c.oid)::int8
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND NOT pg_catalog.starts_with(n.nspname::text, 'pg_')
""")


class PostgresSchemas:
    """Looks, and leaves nothing behind; Norn's own looking does not count as use of a table where it may say so."""

    async def state(self, database: AppDatabase) -> DatabaseState:
        """The present, to be kept. Raises Unavailable, NotPossible."""
        state, _ = await self._look(database, None)
        return replace(state, contents=await table_contents(database.admin_url, _CONTENTS_S))

    async def look(self, database: AppDatabase, statements: Sequence[str]) -> tuple[DatabaseState, dict[str, str]]:
        """The present, and which of the statements would fail on it, with why. Raises Unavailable, NotPossible."""
        return await self._look(database, statements)

    async def written(
        self, database: AppDatabase, before: Anchor, after: Anchor | None, budget_s: float
    ) -> Sequence[Written] | None:
        """See `rows_written`. Raises Unavailable."""
        return await rows_written(database.admin_url, before, after, budget_s=budget_s)

    async def _look(
        self, database: AppDatabase, statements: Sequence[str] | None
    ) -> tuple[DatabaseState, dict[str, str]]:
        role = str(conninfo_to_dict(database.url).get("user") or "")
        async with session(database.admin_url) as connection:
            try:
                await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                await connection.set_read_only(True)
                async with connection.transaction():
                    await connection.execute(_NOT_LONG)
                    schema = await read_schema(connection, role)
                    anchor = await take_anchor(connection)
                    ledgers = await read_ledgers(connection)
                    files = dict(await (await connection.execute(_FILES)).fetchall())
                    seen, failing = statements, {}
                    if statements is None:
                        seen = await seen_statements(connection, role)
                    if seen:
                        failing = await failing_statements(connection, role, seen)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
                why = error.diag.message_primary
                raise NotPossible(f"{database.name} is busy, or a part of it is locked: {why}.") from error
            except psycopg.errors.OperationalError:
                raise
            except psycopg.Error as error:
                raise NotPossible(
                    f"The schema of {database.name} cannot be read: {error.diag.message_primary or error}."
                ) from error
        known = None if seen is None else tuple(statement for statement in seen if statement not in failing)
        return DatabaseState(schema, ledgers, anchor, files, known, tuple(failing)), failing


async def read_schema(connection: Session, role: str) -> Schema:
    """The schema of a database as the role of an app meets it.

    Args:
        connection: with the rights that a dump needs. In a REPEATABLE READ transaction it is that transaction's moment.

    Raises psycopg.Error.
    """
    anchor = await take_anchor(connection)
    access = await _access(connection, role)
    row = await (await connection.execute(_COUNTED_SINCE)).fetchone()
    since = row[1].astimezone(UTC) if row is not None and row[0] else None
    database = f"{anchor.system_identifier}/{anchor.database_oid}" if anchor.system_identifier else ""
    return Schema(await read_catalog(connection, positions=True), database, anchor.at, access, since)


async def _access(connection: Session, role: str) -> Access:
    cursor = await connection.execute(_ROLES.format(role=sql.Literal(role)))
    rows = await cursor.fetchall()
    own = next((row for row in rows if row[1]), None)
    if own is None:
        return Access("")
    return Access(own[0], frozenset(row[0] for row in rows), unrestricted=own[2], sees_all_rows=own[3])
