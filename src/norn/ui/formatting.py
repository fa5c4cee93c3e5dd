"""How values of the API's documents are written on a page: pure functions, the filters of the templates."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from norn.domain.deployments import rfc3339
from norn.domain.durations import format_duration

_TONES = {
    "safe": "good", "succeeded": "good", "deployed": "good", "done": "good", "healthy": "good", "verified": "good",
    "accepted": "quiet", "refused": "warn",
    "caution": "warn", "rolled_back": "warn", "undone": "warn", "cancelled": "quiet", "queued": "quiet",
    "unsafe": "bad", "failed": "bad", "unhealthy": "bad",
    "running": "busy", "building": "busy", "testing": "busy", "snapshotting": "busy", "migrating": "busy",
    "deploying": "busy", "baking": "busy",
}  # fmt: skip
_CODE = re.compile(r"`([^`\n]+)`")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def moment(value: datetime | str) -> datetime:
    """A time of a document (RFC 3339), or one as it is."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def machine_time(value: datetime | str) -> str:
    """For `datetime=`: RFC 3339 in UTC.

    >>> machine_time("2026-11-25T22:25:45.123Z")
    '2026-11-25T22:25:45.123Z'
    """
    return rfc3339(moment(value).astimezone(UTC)) or ""


def utc(value: datetime | str) -> str:
    """For people without scripts.

    >>> utc("2026-11-25T22:25:45.123Z")
    '2026-11-25 22:25:45 UTC'
    """
    return moment(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(value: datetime | str) -> str:
    """The time of day.

    >>> clock("2026-11-25T22:25:45.123Z")
    '22:25 UTC'
    """
    return moment(value).astimezone(UTC).strftime("%H:%M UTC")


def between(start: datetime | str | None, end: datetime | str | None) -> str:
    """How long it took; empty where it has not begun or not ended.

    >>> between("2026-11-25T22:00:00.000Z", "2026-11-25T22:01:30.000Z")
    '1m 30s'
    """
    if start is None or end is None:
        return ""
    return format_duration(max((moment(end) - moment(start)).total_seconds(), 0.0))


def milliseconds(value: float | None) -> str:
    """A duration in milliseconds; empty where there is none."""
    return "" if value is None else format_duration(value / 1000)


def size(count: float) -> str:
    """Bytes with a unit.

    >>> size(1536)
    '1.5 KiB'
    """
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def tone(state: str) -> str:
    """Which of the five tones a state, level or verdict is shown in: good, warn, bad, busy, quiet."""
    return _TONES.get(state, "quiet")


def words(state: str) -> str:
    """A state in words.

    >>> words("rolled_back")
    'rolled back'
    """
    return state.replace("_", " ")


def prose(text: str) -> Markup:
    """A sentence of Norn's, what stands between backquotes as code; everything is escaped.

    >>> prose("`norn history` lists <them>")
    Markup('<code>norn history</code> lists &lt;them&gt;')
    """
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - what is marked up is escaped


FILTERS: dict[str, Callable[..., Any]] = {
    "machine_time": machine_time,
    "utc": utc,
    "clock": clock,
    "between": between,
    "duration": format_duration,
    "milliseconds": milliseconds,
    "size": size,
    "tone": tone,
    "words": words,
    "prose": prose,
}
