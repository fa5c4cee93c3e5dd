"""Charts as geometry: what a template draws as SVG, and says in words and in a table. Pure functions.

A chart has a bounded number of columns however many checks there were: each stands for all checks of its share of the
time, and shows the slowest of them, so that no outlier is smoothed away; one failed check makes its column failed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from norn.domain.health import HealthCheck

COLUMNS = 120
ROWS = 12
WIDTH, HEIGHT = 720.0, 140.0


@dataclass(frozen=True, slots=True)
class Share:
    """The checks of a stretch of time, as one value."""

    begins: datetime
    ends: datetime
    checks: int
    failed: int
    median_ms: float | None
    """Of those that answered; None where none did."""
    slowest_ms: float | None


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of the chart, from left to right in its units."""

    x: float
    width: float


@dataclass(frozen=True, slots=True)
class HealthChart:
    """`line` is the path of the slowest answers; `failing` the columns with a failed check, joined."""

    begins: datetime
    middle: datetime
    ends: datetime
    top_ms: float
    """The upper end of the scale."""
    line: str
    failing: tuple[Band, ...]
    checks: int
    failed: int
    median_ms: float | None
    slowest_ms: float | None
    last_message: str
    """What the newest failed check said."""
    rows: tuple[Share, ...]
    """The same as a table, newest first; without stretches in which nobody asked."""


def shares(checks: Sequence[HealthCheck], begins: datetime, ends: datetime, count: int) -> list[Share]:
    """`count` stretches of equal length from `begins` to `ends`, each with its checks."""
    return _joined(_sorted_in(checks, begins, ends, count), begins, ends, count)


def _sorted_in(checks: Sequence[HealthCheck], begins: datetime, ends: datetime, count: int) -> list[list[HealthCheck]]:
    first, last = begins.timestamp(), ends.timestamp()
    length = (last - first) / count
    parts: list[list[HealthCheck]] = [[] for _ in range(count)]
    for check in checks:
        at = check.at.timestamp()
        if first <= at <= last:
            parts[min(int((at - first) / length), count - 1)].append(check)
    return parts


def _joined(parts: Sequence[list[HealthCheck]], begins: datetime, ends: datetime, count: int) -> list[Share]:
    """As few shares of as many neighbouring parts each."""
    each, length = len(parts) // count, (ends - begins) / count
    return [
        _share([check for part in parts[number * each : (number + 1) * each] for check in part],
               begins + number * length, length)
        for number in range(count)
    ]  # fmt: skip


def _share(checks: Sequence[HealthCheck], begins: datetime, length: timedelta) -> Share:
    answered = [check.health.response_ms for check in checks if check.health.response_ms is not None]
    return Share(
        begins,
        begins + length,
        len(checks),
        sum(not check.health.healthy for check in checks),
        median(answered) if answered else None,
        max(answered, default=None),
    )


def nice_top(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten, at least 1.

    >>> nice_top(13.2)
    20.0
    """
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= value)


def health_chart(checks: Sequence[HealthCheck], begins: datetime, ends: datetime) -> HealthChart:
    """The chart of the checks between two moments; in whatever order they are."""
    parts = _sorted_in(checks, begins, ends, COLUMNS)
    columns, rows, (whole,) = (_joined(parts, begins, ends, count) for count in (COLUMNS, ROWS, 1))
    top = nice_top(max((share.slowest_ms or 0.0 for share in columns), default=0.0))
    failed = [check for check in checks if not check.health.healthy and begins <= check.at <= ends]
    return HealthChart(
        begins,
        begins + (ends - begins) / 2,
        ends,
        top,
        _line(columns, top),
        _bands([share.failed > 0 for share in columns]),
        whole.checks,
        whole.failed,
        whole.median_ms,
        whole.slowest_ms,
        max(failed, key=lambda check: check.at).health.message if failed else "",
        tuple(share for share in reversed(rows) if share.checks),
    )


def _line(columns: Sequence[Share], top_ms: float) -> str:
    """An SVG path through the middle of each column; it breaks off where nothing was answered."""
    step, parts, drawing = WIDTH / len(columns), [], False
    for number, share in enumerate(columns):
        if share.slowest_ms is None:
            drawing = drawing and share.checks == 0 and _resumes(columns, number)
            continue
        x, y = (number + 0.5) * step, HEIGHT * (1 - share.slowest_ms / top_ms)
        parts.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        if not drawing and (number + 1 == len(columns) or columns[number + 1].slowest_ms is None):
            parts.append("h0.1")  # alone: a dot
        drawing = True
    return "".join(parts)


def _resumes(columns: Sequence[Share], number: int) -> bool:
    """Whether a column without checks is a hole of one: checks come a little irregularly."""
    return number + 1 < len(columns) and columns[number + 1].slowest_ms is not None


def _bands(marked: Sequence[bool]) -> tuple[Band, ...]:
    """Neighbouring columns as one band."""
    step, bands, begin = WIDTH / len(marked), [], None
    for number, mark in enumerate((*marked, False)):
        if mark and begin is None:
            begin = number
        elif not mark and begin is not None:
            bands.append(Band(round(begin * step, 1), round((number - begin) * step, 1)))
            begin = None
    return tuple(bands)
