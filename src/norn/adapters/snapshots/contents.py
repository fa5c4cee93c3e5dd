"""Digests of what the tables of a database hold, column by column, in as much time as there is."""

from __future__ import annotations

import psycopg
from psycopg import sql

from norn.adapters.snapshots.reading import Deadline, Reader, TookTooLong, reading
from norn.adapters.snapshots.tables import Table, tables_of
from norn.domain.contents import TableContents

_TOUCHED = sql.SQL("""
SELECT c.oid::int8, pg_catalog.pg_stat_get_tuples_updated(c.oid), pg_catalog.pg_stat_get_tuples_deleted(c.oid)
  FROM pg_catalog.pg_class AS c WHERE c.relkind = 'r' AND c.oid >= 16384
""")


async def table_contents(url: str, budget_s: float) -> dict[str, TableContents]:
    """By qualified, quoted name; the small tables first, so that as many as possible are looked at in the time.

    A column's digest is the sum of the hashes of its values, each with the row's key: it does not depend on the order.

    Raises Unavailable.
    """
    deadline = Deadline(budget_s)
    async with reading(url) as live:
        touched = {oid: (updated, deleted) for oid, updated, deleted in await live.rows(_TOUCHED)}
        tables = sorted((await tables_of(live)).values(), key=lambda table: table.pages)
        found = {}
        for table in tables:
            rows, columns = await _digests(live, table, deadline)
            updated, deleted = touched.get(table.oid, (0, 0))
            found[table.label] = TableContents(table.oid, updated + deleted, rows, columns, deleted)
        return found


async def _digests(live: Reader, table: Table, deadline: Deadline) -> tuple[int, dict[str, tuple[str, str]]]:
    names = [name for name in table.types if name in table.content]
    if not names:
        return 0, {}
    key = table.keys[0] if table.keys else ()
    sums = (
        sql.SQL("coalesce(sum(pg_catalog.hashtextextended(ROW({})::text, 0)::numeric), 0)::text").format(
            sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(column)) for column in (*key, name))
        )
        for name in names
    )
    query = sql.SQL("SELECT count(*), {} FROM ONLY {} AS t").format(sql.SQL(", ").join(sums), table.identifier)
    try:
        async with live.part():
            rows, *row = await live.one(query, deadline)
    except (TookTooLong, psycopg.Error):  # it may not be read, or is locked; a lost connection ends `reading`
        return 0, {}
    return int(rows), {name: (table.types[name], str(digest)) for name, digest in zip(names, row, strict=True)}
