"""Compares a table of two databases without moving it: hashes in buckets, and of the buckets that differ the hashes.

A row is known by a 64-bit hash of its key's text. That two different keys share one, and that a difference is
missed for it, has a chance of about n*m / 2^64: one in 18 million for a million rows changed among a million. Text is
hashed, since the hash of a record differs between databases where an enum is in it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from psycopg import sql

from norn.adapters.snapshots.reading import Deadline, Reader, both
from norn.adapters.snapshots.tables import Table

_FEWEST_BUCKETS, _MOST_BUCKETS = 2**12, 2**16
_BATCH_BYTES = 500_000
"""About so much of hashes is read of each side, and worked on without a pause, at a time; a bucket at least."""
_END = _MOST_BUCKETS
# Their text needs no record around it, which halves the cost. Of other types a cast to text may be somebody's own
# function, which is not to be run by a role that may do anything.
_PLAIN = {"smallint", "integer", "bigint", "uuid", "text"}


class NotUnique(Exception):
    """Two rows have one key: its index is damaged, or is not what the catalog says."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two tables."""

    reader: Reader
    table: Table


@dataclass(frozen=True, slots=True)
class Differences:
    """How many rows are in the live table alone, in both but changed, and in the copy alone."""

    only_live: int = 0
    changed: int = 0
    only_copy: int = 0

    def __add__(self, other: Differences) -> Differences:
        return Differences(
            self.only_live + other.only_live, self.changed + other.changed, self.only_copy + other.only_copy
        )


@dataclass(frozen=True, slots=True)
class _Hashing:
    """What is hashed of each row, and into how many buckets."""

    key: Sequence[str]
    content: Sequence[str] | None
    """None where only the keys count."""
    buckets: int
    """A power of two."""
    deadline: Deadline

    def rows(self, side: Side, where: sql.Composed | None = None) -> sql.Composed:
        """A row for each row: `k`, the hash of its key, `r`, that of its content (or 0), and its bucket."""
        content = sql.SQL("0::int8") if self.content is None else _hash(side.table, self.content)
        # OFFSET 0: without it each mention of `k` would hash again.
        return sql.SQL(
            "(SELECT (k & {mask})::int4 AS bucket, k, r FROM "
            "(SELECT {key} AS k, {content} AS r FROM ONLY {table} AS t{where} OFFSET 0) AS hashed) AS hashed"
        ).format(
            mask=sql.Literal(self.buckets - 1),
            key=_hash(side.table, self.key),
            content=content,
            table=side.table.identifier,
            where=sql.SQL("") if where is None else sql.SQL(" WHERE {}").format(where),
        )


async def compare_rows(
    live: Side, copy: Side, key: Sequence[str], content: Sequence[str], deadline: Deadline
) -> Differences:
    """By a key, and where both have it by the content. Raises psycopg.Error, TookTooLong, NotUnique."""
    return await _compare(live, copy, _Hashing(key, content, _buckets(live), deadline))


async def compare_values(live: Side, copy: Side, columns: Sequence[str], deadline: Deadline) -> Differences:
    """By the values of these columns alone (`changed` is 0); rows with the same values are counted one by one.

    Raises psycopg.Error, TookTooLong.
    """
    return await _compare(live, copy, _Hashing(columns, None, _buckets(live), deadline))


async def count_deleted(
    live: Side, copy: Side, key: Sequence[str], old: sql.Composed, gone: int, deadline: Deadline
) -> int:
    """How many keys of the copy are not in the live table, where it is known which live rows are as in the copy.

    Args:
        old: a condition for `t`, which those rows meet.
        gone: how many other rows the copy has.

    Raises psycopg.Error, TookTooLong.
    """
    hashing = _Hashing(key, None, _buckets(live), deadline)
    buckets: Sequence[int] = range(hashing.buckets)
    if gone < hashing.buckets:  # else hardly a bucket will be without any
        buckets = await _differing(live, copy, hashing, old)
    return (await _within(live, copy, hashing, buckets)).only_copy


def _buckets(side: Side) -> int:
    """About as many as the table has blocks: small ones leave out more of a table with changes all over it."""
    return min(max(1 << side.table.pages.bit_length(), _FEWEST_BUCKETS), _MOST_BUCKETS)


def _hash(table: Table, columns: Sequence[str]) -> sql.Composed:
    names = [sql.Identifier("t", column) for column in columns]
    plain = len(columns) == 1 and table.types[columns[0]] in _PLAIN
    text = names[0] if plain else sql.SQL("ROW({})").format(sql.SQL(", ").join(names))
    hashed = sql.SQL('pg_catalog.hashtextextended({}::pg_catalog.text COLLATE pg_catalog."C", 0)').format(text)
    return sql.SQL("coalesce({}, 0)").format(hashed)


async def _compare(live: Side, copy: Side, hashing: _Hashing) -> Differences:
    return await _within(live, copy, hashing, await _differing(live, copy, hashing))


async def _differing(live: Side, copy: Side, hashing: _Hashing, old: sql.Composed | None = None) -> Sequence[int]:
    """The buckets that differ; of the live table only rows that meet the condition `old` count, if there is one."""
    mine, theirs = await both(_sums(live, hashing, old), _sums(copy, hashing))
    return sorted(bucket for bucket in mine.keys() | theirs.keys() if mine.get(bucket) != theirs.get(bucket))


async def _sums(side: Side, hashing: _Hashing, where: sql.Composed | None = None) -> dict[int, tuple[int, str, str]]:
    """By bucket: how many rows, the sum of the keys' hashes, and that of the contents'."""
    query = sql.SQL("SELECT bucket, count(*), sum(k)::text, {} FROM {} GROUP BY 1").format(
        sql.SQL("''" if hashing.content is None else "sum(r)::text"), hashing.rows(side, where)
    )
    rows = await side.reader.rows(query, hashing.deadline)
    return {bucket: (count, of_keys, of_contents) for bucket, count, of_keys, of_contents in rows}


async def _within(live: Side, copy: Side, hashing: _Hashing, buckets: Sequence[int]) -> Differences:
    """The differences within these buckets."""
    found = Differences()
    if not buckets:
        return found
    async with (
        aclosing(_batches(live, hashing, buckets)) as of_live,
        aclosing(_batches(copy, hashing, buckets)) as of_copy,
    ):
        mine, theirs = _Hashes(of_live), _Hashes(of_copy)
        await both(mine.read(), theirs.read())
        while True:
            upto = min(mine.upto, theirs.upto)
            for bucket in [bucket for bucket in mine.held.keys() | theirs.held.keys() if bucket <= upto]:
                hashes = mine.held.pop(bucket, b""), theirs.held.pop(bucket, b"")
                found += _by_key(*hashes) if hashing.content is None else _by_row(*hashes)
            if upto == _END:
                return found
            await (mine if mine.upto == upto else theirs).read()


async def _batches(
    side: Side, hashing: _Hashing, buckets: Sequence[int]
) -> AsyncGenerator[list[tuple[int, bytes]], None]:
    """Of each bucket, in order, its hashes: 8 bytes of each key, and 8 of its content where that counts."""
    # Sorted on disk where need be, instead of all of it in memory.
    await side.reader.set("enable_hashagg", "off")
    query = sql.SQL("SELECT bucket, pg_catalog.string_agg({}, ''::bytea) FROM {}{} GROUP BY 1 ORDER BY 1").format(
        sql.SQL("int8send(k)" if hashing.content is None else "int8send(k) || int8send(r)"),
        hashing.rows(side),
        sql.SQL("")
        if len(buckets) == hashing.buckets
        else sql.SQL(" WHERE bucket = ANY ({}::int4[])").format(sql.Literal(list(buckets))),
    )
    async with aclosing(side.reader.batches(query, _BATCH_BYTES, hashing.deadline)) as batches:
        async for batch in batches:
            yield [(bucket, hashes) for bucket, hashes in batch]


class _Hashes:
    """The hashes of one side, bucket by bucket, as far as they are read."""

    def __init__(self, batches: AsyncIterator[list[tuple[int, bytes]]]) -> None:
        self._batches = batches
        self.held: dict[int, bytes] = {}
        self.upto = -1
        """The last bucket that was read, `_END` after all."""

    async def read(self) -> None:
        try:
            batch = await anext(self._batches)
        except StopAsyncIteration:
            self.upto = _END
        else:
            self.held.update(batch)
            self.upto = batch[-1][0]


def _by_key(live: bytes, copy: bytes) -> Differences:
    mine, theirs = (struct.unpack(f">{len(hashes) // 8}q", hashes) for hashes in (live, copy))
    once, there_once = set(mine), set(theirs)
    if len(once) == len(mine) and len(there_once) == len(theirs):
        return Differences(only_live=len(once - there_once), only_copy=len(there_once - once))
    many, there_many = Counter(mine), Counter(theirs)
    return Differences(only_live=(many - there_many).total(), only_copy=(there_many - many).total())


def _by_row(live: bytes, copy: bytes) -> Differences:
    mine, theirs = (dict(struct.iter_unpack(">qq", hashes)) for hashes in (live, copy))
    if len(mine) * 16 != len(live) or len(theirs) * 16 != len(copy):
        raise NotUnique
    changed = sum(1 for key in mine.keys() & theirs.keys() if mine[key] != theirs[key])
    return Differences(len(mine.keys() - theirs.keys()), changed, len(theirs.keys() - mine.keys()))
