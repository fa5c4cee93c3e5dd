"""Names of snapshots: `<db>_<sha>_<timestamp>.dump`, read from the right, since databases contain underscores."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_NAME = re.compile(r"(?P<database>.+)_(?P<sha>[0-9a-f]{12})_(?P<at>\d{8}T\d{12}Z)\.dump\Z", re.DOTALL)
_TIMESTAMP = "%Y%m%dT%H%M%S%fZ"


def snapshot_name(database: str, commit_sha: str, taken_at: datetime) -> str:
    """The file's name; the time with microseconds, in UTC.

    >>> snapshot_name("my_db", "0123456789abcdef", datetime(2026, 11, 24, 3, 0, tzinfo=UTC))
    'my_db_0123456789ab_20261124T030000000000Z.dump'
    """
    return f"{database}_{commit_sha[:12]}_{taken_at.astimezone(UTC).strftime(_TIMESTAMP)}.dump"


def parse_snapshot_name(name: str) -> tuple[str, str, datetime] | None:
    """Database, the first 12 digits of the commit, and the time; None for a file that is no snapshot."""
    match = _NAME.match(name)
    if match is None:
        return None
    try:
        taken_at = datetime.strptime(match["at"], _TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    return match["database"], match["sha"], taken_at
