"""What was written since a moment of a database, where there is no copy of that moment.

Before a restore is undone, and where somebody only wants to know what a restore would lose.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

from psycopg import sql

from norn.adapters.snapshots.loss import Question, or_unknown, since_anchor
from norn.adapters.snapshots.reading import Deadline, Reader, reading
from norn.adapters.snapshots.tables import Table, tables_of
from norn.domain.loss import Loss, TableLoss
from norn.domain.snapshots import Anchor, TableState

_DERIVED = sql.SQL("SELECT pg_catalog.format('%I.%I', schemaname, matviewname) FROM pg_catalog.pg_matviews")


async def loss_since(
    url: str,
    anchor: Anchor,
    states: Mapping[str, TableState],
    *,
    table_timeout_s: float = 60.0,
    budget_s: float | None = None,
) -> Loss:
    """Rows written to the database since the anchor, and rows that are not there any more.

    Where rows were both written and lost to sight, some of those may have been updated: how many were deleted is then
    unknown, and `why` says how many at most. With a budget, for all tables together, the small ones come first.

    Raises:
        Unavailable: the database does not answer.
        ValueError: the anchor's snapshot is none.
    """
    found = []
    async with reading(url) as live:
        question = Question(await since_anchor(live, anchor), states, table_timeout_s, "that moment")
        tables = {table.label: table for table in (await tables_of(live)).values()}
        derived = {str(row[0]) for row in await live.rows(_DERIVED)}  # what follows from tables is no loss of its own
        end = math.inf if budget_s is None else time.monotonic() + budget_s
        for label in sorted({*tables, *states} - derived, key=lambda label: _pages(tables.get(label))):
            table, left_s = tables.get(label), end - time.monotonic()
            if table is None:
                found.append(TableLoss(label, 0, states[label].rows))  # dropped since
            elif left_s <= 0:
                found.append(TableLoss(label, None, None, f"not counted within {budget_s:g} s"))
            else:
                # No more than half of what is left: one that is locked does not keep all others from being counted.
                timed = replace(question, timeout_s=min(table_timeout_s, round(left_s / 2, 3)))
                found.append(await or_unknown(label, timed.timeout_s, _table(live, table, timed)))
    return Loss.of(found)


def _pages(table: Table | None) -> int:
    return table.pages if table is not None else 0


async def _table(live: Reader, table: Table, question: Question) -> TableLoss:
    label, since, state = table.label, question.since, question.states.get(table.label)
    if since is None:
        return TableLoss(label, None, None, question.reason(table))
    if state is not None and (reason := question.reason(table)):
        return TableLoss(label, None, None, reason)
    async with live.part():
        rows, written, doubtful = await live.one(since.counts(table), Deadline(question.timeout_s))
    if state is None:
        return TableLoss(label, rows, 0)  # made since
    if doubtful:
        return TableLoss(label, None, None, "was being written then")
    gone = state.rows - (rows - written)
    if gone < 0:
        return TableLoss(label, None, None, "has more old rows than then")
    if gone == 0 or written == 0:
        return TableLoss(label, written, gone)
    return TableLoss(label, written, None, f"{gone} at most")
