"""Tokens and sessions on PostgreSQL (the protocol is `norn.domain.ports.access.Tokens`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import errors as pg

from norn.adapters.postgres import access_queries as queries
from norn.adapters.postgres.audit import add_entries
from norn.adapters.postgres.connections import Connections
from norn.adapters.postgres.rows import Row
from norn.domain.access import Grant, Role
from norn.domain.audit import NORN, Entry, Outcome, Who
from norn.domain.ports.access import Known, KnownSession, NewToken, Token
from norn.errors import NameTaken


class PostgresTokens:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def valid(self) -> Sequence[Known]:
        return [_to_known(row) for row in await self._connections.all(queries.VALID)]

    async def find(self, hash_: bytes) -> Known | None:
        rows = await self._connections.all(queries.FIND, hash=hash_)
        return _to_known(rows[0]) if rows else None

    async def token(self, name: str) -> Token | None:
        rows = await self._connections.all(queries.TOKEN, name=name)
        return _to_token(rows[0]) if rows else None

    async def tokens(self) -> Sequence[Token]:
        return [_to_token(row) for row in await self._connections.all(queries.TOKENS)]

    async def add(self, id_: str, hash_: bytes, new: NewToken, who: Who) -> Token:
        apps = sorted(new.apps) if new.apps is not None else None
        try:
            async with self._connections.transaction() as connection:
                values: dict[str, Any] = {"id": id_, "hash": hash_, "name": new.name, "role": new.role.value}
                values |= {"apps": apps, "lasts_s": new.lasts_s, "by": who.actor}
                row = await (await connection.execute(queries.ADD, values)).fetchone()
                assert row is not None
                token = _to_token(row)
                entry = Entry(who, "token.create", token.name, Outcome.DONE, after=token.gives())
                await add_entries(connection, [entry])
        except pg.UniqueViolation as error:
            raise NameTaken(
                f"There is a token {new.name!r} already.", hint="Revoke it, or take another name."
            ) from error
        return token

    async def enter_home(self, id_: str, hash_: bytes, name: str) -> bool:
        number = 1
        while True:
            rows = await self._connections.all(queries.HOME, hash=hash_)
            if rows:
                valid: bool = rows[0]["valid"]
                return valid
            try:
                await self._add_home(id_, hash_, name if number == 1 else f"{name}-{number}")
            except pg.UniqueViolation:  # another home of this machine has the name
                number += 1

    async def _add_home(self, id_: str, hash_: bytes, name: str) -> None:
        async with self._connections.transaction() as connection:
            values = {"id": id_, "hash": hash_, "name": name}
            if await (await connection.execute(queries.ADD_HOME, values)).fetchone() is not None:
                gives = {"role": Role.ADMIN.value, "home": True}
                await add_entries(connection, [Entry(NORN, "token.create", name, Outcome.DONE, after=gives)])

    async def revoke(self, name: str, who: Who) -> Token | None:
        async with self._connections.transaction() as connection:
            row = await (await connection.execute(queries.REVOKE, {"name": name, "by": who.actor})).fetchone()
            if row is None:
                return None
            token = _to_token(row)
            entry = Entry(who, "token.revoke", token.name, Outcome.DONE, before=token.gives())
            await add_entries(connection, [entry])
            return token

    async def used(self, ages_s: Mapping[str, float]) -> None:
        await self._connections.do(queries.USED, ids=list(ages_s), ages_s=list(ages_s.values()))

    async def begin_session(self, hash_: bytes, token_id: str, address: str, lasts_s: float) -> None:
        await self._connections.do(
            queries.BEGIN_SESSION, hash=hash_, token_id=token_id, address=address, lasts_s=lasts_s
        )

    async def session(self, hash_: bytes) -> KnownSession | None:
        rows = await self._connections.all(queries.SESSION, hash=hash_)
        if not rows:
            return None
        return KnownSession(bytes(rows[0]["session_hash"]), _to_known(rows[0]), rows[0]["session_left_s"])

    async def end_session(self, hash_: bytes) -> None:
        await self._connections.do(queries.END_SESSION, hash=hash_)


def _to_known(row: Row) -> Known:
    apps = frozenset(row["apps"]) if row["apps"] is not None else None
    grant = Grant(row["id"], row["name"], Role(row["role"]), apps, row["expires_at"])
    return Known(bytes(row["hash"]), grant, row["home"], row["left_s"])


def _to_token(row: Row) -> Token:
    return Token(
        id=row["id"],
        name=row["name"],
        role=Role(row["role"]),
        apps=row["apps"],
        home=row["home"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        expired=row["expired"],
    )
