"""Reads a database's schema as data, and counts the rows of its tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from norn.adapters.postgres.sessions import unnoticed
from norn.adapters.snapshots.catalog_queries import TABLES, queries
from norn.adapters.snapshots.definitions import settled
from norn.adapters.snapshots.text_form import TEXT_FORM
from norn.domain.catalog import Catalog, CatalogEntry
from norn.domain.snapshots import TableState

_TABLES_AT_A_TIME = 100

_SETTINGS = TEXT_FORM | {
    # Every name in a definition is to be qualified, and no temporary table is to be taken for one of the system's.
    "search_path": "pg_catalog, pg_temp",
    "standard_conforming_strings": "on",
    "client_encoding": "UTF8",
}


async def read_catalog(connection: psycopg.AsyncConnection[Any], *, positions: bool = False) -> Catalog:
    """The schema of a database, as it comes out of pg_dump and pg_restore again.

    Kinds: schema, extension, table, foreign table, view, materialized view, column, columns (their order), constraint,
    index, sequence (not how far it is), function, procedure, aggregate, enum, domain, type, trigger, rule, policy,
    statistics, privileges (with the owner), default privileges, large objects, comment, foreign data wrapper, foreign
    server, user mapping, publication, event trigger, collation, text search configuration, text search dictionary,
    operator, cast.

    Left out: what belongs to the system, to sessions or to extensions (the extensions are there, with their versions);
    that a column is not null as a constraint of its own; foreign keys of partitions that follow from their parents';
    indexes that are not valid. Not read: subscriptions, operator classes and families, procedural languages,
    transforms, conversions, access methods, text search parsers and templates, security labels, and what is set for
    the database itself.

    Only databases of one major version compare: PostgreSQL writes definitions a little differently from version to
    version.

    Args:
        connection: in a transaction or not; what is set in it, and what locks it has, is afterwards as before.
        positions: with how far each sequence is, among the facts; locks on them are kept until the transaction ends.

    Raises psycopg.Error.
    """
    entries = []
    async with _undisturbed(connection):
        async for rows in _one_after_the_other(connection, queries(positions=positions)):
            entries += [
                CatalogEntry(kind, name, settled(definition or ""), oid, number, facts or "")
                for kind, name, definition, oid, number, facts in rows
            ]
    return Catalog.of(entries)


async def table_states(connection: psycopg.AsyncConnection[Any]) -> dict[str, TableState]:
    """Every table and materialised view with its rows counted, by quoted, qualified name (`public."Order"`).

    Partitions are counted, not what they are partitions of; of inherited tables each has only its own rows; a
    materialised view that was never filled has none. Tables of extensions are left out, since a dump leaves to the
    extension what is in them.

    Args:
        connection: in a REPEATABLE READ transaction all is counted at its moment; outside any, at one moment too.

    Raises psycopg.Error: also where row security would hide rows from this role.
    """
    states: dict[str, TableState] = {}
    async with _undisturbed(connection):
        tables = await _rows(connection, TABLES)
        for batch in _batches(tables):
            counts = sql.SQL(" UNION ALL ").join(
                sql.SQL("SELECT {}::pg_catalog.int8, pg_catalog.count(*) FROM ONLY {}").format(
                    sql.Literal(str(oid)), sql.Identifier(schema, name)
                )
                if populated
                else sql.SQL("SELECT {}::pg_catalog.int8, 0").format(sql.Literal(str(oid)))
                for schema, name, _label, oid, _file, populated in batch
            )
            rows: dict[int, int] = dict(await _rows(connection, counts))
            states.update({label: TableState(rows[oid], oid, file) for _, _, label, oid, file, _ in batch})
    return states


def _batches(tables: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    for first in range(0, len(tables), _TABLES_AT_A_TIME):
        yield tables[first : first + _TABLES_AT_A_TIME]


@asynccontextmanager
async def _undisturbed(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """A transaction, or a part of the one there is, that looks and leaves nothing behind."""
    outermost = connection.info.transaction_status == TransactionStatus.IDLE
    # Rolled back, since what is set within a savepoint outlives its release.
    async with connection.transaction(force_rollback=True):
        if outermost:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        settings = sql.SQL(", ").join(
            sql.SQL("pg_catalog.set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
            for name, value in (_SETTINGS | unnoticed(connection)).items()
        )
        await connection.execute(sql.SQL("SELECT {}").format(settings))
        yield


async def _one_after_the_other(
    connection: psycopg.AsyncConnection[Any], wanted: Sequence[sql.Composed]
) -> AsyncIterator[list[tuple[Any, ...]]]:
    """The rows of each query; the server is at work on the next ones while somebody looks at them."""
    async with connection.pipeline(), AsyncExitStack() as cursors:
        sent = []
        for query in wanted:
            cursor = await cursors.enter_async_context(connection.cursor(row_factory=tuple_row))
            await cursor.execute(query)
            sent.append(cursor)
        for cursor in sent:
            yield await cursor.fetchall()


async def _rows(connection: psycopg.AsyncConnection[Any], query: sql.Composed) -> list[tuple[Any, ...]]:
    # No parameters: with some, a `%` in the name of a table would be taken for another.
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(query)
        return await cursor.fetchall()
