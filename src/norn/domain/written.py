"""Rows that were written since a version was replaced: by the migration, and since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from norn.domain.verdict import Finding, Level

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Written:
    """Of one table; updated rows count, deleted ones do not."""

    table: str
    """Qualified and quoted."""
    by_migration: int
    since: int
    complete: bool
    """False: so many at least."""
    file: int
    """Its relfilenode: where that has changed, the table was rewritten, and every row counts as written."""

    def to_json(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "byMigration": self.by_migration,
            "since": self.since,
            "complete": self.complete,
        }


def written_finding(written: Sequence[Written], files: Mapping[str, int]) -> Finding | None:
    """What old code will find that it has not written; None where nothing was.

    Args:
        files: the relfilenode of each table as the target left it.
    """
    told = [one for one in written if one.since or one.by_migration or not one.complete]
    if not told:
        return None
    told.sort(key=lambda one: -(one.since + one.by_migration))
    lines = [_line(one, files) for one in told[:_NAMED]]
    more = [f"and in {len(told) - _NAMED} more tables"] if len(told) > _NAMED else []
    return Finding(
        "rows_written",
        Level.SAFE,
        f"Rows written since it was replaced stay: {'; '.join(lines + more)}.",
        {"tables": [one.to_json() for one in told]},
    )


def _line(one: Written, files: Mapping[str, int]) -> str:
    least = "" if one.complete else "at least "
    before = files.get(one.table)
    if before is None:
        return f"{one.table} {least}{one.since + one.by_migration} (a new table)"
    if before != one.file:
        return f"{one.table} was rewritten, {least}{one.since} since"
    return f"{one.table} {least}{one.since}" + (f" and {one.by_migration} by the migration" if one.by_migration else "")
