"""Which snapshots get a test restore unasked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from norn.operations.verify import due

NOW = datetime(2026, 11, 25, tzinfo=UTC)
OK, DAMAGED = {"ok": True}, {"ok": False}


@pytest.mark.parametrize(
    ("last", "succeeded_ago", "wanted"),
    [
        (None, None, True),
        (OK, timedelta(days=1), False),
        (OK, timedelta(days=7), True),
        (DAMAGED, None, False),
        (DAMAGED, timedelta(days=30), False),
    ],
    ids=["never tried", "a day ago", "a week ago", "failed at first", "failed after it had succeeded"],
)
def test_a_snapshot_is_due_for_a_test_restore(
    last: Mapping[str, bool] | None, succeeded_ago: timedelta | None, wanted: bool
) -> None:
    assert due(last, NOW - succeeded_ago if succeeded_ago else None, NOW) is wanted
