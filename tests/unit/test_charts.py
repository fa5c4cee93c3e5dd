"""What a chart of health checks shows: a bounded number of columns, nothing bad smoothed away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from norn.domain.health import HealthCheck
from norn.domain.ports.runtimes import Health
from norn.ui.charts import COLUMNS, HEIGHT, ROWS, WIDTH, health_chart, nice_top, shares

BEGINS = datetime(2026, 11, 25, 12, tzinfo=UTC)
ENDS = BEGINS + timedelta(hours=1)


def check(after_s: float, response_ms: float | None = 10.0, *, ready: int = 1, message: str = "") -> HealthCheck:
    return HealthCheck(BEGINS + timedelta(seconds=after_s), Health(1, ready, 0, message, response_ms))


def test_however_many_checks_there_are_the_columns_and_the_rows_stay_few() -> None:
    chart = health_chart([check(number / 4) for number in range(14_400)], BEGINS, ENDS)
    assert chart.line.count("L") + chart.line.count("M") <= COLUMNS
    assert len(chart.rows) <= ROWS
    assert chart.checks == 14_400


def test_a_single_slow_answer_among_thousands_is_seen() -> None:
    chart = health_chart([*(check(number) for number in range(3_600)), check(1_800.5, 950.0)], BEGINS, ENDS)
    assert (chart.slowest_ms, chart.median_ms, chart.top_ms) == (950.0, 10.0, 1_000.0)
    assert f" {HEIGHT * (1 - 0.95):.1f}" in chart.line


def test_a_single_failure_among_thousands_marks_its_column() -> None:
    failure = check(1_800.5, None, ready=0, message="HTTP 503")
    chart = health_chart([*(check(number) for number in range(3_600)), failure], BEGINS, ENDS)
    (band,) = chart.failing
    assert band.x == pytest.approx(WIDTH / 2, abs=WIDTH / COLUMNS)
    assert (chart.failed, chart.last_message) == (1, "HTTP 503")


def test_neighbouring_failures_are_one_band() -> None:
    chart = health_chart([check(number, ready=0) for number in range(600, 1_200, 10)], BEGINS, ENDS)
    (band,) = chart.failing
    assert band.width == pytest.approx(WIDTH / 6)


def test_the_line_breaks_off_where_nothing_was_asked() -> None:
    early, late = ([check(begin + number) for number in range(0, 300, 5)] for begin in (0, 3_000))
    chart = health_chart([*late, *early], BEGINS, ENDS)
    assert chart.line.count("M") == 2


def test_one_column_without_a_check_does_not_break_the_line() -> None:
    chart = health_chart([check(number) for number in range(0, 600, 5) if not 300 <= number < 330], BEGINS, ENDS)
    assert chart.line.count("M") == 1


def test_the_newest_failure_is_told_in_whatever_order_the_checks_are() -> None:
    first, last = check(10, ready=0, message="first"), check(20, ready=0, message="last")
    assert {health_chart(order, BEGINS, ENDS).last_message for order in ([first, last], [last, first])} == {"last"}


def test_checks_outside_of_the_time_do_not_count() -> None:
    assert health_chart([check(-1, ready=0), check(3_601)], BEGINS, ENDS).checks == 0


def test_no_checks_are_an_empty_chart() -> None:
    chart = health_chart([], BEGINS, ENDS)
    assert (chart.line, chart.failing, chart.rows, chart.median_ms) == ("", (), (), None)


def test_the_last_moment_belongs_to_the_last_share() -> None:
    assert [share.checks for share in shares([check(3_600)], BEGINS, ENDS, 4)] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.4, 1), (1, 1), (1.1, 2), (3, 5), (9, 10), (10, 10), (13.2, 20), (501, 1_000)]
)
def test_the_scale_ends_at_a_round_number(value: float, top: float) -> None:
    assert nice_top(value) == top
