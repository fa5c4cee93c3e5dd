"""Names of snapshots: `<db>_<sha>_<timestamp>.dump`, read from the right, since databases contain underscores.

And of the databases that a restore makes: the copy beside the live one, and what the live one is called afterwards.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import unquote

_NAME = re.compile(r"(?P<database>.+)_(?P<sha>[0-9a-f]{12})_(?P<at>\d{8}T\d{12}Z)\.dump\Z", re.DOTALL)
_TIMESTAMP = "%Y%m%dT%H%M%S%fZ"
NAME_BYTES = 63
"""PostgreSQL cuts longer names (NAMEDATALEN - 1)."""
SIDECAR = ".json"
"""Instead of `.dump`: what is written down beside it."""


def snapshot_name(database: str, commit_sha: str, taken_at: datetime) -> str:
    """The file's name; the time with microseconds, in UTC.

    >>> snapshot_name("my_db", "0123456789abcdef", datetime(2026, 11, 24, 3, 0, tzinfo=UTC))
    'my_db_0123456789ab_20261124T030000000000Z.dump'
    """
    return f"{_as_file_name(database)}_{commit_sha[:12]}_{_stamp(taken_at)}.dump"


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime(_TIMESTAMP)


def _as_file_name(database: str) -> str:
    """As it is, but for what a file's name cannot hold, or would hide it: escaped as in a URL."""
    escaped = "".join(f"%{ord(c):02X}" if c in "/%" or c < " " or c == "\x7f" else c for c in database)
    return f"%2E{escaped[1:]}" if escaped.startswith(".") else escaped


def parse_snapshot_name(name: str) -> tuple[str, str, datetime] | None:
    """Database, the first 12 digits of the commit, and the time; None for a file that is no snapshot."""
    match = _NAME.match(name)
    if match is None:
        return None
    try:
        taken_at = datetime.strptime(match["at"], _TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    return unquote(match["database"]), match["sha"], taken_at


def sidecar_name(name: str) -> str:
    """Of the file beside a dump.

    >>> sidecar_name("my_db_0123456789ab_20261124T030000000000Z.dump")
    'my_db_0123456789ab_20261124T030000000000Z.json'
    """
    return name.removesuffix(".dump") + SIDECAR


def copy_name(database: str, at: datetime) -> str:
    """Of the database beside the live one into which a snapshot is restored."""
    return _beside(database, "restoring", at)


def former_name(database: str, at: datetime) -> str:
    """What the live database is called once a restored one has taken its place.

    >>> former_name("my_db", datetime(2026, 11, 24, 3, 0, tzinfo=UTC))
    'my_db_before_restore_20261124T030000000000Z'
    """
    return _beside(database, "before_restore", at)


def _beside(database: str, what: str, at: datetime) -> str:
    end = f"_{what}_{_stamp(at)}"
    room = NAME_BYTES - len(end.encode())
    return database.encode()[:room].decode("utf-8", "ignore") + end
