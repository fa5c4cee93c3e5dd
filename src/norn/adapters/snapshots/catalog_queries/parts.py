"""Conditions and expressions that several queries have in common."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

FIRST_OID = sql.SQL("16384")
"""FirstNormalObjectId: below it is what a new database has."""
OURS = sql.SQL("n.nspname <> 'information_schema' AND NOT starts_with(n.nspname::text, 'pg_')")


def mine(catalog: LiteralString, alias: LiteralString) -> sql.Composed:
    """A condition: the object is no member of an extension, and no function or cast that comes with a range type."""
    internal = sql.SQL(", 'i'" if catalog in ("pg_proc", "pg_cast") else "")
    return sql.SQL(
        "NOT EXISTS (SELECT FROM pg_depend AS e "
        "WHERE e.classid = {}::regclass AND e.objid = {}.oid AND e.deptype IN ('e'{}))"
    ).format(sql.Literal(catalog), sql.SQL(alias), internal)


def acl(acl: LiteralString, kind: LiteralString, owner: LiteralString) -> sql.Composed:
    """An expression: who may do what (`*`: and may pass it on), where no list at all means the default one."""
    return sql.SQL("""(
    SELECT string_agg(g.who || '=' || g.what, '; ' ORDER BY g.who COLLATE "C") FROM (
        SELECT p.who, string_agg(p.privilege_type || CASE WHEN p.passing THEN '*' ELSE '' END, ','
                                 ORDER BY p.privilege_type COLLATE "C") AS what
          FROM (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS who,
                       x.privilege_type, bool_or(x.is_grantable) AS passing
                  FROM aclexplode(coalesce({acl}, acldefault({kind}, {owner}))) AS x GROUP BY 1, 2) AS p
         GROUP BY p.who) AS g)""").format(acl=sql.SQL(acl), kind=sql.SQL(kind), owner=sql.SQL(owner))


def in_order(options: LiteralString, prefix: LiteralString = "") -> sql.Composed:
    """An expression: the items of a text array, NULL where there is none."""
    return sql.SQL("(SELECT string_agg({} || o.o, ', ' ORDER BY o.o COLLATE \"C\") FROM unnest({}) AS o(o))").format(
        sql.Literal(prefix), sql.SQL(options)
    )
