"""What a database has of its own, outside of its contents: pg_dump leaves it out, and a restored one must have it.

Owner, locale and tablespace are given when it is made; privileges, settings (of the database, and of roles in it),
connection limit and comment are taken over from the live one. See pg_database and pg_db_role_setting in the manual.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import sql

from norn.adapters.postgres.sessions import Session

_PROPERTIES = """
SELECT to_jsonb(d) || jsonb_build_object(
           'owner', pg_get_userbyid(d.datdba), 'encoding_name', pg_encoding_to_char(d.encoding),
           'tablespace', t.spcname, 'comment', shobj_description(d.oid, 'pg_database'))
FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = %s
"""
_PRIVILEGES = """
SELECT pg_get_userbyid(nullif(grantee, 0)), privilege_type, is_grantable
FROM pg_database, aclexplode(datacl) WHERE datname = %s
"""
_SETTINGS = """
SELECT pg_get_userbyid(nullif(setrole, 0)), split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(setconfig) setting WHERE d.datname = %s
"""
_LISTS = {"local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries",
          "temp_tablespaces", "unix_socket_directories"}  # fmt: skip
"""Kept as lists of quoted names: given as one text they would become one name (GUC_LIST_QUOTE in PostgreSQL)."""


async def properties_of(session: Session, name: str) -> dict[str, Any] | None:
    """Its row of pg_database as JSON, with names instead of OIDs; None where there is no such database."""
    row = await (await session.execute(_PROPERTIES, (name,))).fetchone()
    return dict(row[0]) if row is not None else None


async def create_like(session: Session, name: str, live: str) -> None:
    """A new, empty database with the live one's owner, encoding, locale and tablespace; nobody connects to it yet."""
    found = await properties_of(session, live)
    assert found is not None
    await create(session, name, locale_of(found), owner=found["owner"], tablespace=found["tablespace"])
    await session.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))


def locale_of(properties: Mapping[str, Any]) -> dict[str, str]:
    """What a database of the same encoding and collation is made with."""
    names = ("encoding_name", "datlocprovider", "datcollate", "datctype", "datlocale", "daticulocale", "daticurules")
    return {name: str(properties[name]) for name in names if properties.get(name) is not None}


async def create(session: Session, name: str, found: Mapping[str, str], **more: str) -> None:
    """A new, empty database of a locale; `more`: owner, tablespace."""
    provider = {"c": "libc", "i": "icu", "b": "builtin"}[found["datlocprovider"]]
    options: list[tuple[str, sql.Composable]] = [
        ("TEMPLATE", sql.Identifier("template0")),
        ("ENCODING", sql.Literal(found["encoding_name"])),
        ("LOCALE_PROVIDER", sql.Identifier(provider)),
        ("LC_COLLATE", sql.Literal(found["datcollate"])),
        ("LC_CTYPE", sql.Literal(found["datctype"])),
        *((key.upper(), sql.Identifier(value)) for key, value in more.items()),
    ]
    locale = found.get("datlocale") or found.get("daticulocale")  # its name until PostgreSQL 16
    if locale is not None:
        options.append((f"{provider.upper()}_LOCALE", sql.Literal(locale)))
    if found.get("daticurules") is not None:
        options.append(("ICU_RULES", sql.Literal(found["daticurules"])))
    given = sql.SQL(" ").join(sql.SQL("{} = {}").format(sql.SQL(key), value) for key, value in options)
    await session.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), given))


async def take_over(session: Session, live: str, copy: str) -> None:
    """Give the copy what the live database has, and nothing else."""
    wanted, found = await properties_of(session, live), await properties_of(session, copy)
    assert wanted is not None
    assert found is not None
    database = sql.Identifier(copy)
    if found["owner"] != wanted["owner"]:
        owner = sql.Identifier(wanted["owner"])
        await session.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, owner))
    await _take_over_privileges(session, live, copy, wanted)
    await _take_over_settings(session, live, copy)
    await session.execute(
        sql.SQL("ALTER DATABASE {} WITH CONNECTION LIMIT {} IS_TEMPLATE {}").format(
            database, sql.Literal(wanted["datconnlimit"]), sql.Literal(wanted["datistemplate"])
        )
    )
    await session.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(wanted["comment"])))


async def _take_over_privileges(session: Session, live: str, copy: str, wanted: Mapping[str, Any]) -> None:
    database = sql.Identifier(copy)
    for who in {row[0] for row in await _rows(session, _PRIVILEGES, copy)} | {None}:
        await session.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(database, _role(who)))
    if wanted["datacl"] is None:  # what PostgreSQL gives everybody: nothing was ever granted or revoked
        await session.execute(sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO PUBLIC").format(database))
        await session.execute(sql.SQL("GRANT ALL ON DATABASE {} TO {}").format(database, _role(wanted["owner"])))
        return
    for who, privilege, grantable in await _rows(session, _PRIVILEGES, live):
        option = sql.SQL(" WITH GRANT OPTION" if grantable else "")
        await session.execute(
            sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(sql.SQL(privilege), database, _role(who), option)
        )


async def _take_over_settings(session: Session, live: str, copy: str) -> None:
    database = sql.Identifier(copy)
    for who in {row[0] for row in await _rows(session, _SETTINGS, copy)}:
        await session.execute(sql.SQL("{} RESET ALL").format(_altering(who, database)))
    for who, name, value in await _rows(session, _SETTINGS, live):
        setting = sql.SQL("{} SET {}").format(_altering(who, database), sql.Identifier(name))
        if name not in _LISTS:
            await session.execute(sql.SQL("{} TO {}").format(setting, sql.Literal(value)))
            continue
        async with session.transaction():
            await session.execute("SELECT set_config(%s, %s, true)", (name, value))
            await session.execute(sql.SQL("{} FROM CURRENT").format(setting))


def _altering(role: str | None, database: sql.Identifier) -> sql.Composed:
    if role is None:
        return sql.SQL("ALTER DATABASE {}").format(database)
    return sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(role), database)


def _role(name: str | None) -> sql.Composable:
    return sql.SQL("PUBLIC") if name is None else sql.Identifier(name)


async def _rows(session: Session, query: str, database: str) -> list[tuple[Any, ...]]:
    return await (await session.execute(query, (database,))).fetchall()
