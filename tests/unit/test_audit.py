"""What the audit says of a request, and how what fails again and again is bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from norn.domain import audit
from norn.domain.audit import MOST_TALLIED, OTHERS, WINDOW_S, Entry, Outcome, Tally, Who
from norn.errors import DatabaseUnavailable
from norn.operations.audit import Attempts

ADA = Who("ada", "laptop", "10.0.0.7")


@pytest.mark.parametrize(
    ("kind", "params", "before", "after"),
    [
        ("deploy", {"sha": "1", "force": False, "snapshot": True}, {"imageTag": "shop:1"}, None),
        ("deploy", {"force": True, "snapshot": False}, {"imageTag": "shop:1"}, {"force": True, "snapshot": False}),
        ("restore", {"snapshot": "a.dump", "into": None, "confirm": True}, None, {"snapshot": "a.dump"}),
        ("rollback", {"targetId": "x", "ensure": False, "automatic": True}, None, {"automatic": True}),
        ("restart", {}, None, None),
    ],
)
def test_a_request_says_what_was_live_and_what_is_unusual_about_it(
    kind: str, params: dict[str, Any], before: object, after: object
) -> None:
    entry = audit.request(ADA, "01", "shop", kind, params, "because", "shop:1")
    assert (entry.action, entry.outcome, entry.before, entry.after) == (f"{kind}.request", "accepted", before, after)


def test_a_deployment_says_from_which_image_to_which() -> None:
    entry = audit.with_image(audit.request(ADA, "01", "shop", "rollback", {}, "", None), "shop:1", "shop:2")
    assert (entry.before, entry.after) == ({"imageTag": "shop:2"}, {"imageTag": "shop:1"})


def test_an_end_that_failed_says_why_and_changes_no_image() -> None:
    error = {"code": "rollout_failed", "message": "it crashes", "output": "a long one"}
    entry = audit.end("01", "shop", "rollback", "failed", "ada", error, "shop:1", "shop:2")
    assert (entry.action, entry.outcome, entry.reason) == ("rollback.end", "failed", "rollout_failed: it crashes")
    assert (entry.before, entry.after) == ({"imageTag": "shop:2"}, None)


def test_texts_are_bounded_and_hold_nothing_that_postgresql_cannot_keep() -> None:
    row = Entry(Who("a\x00da"), "refused", "x" * 5_000, Outcome.REFUSED, reason="y" * 50_000).to_row()
    assert (row["actor"], len(row["subject"]), len(row["reason"])) == ("a\ufffdda", 300, 2_000)


# ---- what fails again and again ----------------------------------------------------------------------------------


def test_the_first_failure_counts_at_once_and_those_after_it_once_a_minute() -> None:
    tally = Tally()
    assert [tally.note("10.0.0.7", at)[1] for at in (0.0, 1.0, 2.0)] == [True, False, False]
    assert tally.due(WINDOW_S - 1) == {}
    assert tally.due(WINDOW_S) == {"10.0.0.7": 2}
    assert tally.due(WINDOW_S * 2) == {}
    assert tally.note("10.0.0.7", WINDOW_S * 2)[1]


def test_addresses_beyond_the_bound_share_an_entry() -> None:
    tally = Tally()
    written = [tally.note(f"10.0.{number // 256}.{number % 256}", 0.0) for number in range(10_000)]
    assert sum(now for _, now in written) == MOST_TALLIED + 1
    assert tally.due(WINDOW_S) == {OTHERS: 10_000 - MOST_TALLIED - 1}


class Kept:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.away = False

    async def record(self, entry: Entry) -> None:
        if self.away:
            raise DatabaseUnavailable("away")
        self.entries.append(entry)


async def test_what_was_counted_is_written_with_how_often_it_was() -> None:
    kept = Kept()
    attempts = Attempts(kept)  # type: ignore[arg-type]
    for _ in range(1_000):
        await attempts.note(Who("", "", "10.0.0.7"), "sign-in.failed", "", "not known")
    await attempts.write_due(asyncio.get_running_loop().time() + WINDOW_S)
    assert [entry.after for entry in kept.entries] == [{"attempts": 1}, {"attempts": 999}]
    assert {entry.who.address for entry in kept.entries} == {"10.0.0.7"}


async def test_what_one_token_may_not_do_has_an_entry_for_each_thing() -> None:
    kept = Kept()
    attempts = Attempts(kept)  # type: ignore[arg-type]
    who = Who("ada", "on-call", "10.0.0.7")
    for subject in ("POST /api/apps/shop/deploy", "POST /api/apps/shop/rollback", "POST /api/apps/shop/rollback"):
        await attempts.note(who, "refused", subject, "on-call may not do that")
    assert [entry.subject for entry in kept.entries] == ["POST /api/apps/shop/deploy", "POST /api/apps/shop/rollback"]


async def test_what_one_token_tries_does_not_hide_what_a_stranger_tries() -> None:
    kept = Kept()
    attempts = Attempts(kept)  # type: ignore[arg-type]
    for number in range(2 * MOST_TALLIED):
        await attempts.note(Who("eve", "viewer", "10.0.0.8"), "refused", f"POST /api/apps/{number}/deploy", "not hers")
    await attempts.note(Who("", "", "10.0.0.7"), "sign-in.failed", "", "not known")
    assert (kept.entries[-1].action, kept.entries[-1].who.address) == ("sign-in.failed", "10.0.0.7")
    assert len(kept.entries) == MOST_TALLIED + 2, "a bound, the others as one, and the stranger"


async def test_a_database_that_is_away_keeps_nobody_from_being_refused() -> None:
    kept = Kept()
    kept.away = True
    await Attempts(kept).note(Who("", "", "10.0.0.7"), "refused", "GET /", "no token")  # type: ignore[arg-type]
