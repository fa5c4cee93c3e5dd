"""What would a restore lose? By the transaction that wrote each row where the anchor counts, else by its text."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC

import psycopg
from psycopg import sql

from norn.adapters.postgres.sessions import Session
from norn.adapters.snapshots.keys import NotUnique, Side, compare_rows, compare_values, count_deleted
from norn.adapters.snapshots.reading import Deadline, Reader, TookTooLong, reading
from norn.adapters.snapshots.tables import Table, tables_of
from norn.adapters.together import together
from norn.domain.loss import Loss, TableLoss
from norn.domain.snapshots import Anchor, TableState

_EPOCH = 2**32
_FIRST_XID = 3  # below it are the marks of rows that were there from the beginning, or are frozen

_IDENTIFIABLE = sql.SQL("SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')")
_SYSTEM = sql.SQL("SELECT system_identifier::text FROM pg_catalog.pg_control_system()")
_MOMENT = sql.SQL("""
SELECT (SELECT oid::int8 FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
       pg_catalog.pg_current_snapshot()::text,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_lsn() END::text,
       pg_catalog.clock_timestamp()
""")
_LAST = sql.SQL("(SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8 - 1)")
# The whole number of a row's transaction: the last one that this snapshot can see, less how far that one is ahead.
XID = sql.SQL("{last} - (({last} - t.xmin::text::int8) & {mask})").format(last=_LAST, mask=sql.SQL(str(_EPOCH - 1)))


async def take_anchor(connection: Session) -> Anchor:
    """The present moment of that database.

    In a REPEATABLE READ transaction it is the moment of everything that the transaction reads; it must not have
    written anything, since what it wrote itself counts as written after the anchor. `system_identifier` is empty
    where the role may not ask for it.

    Raises psycopg.Error.
    """
    row = await (await connection.execute(_IDENTIFIABLE)).fetchone()
    system = None
    if row is not None and row[0]:
        system = await (await connection.execute(_SYSTEM)).fetchone()
    moment = await (await connection.execute(_MOMENT)).fetchone()
    assert moment is not None
    oid, snapshot, lsn, at = moment
    return Anchor(system[0] if system else "", oid, snapshot, lsn or "", at.astimezone(UTC))


@dataclass(frozen=True, slots=True)
class Since:
    """An anchor's snapshot, in whole (64-bit) transaction numbers."""

    first_under_way: int
    """Every transaction before it had ended."""
    next: int
    """No transaction from it on had ended."""
    under_way: tuple[int, ...]

    @classmethod
    def parse(cls, snapshot: str) -> Since:
        """Raises ValueError where it is no snapshot."""
        low, high, under_way = snapshot.split(":")
        return cls(int(low), int(high), tuple(int(xid) for xid in under_way.split(",") if xid))

    def later(self, x: sql.SQL | sql.Composed) -> sql.Composed:
        """A condition for the whole number of a row's transaction: it may have ended after the anchor."""
        return sql.SQL("({x} >= {} AND (({x}) & {}) >= {})").format(
            _int8(self.first_under_way), _int8(_EPOCH - 1), _int8(_FIRST_XID), x=x
        )

    @property
    def old(self) -> sql.Composed:
        """A condition for `t`: the row was there at the anchor, as it is now."""
        return sql.SQL("NOT {}").format(self.later(XID))

    def counts(self, table: Table) -> sql.Composed:
        """A query: all rows, those written since, and those of which it is not known.

        Not known are those of transactions beside others that were under way: an anchor names transactions, but rows
        carry the numbers of their savepoints. A row has the lower half of its number: the whole one is the
        newest that ends in it. So a frozen row from before 2^32 transactions can count as written since, never the
        other way round.
        """
        return sql.SQL(
            "SELECT count(*), count(*) FILTER (WHERE {later} AND (x >= {next} OR x = ANY ({under_way}))), "
            "count(*) FILTER (WHERE {later} AND x < {next} AND x <> ALL ({under_way})) "
            "FROM (SELECT {xid} AS x FROM ONLY {table} AS t OFFSET 0) AS r"
        ).format(
            later=self.later(sql.SQL("x")),
            next=_int8(self.next),
            under_way=sql.SQL("{}::int8[]").format(sql.Literal("{" + ",".join(map(str, self.under_way)) + "}")),
            xid=XID,
            table=table.identifier,
        )


def _int8(value: int) -> sql.Composed:
    return sql.SQL("{}::int8").format(sql.Literal(str(value)))


@dataclass(frozen=True, slots=True)
class Question:
    """What is the same for every table."""

    since: Since | None
    """None where the anchor does not count in the live database."""
    states: Mapping[str, TableState]
    timeout_s: float
    moment: str = "the snapshot"
    """What the anchor is the moment of, for people."""

    def reason(self, table: Table) -> str:
        """Why the rows' transactions say nothing about a table; empty where they do."""
        if self.since is None:
            return f"is in another database than at {self.moment}"
        state = self.states.get(table.label)
        if state is None:
            return f"is not known from {self.moment}"
        return "" if (state.oid, state.file) == (table.oid, table.file) else "was rewritten since"


async def loss_of(
    live_url: str,
    copy_url: str,
    anchor: Anchor,
    states: Mapping[str, TableState],
    *,
    table_timeout_s: float = 60.0,
    parallel: int = 2,
) -> Loss:
    """What would be lost if the copy took the live database's place.

    Where the live database is the anchor's, and a table's file is the one of the snapshot, rows count as written by
    the transaction that wrote them, even where they say what they said before; elsewhere by what they say. Generated
    columns do not count, since they follow from others. A row that moved to another partition is written in the one
    and deleted in the other.

    Left out: tables of extensions, materialised views (they follow from tables), foreign tables, large objects and
    sequences. Not noticed: that the server itself was wound back to before the anchor, and has since had as many
    transactions again.

    Args:
        live_url: a role that may read every table there.
        copy_url: a database with everything that the snapshot has; nobody else writes to it.
        anchor: the snapshot's.
        states: of the tables at the anchor, by qualified and quoted name.
        table_timeout_s: what takes longer is unknown.
        parallel: how many tables are looked at at a time, with two connections each.

    Raises:
        Unavailable: a database does not answer.
        ValueError: the anchor's snapshot is none.
    """
    done: list[TableLoss] = []
    async with reading(live_url) as live, reading(copy_url) as copy:
        question = Question(await since_anchor(live, anchor), states, table_timeout_s)
        mine, theirs = await tables_of(live), await tables_of(copy)
        pairs = [(mine.get(name), theirs.get(name)) for name in sorted(mine.keys() | theirs.keys())]
        pairs.sort(key=lambda pair: -max(table.pages for table in pair if table is not None))
        left = deque(pairs)

        async def work(live: Reader, copy: Reader) -> None:
            while left:
                done.append(await _table_loss(live, copy, *left.popleft(), question))

        async def help_out() -> None:
            async with reading(live_url) as live, reading(copy_url) as copy:
                await work(live, copy)

        await together(work(live, copy), *(help_out() for _ in range(min(parallel, len(pairs)) - 1)))
    return Loss.of(done)


async def since_anchor(live: Reader, anchor: Anchor) -> Since | None:
    """The anchor in terms of the live database, None where it is another one or has no such past."""
    (identifiable,) = await live.one(_IDENTIFIABLE)
    system = str((await live.one(_SYSTEM))[0]) if identifiable else ""
    oid, now, _lsn, _at = await live.one(_MOMENT)
    since = Since.parse(anchor.snapshot)
    # Without its identifier another server's database could pass for this one: OIDs are the same on many servers.
    same = system != "" and (system, oid) == (anchor.system_identifier, anchor.database_oid)
    return since if same and since.next <= Since.parse(now).next else None


async def _table_loss(
    live: Reader, copy: Reader, mine: Table | None, theirs: Table | None, question: Question
) -> TableLoss:
    """What is lost in one table; what cannot be found out is unknown, with why."""
    either = mine or theirs
    assert either is not None
    label = either.label
    deadline = Deadline(question.timeout_s)

    async def look() -> TableLoss:
        async with live.part(), copy.part():
            if mine is None:
                assert theirs is not None
                return TableLoss(label, 0, await _rows(copy, theirs, deadline))
            if theirs is None:
                found = TableLoss(label, await _rows(live, mine, deadline), 0)
            else:
                found = await _in_both(Side(live, mine), Side(copy, theirs), question, deadline)
            # It is locked by now and cannot change again; in between, an old snapshot would see it empty.
            if await _file(live, mine) != mine.file:
                return TableLoss(label, None, None, "was rewritten while it was looked at")
            return found

    return await or_unknown(label, question.timeout_s, look())


async def or_unknown(label: str, timeout_s: float, looking: Awaitable[TableLoss]) -> TableLoss:
    """What was found, or why it could not be found out."""
    try:
        return await looking
    except (TookTooLong, psycopg.errors.QueryCanceled):
        return TableLoss(label, None, None, f"took longer than {timeout_s:g} s")
    except psycopg.errors.LockNotAvailable:
        return TableLoss(label, None, None, "is locked")
    except NotUnique:
        return TableLoss(label, None, None, "its key is not unique")
    except psycopg.Error as error:  # where it ended the session, the end of `reading` says so
        return TableLoss(label, None, None, error.diag.message_primary or str(error))


async def _in_both(live: Side, copy: Side, question: Question, deadline: Deadline) -> TableLoss:
    reason = question.reason(live.table)
    if not reason:
        assert question.since is not None
        rows, written, doubtful = await live.reader.one(question.since.counts(live.table), deadline)
        gone = question.states[live.table.label].rows - (rows - written)  # deleted, or updated and so written
        if doubtful:
            reason = "was being written at the snapshot"
        elif gone < 0:
            reason = "has more old rows than the snapshot"
        else:
            return await _by_transaction(live, copy, question.since, written, gone, deadline)
    return await _by_content(live, copy, reason, deadline)


async def _by_transaction(
    live: Side, copy: Side, since: Since, written: int, gone: int, deadline: Deadline
) -> TableLoss:
    """With the rows written since known, and how many of the snapshot's rows are not there as they were."""
    label = live.table.label
    if gone == 0 or written == 0:
        return TableLoss(label, written, gone)  # none was updated, so that those gone were deleted
    key = live.table.key_shared_with(copy.table)
    if key is None:
        return TableLoss(label, written, None, "has another key" if live.table.keys else "no primary key")
    return TableLoss(label, written, await count_deleted(live, copy, key, since.old, gone, deadline))


async def _by_content(live: Side, copy: Side, reason: str, deadline: Deadline) -> TableLoss:
    label, key = live.table.label, live.table.key_shared_with(copy.table)
    content = live.table.content if live.table.same_content(copy.table) else None
    if key is not None and content is not None:
        found = await compare_rows(live, copy, key, content, deadline)
        return TableLoss(label, found.only_live + found.changed, found.only_copy)
    if key is not None:
        found = await compare_values(live, copy, key, deadline)
        return TableLoss(label, None, found.only_copy, f"{reason}, and has other columns")
    why = f"{reason}, and has {'another key' if live.table.keys else 'no key'}"
    if content is None:
        return TableLoss(label, None, None, why)
    # Equal rows need no key. Where both sides have rows of their own, an old one may be deleted or updated.
    found = await compare_values(live, copy, content, deadline)
    if found.only_live and found.only_copy:
        return TableLoss(label, found.only_live, None, why)
    return TableLoss(label, found.only_live, found.only_copy)


async def _rows(reader: Reader, table: Table, deadline: Deadline) -> int:
    row = await reader.one(sql.SQL("SELECT count(*) FROM ONLY {}").format(table.identifier), deadline)
    return int(row[0])


async def _file(reader: Reader, table: Table) -> int | None:
    row = await reader.one(
        sql.SQL("SELECT pg_catalog.pg_relation_filenode({}::oid)::int8").format(sql.Literal(str(table.oid)))
    )
    return None if row[0] is None else int(row[0])
