"""Durations as people write them: `500ms`, `5s`, `1m30s`, `2h`, `7d`."""

from __future__ import annotations

import re

_UNITS_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
PATTERN = r"^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m(?!s))?([0-9]+(\.[0-9]+)?s)?([0-9]+ms)?$"
_WHOLE = re.compile(PATTERN)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
MAX_S = 7 * 24 * 3600.0


def parse_duration(text: str, max_s: float = MAX_S) -> float:
    """Seconds. Raises ValueError for what is no duration, or is longer than `max_s` (a week).

    >>> parse_duration("1m30s")
    90.0
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration")
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
    if seconds > max_s:
        raise ValueError(f"{text!r} is longer than {format_duration(max_s) if max_s != MAX_S else 'a week'}")
    return seconds


def format_duration(seconds: float) -> str:
    """The two largest units that say it: `2d 3h`, `1m 30s`, `5s`, `250ms`.

    >>> format_duration(90)
    '1m 30s'
    """
    if seconds < 1:
        return f"{round(seconds * 1000)}ms" if seconds > 0 else "0s"
    left, parts = round(seconds), []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
