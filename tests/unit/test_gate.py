"""The gate: what is in memory lets in without the database, and what was revoked does not."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from norn.domain.access import Grant, Role
from norn.domain.ports.access import Known, KnownSession, Tokens
from norn.errors import DatabaseUnavailable
from norn.operations import access
from norn.operations.access import Gate, hash_of

SECRET = "a" * 43


def known(secret: str = SECRET, left_s: float | None = None) -> Known:
    return Known(hash_of(secret), Grant(f"id-of-{secret[:1]}", secret[:1], Role.VIEWER, None), False, left_s)


@dataclass
class Database:
    """Tokens that are kept, and how often they were asked for."""

    kept: dict[bytes, Known] = field(default_factory=dict)
    sessions: dict[bytes, KnownSession] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    used_s: dict[str, float] = field(default_factory=dict)
    away: bool = False
    meanwhile: Any = None

    async def valid(self) -> list[Known]:
        found = list(self.kept.values())
        if self.meanwhile:
            self.meanwhile()
        return found

    async def find(self, hash_: bytes) -> Known | None:
        self.asked.append("token")
        if self.away:
            raise DatabaseUnavailable("It is away.")
        return self.kept.get(hash_)

    async def session(self, hash_: bytes) -> KnownSession | None:
        self.asked.append("session")
        return self.sessions.get(hash_)

    async def used(self, ages_s: dict[str, float]) -> None:
        self.used_s = ages_s
        self.asked.append("used")


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    database: Database = field(default_factory=Database)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.database.kept[hash_of(SECRET)] = known()
        self.gate = Gate(cast("Tokens", self.database), self.clock)

    def revoke(self) -> None:
        self.database.kept.clear()
        self.database.sessions.clear()
        self.gate.forget(known().grant.token_id)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_right_token_lets_in_without_a_question_to_the_database(world: World) -> None:
    await world.gate.renew()
    assert await world.gate.token(SECRET) == known()
    assert world.database.asked == []


async def test_one_that_was_made_a_moment_ago_is_looked_up(world: World) -> None:
    assert await world.gate.token(SECRET) == known()
    assert world.database.asked == ["token"]


async def test_a_wrong_one_lets_nobody_in(world: World) -> None:
    await world.gate.renew()
    assert [await world.gate.token(secret) for secret in ("", "b" * 43, SECRET[:-1], f"{SECRET}a")] == [None] * 4


async def test_without_a_question_to_the_database_only_what_is_in_memory_lets_in(world: World) -> None:
    assert await world.gate.token(SECRET, ask=False) is None
    await world.gate.renew()
    assert await world.gate.token(SECRET, ask=False) == known()
    assert world.database.asked == []


async def test_a_revoked_one_lets_nobody_in_from_then_on(world: World) -> None:
    await world.gate.renew()
    world.revoke()
    assert await world.gate.token(SECRET) is None


async def test_what_was_read_before_a_revocation_is_not_believed_after_it(world: World) -> None:
    world.database.meanwhile = world.revoke
    await world.gate.renew()
    assert await world.gate.token(SECRET) is None


async def test_what_could_not_be_read_anew_for_five_seconds_is_not_believed(world: World) -> None:
    await world.gate.renew()
    world.database.away = True
    world.clock.now += 4.9
    assert await world.gate.token(SECRET) == known()
    world.clock.now += 0.2
    with pytest.raises(DatabaseUnavailable):
        await world.gate.token(SECRET)


async def test_one_that_expires_within_those_seconds_lets_nobody_in_after_that(world: World) -> None:
    world.database.kept[hash_of(SECRET)] = known(left_s=2.0)
    await world.gate.renew()
    world.database.kept.clear()  # it has expired there
    world.clock.now += 2.1
    assert await world.gate.token(SECRET) is None


async def test_secrets_are_compared_by_their_hashes_and_in_constant_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(access, "hmac", type("Module", (), {"compare_digest": staticmethod(compare)}))
    await world.gate.renew()
    await world.gate.token(SECRET)
    assert compared == [(hash_of(SECRET), hash_of(SECRET))]
    assert SECRET.encode() not in world.gate._by_hash


async def test_a_row_of_another_hash_lets_nobody_in(world: World) -> None:
    world.database.kept[hash_of("b" * 43)] = known()  # what an index that is broken might give
    assert await world.gate.token("b" * 43) is None


async def test_a_session_is_asked_for_once_in_five_seconds_and_ends_with_its_token(world: World) -> None:
    world.database.sessions[hash_of("s")] = KnownSession(hash_of("s"), known(), 3_600.0)
    assert await world.gate.session("s") is not None
    assert await world.gate.session("s") is not None
    assert world.database.asked == ["session"]
    world.revoke()
    assert await world.gate.session("s") is None


async def test_use_is_written_once_a_minute(world: World) -> None:
    await world.gate.renew()
    await world.gate.token(SECRET)
    world.clock.now += 1.5
    await world.gate.write_use()
    assert world.database.used_s == {"id-of-a": 1.5}
    await world.gate.token(SECRET)
    world.clock.now += 58.0
    await world.gate.write_use()
    assert world.database.asked == ["used"]
    world.clock.now += 3.0
    await world.gate.write_use()
    assert world.database.used_s == {"id-of-a": 61.0}
