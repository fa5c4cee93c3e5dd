"""Tokens and sessions on a real PostgreSQL: what is valid, what all servers are told, and what goes with what."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.fixtures.postgres import serving

from norn.adapters.postgres.access import PostgresTokens
from norn.adapters.postgres.connections import Connections
from norn.adapters.postgres.schema import ensure_database, migrate
from norn.adapters.postgres.store import PostgresStore
from norn.domain.access import Role
from norn.domain.audit import Who
from norn.domain.ports.access import NewToken, Token
from norn.errors import NameTaken
from norn.operations.access import hash_of
from norn.operations.services import new_id

pytestmark = pytest.mark.xdist_group("notifications")

ADA = Who("ada")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    for server in serving(18):
        url = asyncio.run(ensure_database(server.url, "norn"))
        migrate(url)
        yield url


@pytest.fixture
async def connections(url: str) -> AsyncIterator[Connections]:
    connections = Connections(url)
    await connections.open()
    yield connections
    await connections.close()


@pytest.fixture
def tokens(connections: Connections) -> PostgresTokens:
    return PostgresTokens(connections)


async def add(tokens: PostgresTokens, secret: str, *, name: str = "", lasts_s: float | None = None) -> Token:
    new = NewToken(name or f"token-{next(_numbers)}", Role.OPERATOR, ["shop", "mail"], lasts_s)
    return await tokens.add(new_id(), hash_of(secret), new, ADA)


async def test_what_is_found_is_what_was_made(tokens: PostgresTokens) -> None:
    made = await add(tokens, "made", lasts_s=3_600)
    found = await tokens.find(hash_of("made"))
    assert found is not None
    assert (found.grant.token_name, found.grant.role, found.home) == (made.name, Role.OPERATOR, False)
    assert found.grant.apps == frozenset({"shop", "mail"})
    assert found.left_s is not None
    assert 0 < found.left_s <= 3_600
    assert hash_of("made") in {known.hash for known in await tokens.valid()}


async def test_the_secret_itself_is_not_kept(tokens: PostgresTokens, connections: Connections) -> None:
    await add(tokens, "s3cret-of-somebody")
    rows = await connections.all("SELECT tokens::text AS row FROM tokens")
    assert not any("s3cret-of-somebody" in row["row"] for row in rows)


async def test_an_expired_one_is_not_valid_and_stays_in_the_list(tokens: PostgresTokens) -> None:
    made = await add(tokens, "over", lasts_s=0.0)
    assert await tokens.find(hash_of("over")) is None
    assert hash_of("over") not in {known.hash for known in await tokens.valid()}
    assert [token.expired for token in await tokens.tokens() if token.id == made.id] == [True]


async def test_a_revoked_one_is_neither_and_its_name_is_free_again(tokens: PostgresTokens) -> None:
    await add(tokens, "first", name="again")
    with pytest.raises(NameTaken):
        await add(tokens, "second", name="again")
    revoked = await tokens.revoke("again", ADA)
    assert revoked is not None
    assert await tokens.revoke("again", ADA) is None
    assert await tokens.find(hash_of("first")) is None
    assert "again" not in {token.name for token in await tokens.tokens()}
    await add(tokens, "second", name="again")


async def test_sessions_end_with_their_token_or_by_themselves(tokens: PostgresTokens) -> None:
    made = await add(tokens, "browses")
    await tokens.begin_session(hash_of("long"), made.id, "192.0.2.1", 3_600)
    await tokens.begin_session(hash_of("over"), made.id, "192.0.2.1", 0)
    session = await tokens.session(hash_of("long"))
    assert session is not None
    assert session.token.grant.token_id == made.id
    assert await tokens.session(hash_of("over")) is None
    await tokens.revoke(made.name, ADA)
    assert await tokens.session(hash_of("long")) is None


async def test_a_session_lasts_no_longer_than_its_token(tokens: PostgresTokens) -> None:
    made = await add(tokens, "soon over", lasts_s=60)
    await tokens.begin_session(hash_of("longer"), made.id, "192.0.2.1", 3_600)
    session = await tokens.session(hash_of("longer"))
    assert session is not None
    assert session.left_s <= 60


async def test_who_signs_in_removes_the_sessions_that_are_over(
    tokens: PostgresTokens, connections: Connections
) -> None:
    made = await add(tokens, "tidy")
    await tokens.begin_session(hash_of("past"), made.id, "192.0.2.1", 0)
    await tokens.begin_session(hash_of("present"), made.id, "192.0.2.1", 60)
    rows = await connections.all("SELECT hash FROM sessions WHERE token_id = %(id)s", id=made.id)
    assert [bytes(row["hash"]) for row in rows] == [hash_of("present")]


async def test_every_change_is_said_to_all_servers_by_the_tokens_id(
    tokens: PostgresTokens, connections: Connections
) -> None:
    said: list[str] = []
    async with aclosing(PostgresStore(connections).notifications()) as heard:  # type: ignore[type-var]
        await anext(heard)  # it listens
        made = await add(tokens, "heard")
        await tokens.begin_session(hash_of("heard"), made.id, "192.0.2.1", 60)
        await tokens.end_session(hash_of("heard"))
        await tokens.revoke(made.name, ADA)
        while said.count(f"access:{made.id}") < 3:
            said.append(await anext(heard))


async def test_last_use_never_goes_back(tokens: PostgresTokens) -> None:
    made = await add(tokens, "used")
    await tokens.used({made.id: 5.0})
    first = await tokens.token(made.name)
    await tokens.used({made.id: 3_600.0})
    second = await tokens.token(made.name)
    assert first is not None
    assert second is not None
    assert first.last_used_at is not None
    assert second.last_used_at == first.last_used_at


async def test_homes_get_names_of_their_own_and_a_revoked_one_stays_revoked(tokens: PostgresTokens) -> None:
    async def enter(secret: str) -> bool:
        return await tokens.enter_home(new_id(), hash_of(secret), "admin@host")

    async def name(secret: str) -> Any:
        found = await tokens.find(hash_of(secret))
        return found.grant.token_name if found is not None else None

    assert [await enter(secret) for secret in ("one", "two", "one")] == [True, True, True]
    assert [await name(secret) for secret in ("one", "two")] == ["admin@host", "admin@host-2"]
    await tokens.revoke("admin@host", ADA)
    assert await enter("one") is False
    assert await name("one") is None
    assert await enter("three") is True
    assert await name("three") == "admin@host"
