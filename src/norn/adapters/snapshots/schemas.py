"""Reads what an app's database looks like at a moment, for the app's role."""

from __future__ import annotations

from datetime import UTC

from psycopg import sql

from norn.adapters.postgres.sessions import Session
from norn.adapters.snapshots.catalog import read_catalog
from norn.adapters.snapshots.loss import take_anchor
from norn.domain.schema import Access, Schema

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
    return Schema(await read_catalog(connection), database, anchor.at, access, since)


async def _access(connection: Session, role: str) -> Access:
    cursor = await connection.execute(_ROLES.format(role=sql.Literal(role)))
    rows = await cursor.fetchall()
    own = next((row for row in rows if row[1]), None)
    if own is None:
        return Access("")
    return Access(own[0], frozenset(row[0] for row in rows), unrestricted=own[2], sees_all_rows=own[3])
