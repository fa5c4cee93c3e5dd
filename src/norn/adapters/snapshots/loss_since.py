"""What was written since a moment of a database, where there is no copy of that moment: before a restore is undone."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql

from norn.adapters.snapshots.loss import Since, since_anchor
from norn.adapters.snapshots.reading import Deadline, Reader, TookTooLong, reading
from norn.adapters.snapshots.tables import Table, tables_of
from norn.domain.loss import Loss, TableLoss
from norn.domain.snapshots import Anchor, TableState

_DERIVED = sql.SQL("SELECT pg_catalog.format('%I.%I', schemaname, matviewname) FROM pg_catalog.pg_matviews")


async def loss_since(
    url: str, anchor: Anchor, states: Mapping[str, TableState], *, table_timeout_s: float = 60.0
) -> Loss:
    """Rows written to the database since the anchor, and rows that are not there any more.

    Where rows were both written and lost to sight, some of those may have been updated: how many were deleted is then
    unknown, and `why` says how many at most.

    Raises:
        Unavailable: the database does not answer.
        ValueError: the anchor's snapshot is none.
    """
    found = []
    async with reading(url) as live:
        since = await since_anchor(live, anchor)
        tables = {table.label: table for table in (await tables_of(live)).values()}
        derived = {str(row[0]) for row in await live.rows(_DERIVED)}  # what follows from tables is no loss of its own
        for label in sorted({*tables, *states} - derived):
            table, state = tables.get(label), states.get(label)
            found.append(await _table(live, label, table, state, since, Deadline(table_timeout_s)))
    return Loss.of(found)


async def _table(
    live: Reader, label: str, table: Table | None, state: TableState | None, since: Since | None, deadline: Deadline
) -> TableLoss:
    if table is None:
        assert state is not None
        return TableLoss(label, 0, state.rows)  # dropped since
    if since is None:
        return TableLoss(label, None, None, "is in another database than at the restore")
    try:
        async with live.part():
            rows, written, doubtful = await live.one(since.counts(table), deadline)
    except (TookTooLong, psycopg.errors.QueryCanceled):
        return TableLoss(label, None, None, "took too long to count")
    except psycopg.errors.LockNotAvailable:
        return TableLoss(label, None, None, "is locked")
    if state is None:
        return TableLoss(label, rows, 0)  # made since
    if (state.oid, state.file) != (table.oid, table.file) or doubtful:
        return TableLoss(label, None, None, "was rewritten since" if not doubtful else "was being written then")
    gone = state.rows - (rows - written)
    if gone == 0 or written == 0:
        return TableLoss(label, written, gone)
    return TableLoss(label, written, None, f"{gone} at most")
