"""Durations as people write them, and the names of snapshots: what is written is read again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norn.domain.durations import MAX_S, format_duration, parse_duration
from norn.domain.snapshot_names import parse_snapshot_name, snapshot_name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5), ("0s", 0), ("1.5s", 1.5), ("5m", 300), ("1m30s", 90), ("2h", 7200),
     ("1h1m1s1ms", 3661.001), ("168h", MAX_S),
     ("7d", MAX_S), ("1d12h", 129_600)],
)  # fmt: skip
def test_a_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5 s", "-5s", "5S", "1s1m", "1.5m", "8d", "1h1d", "5s5s", "169h", "5s\n", "١s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|longer than a week"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (5, "5s"), (90, "1m 30s"), (3600, "1h"), (97_200, "1d 3h"), (59.6, "1m")],
)
def test_a_duration_as_people_read_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=63)
COMMITS = st.text("0123456789abcdef", min_size=12, max_size=40)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(NAMES, COMMITS, TIMES)
def test_the_name_of_a_snapshot_is_read_again_whatever_its_database_is_called(
    database: str, commit: str, at: datetime
) -> None:
    assert parse_snapshot_name(snapshot_name(database, commit, at)) == (database, commit[:12], at)


@pytest.mark.parametrize(
    "name",
    ["", "notes.txt", "db.dump", "db_abc123def456.dump", "db_abc123def456_20261124T030000000000Z.dump.part",
     "db_ABC123DEF456_20261124T030000000000Z.dump", "_abc123def456_20261124T030000000000Z.dump",
     "db_abc123def456_20261324T030000000000Z.dump", "db_abc123def456_20261124T030000Z.dump"],
)  # fmt: skip
def test_what_is_no_name_of_a_snapshot(name: str) -> None:
    assert parse_snapshot_name(name) is None
