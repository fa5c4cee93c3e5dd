"""Did a migration change rows that were there? By a digest of each column before and after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from norn.domain.verdict import Finding, Level

_NAMED = 5
_TIMES_USUAL = 2
_DEVIATIONS = 3


@dataclass(frozen=True, slots=True)
class TableContents:
    """What a table held at one moment."""

    oid: int
    touched: int
    """How often rows of it were updated or deleted, as the server counts them."""
    rows: int = 0
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Type and digest by column; empty where there was no time for it."""
    deleted: int = 0
    """How often rows of it were deleted."""

    def to_json(self) -> list[Any]:
        columns = {name: list(value) for name, value in self.columns.items()}
        return [self.oid, self.touched, self.rows, columns, self.deleted]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> TableContents:
        """Raises ValueError, TypeError where it is none."""
        oid, touched, rows, columns, *more = value
        found = {name: (str(of), str(digest)) for name, (of, digest) in columns.items()}
        return cls(int(oid), int(touched), int(rows), found, *map(int, more))


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A table of which rows were updated or deleted while a migration ran."""

    table: str
    rows: int
    """So many times, whoever did it."""
    columns: tuple[str, ...] | None
    """Those that hold something else now; None where that is not known."""
    whole: bool = False
    """Its rows are in another file, where no app puts them by itself."""
    deleted: int = 0
    """How many of these times a row was deleted."""

    def to_json(self) -> dict[str, Any]:
        more = ({"whole": True} if self.whole else {}) | ({"deleted": self.deleted} if self.deleted else {})
        return {"table": self.table, "rows": self.rows, "columns": list(self.columns) if self.columns else None} | more

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rewritten:
        """Raises KeyError where it is none."""
        columns = value["columns"]
        named = tuple(columns) if columns is not None else None
        return cls(value["table"], value["rows"], named, bool(value.get("whole")), int(value.get("deleted", 0)))


def rewritten(
    before: Mapping[str, TableContents],
    after: Mapping[str, TableContents],
    files_before: Mapping[str, int] | None = None,
    files_after: Mapping[str, int] | None = None,
) -> tuple[Rewritten, ...]:
    """Tables whose old columns hold something else than before, or may do so, by the names that they had.

    A new column that was filled is none, and neither are rows that were only added.

    Args:
        files_before: the relfilenode of each table, as far as it is known: rows that are in another file now may all
            be others.
    """
    found = []
    present = {held.oid: (name, held) for name, held in after.items()}  # a table may have another name by now
    for table, was in before.items():
        if was.oid not in present:
            continue
        name_now, now = present[was.oid]
        rows, deleted = now.touched - was.touched, max(now.deleted - was.deleted, 0)
        file, file_now = (files_before or {}).get(table), (files_after or {}).get(name_now)
        moved = None not in (file, file_now) and file != file_now
        # The server may count a little later: rows that are no more than before cannot have been added only.
        known = bool(was.columns and now.columns)
        if rows <= 0 and not moved and (now.rows > was.rows or not known):
            continue
        if not known:
            found.append(Rewritten(table, max(rows, 1), None, moved, deleted))
            continue
        other = tuple(
            name
            for name, (type_, digest) in was.columns.items()
            if name in now.columns and _alike(now.columns[name][0], type_) and now.columns[name][1] != digest
        )
        if other:
            found.append(Rewritten(table, max(rows, 1), other, moved, deleted))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Usual:
    """How often rows of a table were updated or deleted while nothing was migrated."""

    touched: int
    seconds: float
    deleted: int = 0

    def exceeded(self, one: Rewritten, seconds: float) -> bool:
        """Whether so many in so long a time are clearly more.

        Updates come in bursts. Deletions are counted by themselves: where the app deletes little, a migration that
        deletes some rows does not hide behind its updates.
        """
        if one.whole or self.seconds <= 0:
            return True
        touched, deleted = (count / self.seconds * seconds for count in (self.touched, self.deleted))
        most = max(_TIMES_USUAL * touched, _at_most(touched))
        return one.rows > most or one.deleted > _at_most(deleted)


def _at_most(usual: float) -> float:
    """What chance alone makes of so many."""
    return usual + (_DEVIATIONS * math.sqrt(usual) if usual >= 1 else usual)


def _alike(one: str, other: str) -> bool:
    """Whether values of both types are written in the same way."""
    texts = ("text", "character varying")
    return one == other or (one.startswith(texts) and other.startswith(texts))


def rows_changed_finding(
    found: Sequence[Rewritten], usual: Mapping[str, Usual], began: datetime, ended: datetime
) -> Finding | None:
    """That a migration changed rows that old code had written; None where there are none.

    Where it was no more than the app itself does, that is said, and no caution.

    Args:
        usual: by table, where it is known.
        began: when the contents were looked at before the migration.
        ended: and after it.
    """
    window = (ended - began).total_seconds()
    if not found:
        return None
    more_than_usual = [one for one in found if one.table not in usual or usual[one.table].exceeded(one, window)]
    told = more_than_usual or found
    lines = [f"{one.table} ({', '.join(one.columns)})" if one.columns else one.table for one in told[:_NAMED]]
    more = f" and {len(told) - _NAMED} more tables" if len(told) > _NAMED else ""
    as_usual = "" if more_than_usual else ", no more often than the app itself does"
    return Finding(
        "rows_changed",
        Level.CAUTION if more_than_usual else Level.SAFE,
        f"While the migration ran, rows that were there were changed or deleted{as_usual}: {', '.join(lines)}{more}. "
        "What they held before is in the snapshot.",
        {"tables": [one.to_json() for one in told], "effect": "contents lost"},
    )
