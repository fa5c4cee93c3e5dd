"""Rows written since a moment of a database, table by table, in as much time as there is."""

from __future__ import annotations

import psycopg
from psycopg import sql

from norn.adapters.snapshots.loss import XID, Since, since_anchor
from norn.adapters.snapshots.reading import Deadline, Reader, TookTooLong, reading
from norn.adapters.snapshots.tables import Table, tables_of
from norn.domain.snapshots import Anchor
from norn.domain.written import Written

_PAGES = 4_000
"""Looked at at a time: 32 MB, a few hundredths of a second."""


async def rows_written(url: str, before: Anchor, after: Anchor | None, *, budget_s: float) -> list[Written] | None:
    """Rows of each table that were inserted or updated since `before`, and of these, since `after`.

    New rows are mostly at the end of a table, so it is read from there, and what is found until the time is over is
    "at least". Updated rows count, deleted ones do not. None where the database is another one than at the anchors.

    Args:
        url: a role that may read every table there.
        after: None where the moment is not known; then all were written since `before`.
        budget_s: for all tables together.

    Raises:
        Unavailable: the database does not answer.
        ValueError: an anchor is none.
    """
    deadline = Deadline(budget_s)
    async with reading(url) as live:
        since = await since_anchor(live, before)
        later = await since_anchor(live, after) if after is not None else None
        if since is None or (after is not None and later is None):
            return None
        tables = sorted((await tables_of(live)).values(), key=lambda table: table.pages)
        return [await _written(live, table, since, later, deadline) for table in tables]


async def _written(live: Reader, table: Table, since: Since, later: Since | None, deadline: Deadline) -> Written:
    migration = now = 0
    try:
        async with live.part():
            pages = await live.one(_SIZE.format(table=sql.Literal(str(table.oid))), deadline)
            end = int(pages[0])
            while end > 0:
                start = max(0, end - _PAGES)
                all_of_it, since_then = await live.one(_counts(table, since, later, start, end), deadline)
                migration, now, end = migration + all_of_it - since_then, now + since_then, start
    except (TookTooLong, psycopg.Error):  # it may not be read, or is locked; a lost connection ends `reading`
        return Written(table.label, migration, now, complete=False, file=table.file)
    return Written(table.label, migration, now, complete=True, file=table.file)


_SIZE = sql.SQL("SELECT pg_catalog.pg_relation_size({table}::oid) / pg_catalog.current_setting('block_size')::int8")


def _counts(table: Table, since: Since, later: Since | None, start: int, end: int) -> sql.Composed:
    return sql.SQL(
        "SELECT count(*) FILTER (WHERE {since}), count(*) FILTER (WHERE {later}) "
        "FROM (SELECT {xid} AS x FROM ONLY {table} AS t "
        "WHERE t.ctid >= {start}::tid AND t.ctid < {end}::tid OFFSET 0) AS r"
    ).format(
        since=since.later(sql.SQL("x")),
        later=(later or since).later(sql.SQL("x")),
        xid=XID,
        table=table.identifier,
        start=sql.Literal(f"({start},0)"),
        end=sql.Literal(f"({end},0)"),
    )
