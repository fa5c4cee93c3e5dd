"""A press on a page does no more than what was on the screen."""

from __future__ import annotations

import pytest

from norn.domain.verdict import Finding, Level, verdict_of
from norn.operations.rollback_request import RollbackRequest, Seen, in_spite_of

DROPPED = Finding("column_missing", Level.UNSAFE, "A column is not there any more.", {"subject": "books.title"})
OTHER = Finding("column_missing", Level.UNSAFE, "A column is not there any more.", {"subject": "books.author"})
DOUBT = Finding("target_unproven", Level.CAUTION, "It was live for a moment.", {})


@pytest.mark.parametrize(
    ("shown", "by_now", "goes_on"),
    [
        ((DROPPED,), (DROPPED,), True),
        ((DROPPED,), (DROPPED, DOUBT), True),
        ((DROPPED,), (OTHER,), False),
        ((DROPPED,), (DROPPED, OTHER), False),
        ((), (DROPPED,), False),
    ],
)
def test_a_force_counts_for_the_unsafe_findings_that_were_shown(
    shown: tuple[Finding, ...], by_now: tuple[Finding, ...], goes_on: bool
) -> None:
    request = RollbackRequest("shop", seen=Seen("", in_spite_of=in_spite_of(verdict_of(shown))))
    assert request.insists(verdict_of(by_now)) == goes_on


def test_a_plain_force_counts_for_all() -> None:
    assert RollbackRequest("shop", force=True).insists(verdict_of((DROPPED,)))
