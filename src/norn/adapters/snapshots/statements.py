"""Would the statements that an app has run still run? They are prepared, and never executed.

pg_stat_statements keeps what was run, with $1 for each constant:
https://www.postgresql.org/docs/current/pgstatstatements.html
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from norn.adapters.postgres.sessions import Session
from norn.domain.schema.findings import SEEN_MOST

_EXTENSION = sql.SQL("""
SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension AS x
  JOIN pg_catalog.pg_namespace AS n ON n.oid = x.extnamespace WHERE x.extname = 'pg_stat_statements'
""")
_SEEN = sql.SQL("""
SELECT s.query FROM {view} AS s JOIN pg_catalog.pg_roles AS r ON r.oid = s.userid
 WHERE r.rolname = {role} AND s.query ~* '^\\s*(select|insert|update|delete|merge|with|values|table)\\M'
   AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
 GROUP BY s.query ORDER BY sum(s.calls) DESC LIMIT {most}
""")
_PATH = sql.SQL("""
SELECT coalesce((SELECT pg_catalog.split_part(c.setting, '=', 2)
                   FROM pg_catalog.pg_db_role_setting AS s, pg_catalog.unnest(s.setconfig) AS c(setting)
                   LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = {role}
                   LEFT JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
                  WHERE s.setrole IN (0, r.oid) AND s.setdatabase IN (0, d.oid)
                    AND c.setting LIKE 'search_path=%'
                  ORDER BY s.setdatabase = 0, s.setrole = 0 LIMIT 1), '"$user", public')
""")


async def seen_statements(connection: Session, role: str) -> list[str] | None:
    """What the role has run in this database, most often first; None where the server does not keep it.

    Args:
        connection: in a transaction.
    """
    row = await (await connection.execute(_EXTENSION)).fetchone()
    if row is None:
        return None
    view = sql.SQL("{}.pg_stat_statements").format(sql.SQL(row[0]))
    try:
        async with connection.transaction():
            query = _SEEN.format(view=view, role=sql.Literal(role), most=sql.SQL(str(SEEN_MOST)))
            cursor = await connection.execute(query)
            return [str(row[0]) for row in await cursor.fetchall()]
    except psycopg.errors.Error:
        return None  # the extension is there, and not loaded; or the role may not read it


async def failing_statements(connection: Session, role: str, statements: Sequence[str]) -> dict[str, str]:
    """Those that cannot be prepared on the present schema, with PostgreSQL's words.

    Args:
        connection: in a transaction that is rolled back.
    """
    failing = {}
    async with connection.transaction(force_rollback=True):
        path = await (await connection.execute(_PATH.format(role=sql.Literal(role)))).fetchone()
        await connection.execute("SELECT pg_catalog.set_config('search_path', %s, true)", path)
        try:
            async with connection.transaction():
                await connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        except psycopg.errors.Error:
            pass  # names are looked up all the same, but for "$user"
        for statement in statements:
            try:
                async with connection.transaction(force_rollback=True):
                    # `binary` makes it the extended protocol, which takes one statement at a time.
                    await connection.execute(f"PREPARE norn_would AS {statement}".encode(), binary=True)
                    await connection.execute("DEALLOCATE norn_would")
            except psycopg.errors.OperationalError:
                raise
            except psycopg.errors.Error as error:
                failing[statement] = error.diag.message_primary or str(error)
    return failing
