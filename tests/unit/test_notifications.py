"""Notifications: which end is which event, what is said of it, how it is signed, and how long it is tried."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norn.config import load_settings
from norn.domain.infraspec import Receiver
from norn.domain.notifications import (
    FIRST_PAUSE_S,
    LAST_ATTEMPT,
    LONGEST_PAUSE_S,
    Answer,
    Ending,
    Event,
    Result,
    body_of,
    derived_key,
    event_of,
    judge,
    key_text,
    pause_after,
    payload_of,
    place_of,
    receivers_of,
    signed_headers,
)
from norn.domain.operations import OperationKind, OperationStatus
from norn.domain.ports import Source
from norn.domain.ports.notifications import Delivery, Unaddressed
from norn.domain.scrubbing import MARK, Scrubber
from norn.errors import DatabaseUnavailable, SettingInvalid
from norn.operations.notifications import Notifications

AT = datetime(2026, 11, 24, 3, 0, 0, 123_000, UTC)


def ending(kind: str, status: str, *, committed: bool = False, automatic: bool = False, **more: Any) -> Ending:
    return Ending(
        "01jop", "shop", OperationKind(kind), OperationStatus(status), committed, automatic, AT, "ada", **more
    )


@pytest.mark.parametrize(
    ("kind", "status", "committed", "automatic", "event"),
    [
        ("rollback", "succeeded", True, False, "rollback"),
        ("rollback", "succeeded", True, True, "rollback.automatic"),
        ("rollback", "cancelled", True, False, "rollback"),  # only its bake was ended
        ("rollback", "cancelled", True, True, "rollback.automatic"),
        ("rollback", "cancelled", False, False, None),
        ("rollback", "failed", False, False, "rollback.failed"),
        ("rollback", "failed", True, True, "rollback.failed"),
        ("deploy", "failed", False, False, "deploy.failed"),
        ("deploy", "failed", True, False, "deploy.failed"),  # in its bake
        ("deploy", "cancelled", False, False, None),
        ("deploy", "cancelled", True, False, None),
        ("deploy", "succeeded", True, False, None),
        ("restore", "failed", False, False, "restore.failed"),
        ("restore", "succeeded", True, False, None),
        ("restore", "cancelled", False, False, None),
        *((kind, "failed", False, False, None) for kind in ("restart", "snapshot", "verify", "prune", "adopt")),
    ],
)
def test_which_end_is_which_event(kind: str, status: str, committed: bool, automatic: bool, event: str | None) -> None:
    assert event_of(ending(kind, status, committed=committed, automatic=automatic)) == event


def test_the_payload_says_what_happened_and_nothing_that_is_long_or_secret() -> None:
    failed = ending(
        "rollback",
        "failed",
        reason="typo",
        error={"code": "rollout_failed", "message": "It ends.", "hint": "…", "output": "SECRET=1"},
        image_tag="shop:a",
        from_image_tag="shop:b",
        verdict={"level": "caution", "findings": [{"code": "x"}]},
    )
    assert payload_of(Event.ROLLBACK_FAILED, failed) == {
        "id": "msg_01jop",
        "event": "rollback.failed",
        "at": "2026-11-24T03:00:00.123Z",
        "app": "shop",
        "operationId": "01jop",
        "kind": "rollback",
        "outcome": "failed",
        "imageTag": "shop:a",
        "fromImageTag": "shop:b",
        "requestedBy": "ada",
        "reason": "typo",
        "error": {"code": "rollout_failed", "message": "It ends."},
        "verdict": {"level": "caution"},
    }


def test_what_there_is_not_is_null() -> None:
    payload = payload_of(Event.RESTORE_FAILED, ending("restore", "failed"))
    assert [payload[name] for name in ("imageTag", "fromImageTag", "error", "verdict")] == [None] * 4


def test_the_signature_is_that_of_standard_webhooks() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")  # the example key of the specification
    body = b'{"test": 2432232314}'
    assert signed_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    by_hand = hmac.new(key, b"a.7." + body, hashlib.sha256).digest()
    assert signed_headers(key, "a", 7, body)["webhook-signature"] == f"v1,{base64.b64encode(by_hand).decode()}"


def test_the_key_is_the_same_on_each_server_and_another_one_than_the_installations() -> None:
    mine = derived_key(b"k" * 32)
    assert mine == derived_key(b"k" * 32) != derived_key(b"l" * 32)
    assert len(mine) == 32
    assert mine != b"k" * 32
    assert base64.b64decode(key_text(mine).removeprefix("whsec_")) == mine


def test_the_body_is_the_payload_as_it_is() -> None:
    payload = payload_of(Event.ROLLBACK, ending("rollback", "succeeded", reason="für Ä"))
    assert json.loads(body_of(payload)) == payload
    assert list(json.loads(body_of(payload))) == list(payload)


@given(st.integers(1, LAST_ATTEMPT - 1))
def test_pauses_grow_and_are_bounded(attempt: int) -> None:
    pause, following = pause_after(attempt), pause_after(attempt + 1)
    assert pause is not None
    assert FIRST_PAUSE_S <= pause <= LONGEST_PAUSE_S
    assert following is None or following >= pause


@given(st.integers(LAST_ATTEMPT, 10**9))
def test_after_the_last_attempt_there_is_none(attempt: int) -> None:
    assert pause_after(attempt) is None


def test_the_second_attempt_comes_soon_and_the_last_one_after_about_a_day() -> None:
    pauses = [pause_after(attempt) or 0.0 for attempt in range(1, LAST_ATTEMPT)]
    assert pauses[0] <= 1
    assert 20 * 3600 < sum(pauses) < 28 * 3600


@pytest.mark.parametrize(
    ("status", "why", "attempt", "result", "pause_s", "error"),
    [
        (200, "", 1, "delivered", None, ""),
        (204, "", LAST_ATTEMPT, "delivered", None, ""),
        (410, "", 1, "undelivered", None, "answered 410: it wants no more"),
        (500, "", 1, "retried", 1.0, "answered 500"),
        (404, "", 2, "retried", 3.0, "answered 404"),
        (302, "", 1, "retried", 1.0, "answered 302; redirects are not followed"),
        (None, "no answer within 5 s", 1, "retried", 1.0, "no answer within 5 s"),
        (503, "", LAST_ATTEMPT, "undelivered", None, "answered 503"),
    ],
)
def test_what_becomes_of_an_attempt(
    status: int | None, why: str, attempt: int, result: str, pause_s: float | None, error: str
) -> None:
    judgement = judge(Answer(status, why), attempt)
    assert (judgement.result, judgement.pause_s, judgement.error) == (Result(result), pause_s, error)


def test_receivers_hear_what_they_want_each_once() -> None:
    own = (Receiver("http://a"), Receiver("http://b", ("rollback",)), Receiver("http://c", ("deploy.failed",)))
    assert receivers_of("rollback", ("http://s", "http://a"), own) == ("http://s", "http://a", "http://b")
    assert receivers_of("restore.failed", (), own[1:]) == ()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://user:pw@hooks.example.com/T0/s3cret?token=x#y", "https://hooks.example.com"),
        ("http://h:8080/x", "http://h:8080"),
        ("http://[::1]:9000/x", "http://[::1]:9000"),
        ("http://u:p@[::1]/x@y", "http://[::1]"),
        ("http://[::1/s3cret", ""),
        ("http://h:99999/s3cret", ""),
        ("http:///s3cret", ""),
    ],
)
def test_of_a_url_only_the_place_is_shown(url: str, place: str) -> None:
    assert place_of(url) == place


# ---- settings ----------------------------------------------------------------------------------------------------


def setting(name: str, value: str) -> Any:
    return load_settings({"NORN_HOME": "/nonexistent", name: value})


@pytest.mark.parametrize(
    ("given_", "urls"),
    [
        ("https://a/x", ("https://a/x",)),
        ("https://a/x, http://b:1/?q=1,2", ("https://a/x", "http://b:1/?q=1,2")),
        ("https://a https://b\nhttps://a,", ("https://a", "https://b")),
        ("https://a,https://b", ("https://a", "https://b")),
    ],
)
def test_receivers_of_the_installation(given_: str, urls: tuple[str, ...]) -> None:
    assert setting("NORN_NOTIFY", given_).notify == urls


def test_receivers_may_be_a_list_in_norn_toml(tmp_path: Path) -> None:
    (tmp_path / "norn.toml").write_text('notify = ["https://a/x", "http://b"]\n')
    assert load_settings({"NORN_HOME": str(tmp_path)}).notify == ("https://a/x", "http://b")


@pytest.mark.parametrize("wrong", ["ftp://a/t0ken", "a/t0ken", "https://", "https://a:x/t0ken", "https://a t0ken"])
def test_a_wrong_receiver_is_refused_and_not_repeated(wrong: str) -> None:
    with pytest.raises(SettingInvalid) as refused:
        setting("NORN_NOTIFY", wrong)
    assert "t0ken" not in refused.value.message + refused.value.hint


def test_a_key_of_ones_own() -> None:
    assert setting("NORN_NOTIFY_KEY", key_text(b"x" * 24)).notify_key == b"x" * 24
    assert load_settings({"NORN_HOME": "/nonexistent"}).notify_key is None


@pytest.mark.parametrize(
    "wrong",
    ["whsec_AAAA", "whsec_kurz", key_text(b"x" * 23), key_text(b"x" * 65), key_text(b"x" * 32)[6:], "whsec_!!!!"],
)
def test_a_key_that_is_none_is_refused_and_not_repeated(wrong: str) -> None:
    with pytest.raises(SettingInvalid) as refused:
        setting("NORN_NOTIFY_KEY", wrong)
    assert wrong not in refused.value.message


# ---- taking them out of the outbox -------------------------------------------------------------------------------


class Recorded:
    """An outbox with one delivery, whose database goes away when it is to be settled; and a way out."""

    def __init__(self) -> None:
        self.claims = 0
        self.posts: list[tuple[str, Mapping[str, str], bytes]] = []
        self.settled = asyncio.Event()

    async def unaddressed(self, _limit: int) -> Sequence[Unaddressed]:
        return ()

    async def claim(self, _claim_s: float, _limit: int) -> Sequence[Delivery]:
        self.claims += 1
        return [Delivery("msg_1", "http://h/t0ken", self.claims, AT, {"id": "msg_1"})] if self.claims < 3 else []

    async def settle(self, delivery: Delivery, _judgement: object) -> None:
        if delivery.attempt == 1:
            raise DatabaseUnavailable("away")
        self.settled.set()

    async def next_due_s(self) -> float | None:
        return None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.posts.append((url, headers, body))
        return Answer(200)


async def test_a_delivery_that_could_not_be_settled_does_not_end_the_sending() -> None:
    recorded = Recorded()

    async def installation_key() -> bytes:
        return b"k" * 32

    told: list[Result] = []
    notifications = Notifications(
        cast("Any", recorded), cast("Source", None), recorded, installation_key, told=told.append
    )
    running = asyncio.create_task(notifications.run())
    async with asyncio.timeout(60):
        await recorded.settled.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert told == [Result.DELIVERED, Result.DELIVERED]
    url, headers, body = recorded.posts[1]
    assert (url, body) == ("http://h/t0ken", b'{"id":"msg_1"}')
    assert headers == signed_headers(derived_key(b"k" * 32), "msg_1", int(AT.timestamp()), body)


async def test_why_receivers_are_not_known_yet_is_kept_without_what_is_secret() -> None:
    kept: list[str] = []

    class Unreadable:
        """An outbox with a notification of an app whose infraspec cannot be read."""

        async def address_later(self, _id: str, _urls: object, _pause_s: float, why: str) -> None:
            kept.append(why)

        async def app(self, name: str) -> str:
            return name

        async def infraspec(self, _app: str) -> object:
            raise DatabaseUnavailable("The repository at hunter2 does not answer.")

    async def installation_key() -> bytes:
        return b"k" * 32

    parts = cast("Any", Unreadable())
    notifications = Notifications(parts, parts, parts, installation_key, hides=lambda _app: Scrubber(["hunter2"]))
    await notifications._address(Unaddressed("msg_1", "shop", Event.ROLLBACK, 0))
    assert kept == [f"The repository at {MARK} does not answer."]
