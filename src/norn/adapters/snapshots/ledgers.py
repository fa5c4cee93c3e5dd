"""Reads the ledgers of migration tools in an app's database."""

from __future__ import annotations

import psycopg
from psycopg import sql

from norn.adapters.postgres.sessions import Session
from norn.domain.ledgers import TOOLS, Ledger, Tool

_MOST = 5_000
_CANDIDATES = sql.SQL("""
SELECT n.nspname, c.relname, pg_catalog.array_agg(a.attname::text)
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relkind IN ('r', 'p', 'v') AND c.relname = ANY ({}::text[]) AND n.nspname <> 'information_schema'
 GROUP BY n.nspname, c.relname ORDER BY n.nspname, c.relname
""")


async def read_ledgers(connection: Session) -> tuple[Ledger, ...]:
    """Those that are there, recognised by the names of their tables and columns.

    Args:
        connection: in a transaction; what cannot be read in it is left out.
    """
    names = list(dict.fromkeys(tool.table for tool in TOOLS))
    cursor = await connection.execute(_CANDIDATES.format(sql.Literal("{" + ",".join(names) + "}")))
    found = []
    for schema, table, columns in await cursor.fetchall():
        tool = next((tool for tool in TOOLS if tool.table == table and set(tool.columns) <= set(columns)), None)
        if tool is None:
            continue
        try:
            async with connection.transaction():
                rows = await (await connection.execute(_revisions(tool, schema))).fetchall()
        except psycopg.errors.Error:
            continue  # one that only looks like it
        found.append(Ledger(tool.name, f"{schema}.{table}", tuple(str(row[0]) for row in rows)))
    return tuple(found)


def _revisions(tool: Tool, schema: str) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY 1 DESC LIMIT {}").format(
        sql.SQL(tool.revision),
        sql.Identifier(schema, tool.table),
        sql.SQL(tool.where),
        sql.SQL(str(_MOST)),
    )
