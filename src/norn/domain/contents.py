"""Did a migration change rows that were there? By a digest of each column before and after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from norn.domain.verdict import Finding, Level

_NAMED = 5
_TIMES_USUAL = 2
_FEW = 10


@dataclass(frozen=True, slots=True)
class TableContents:
    """What a table held at one moment."""

    oid: int
    touched: int
    """How often rows of it were updated or deleted, as the server counts them."""
    rows: int = 0
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Type and digest by column; empty where there was no time for it."""

    def to_json(self) -> list[Any]:
        return [self.oid, self.touched, self.rows, {name: list(value) for name, value in self.columns.items()}]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> TableContents:
        """Raises ValueError, TypeError where it is none."""
        oid, touched, rows, columns = value
        found = {name: (str(of), str(digest)) for name, (of, digest) in columns.items()}
        return cls(int(oid), int(touched), int(rows), found)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A table of which rows were updated or deleted while a migration ran."""

    table: str
    rows: int
    """So many times, whoever did it."""
    columns: tuple[str, ...] | None
    """Those that hold something else now; None where that is not known."""

    def to_json(self) -> dict[str, Any]:
        return {"table": self.table, "rows": self.rows, "columns": list(self.columns) if self.columns else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rewritten:
        """Raises KeyError where it is none."""
        columns = value["columns"]
        return cls(value["table"], value["rows"], tuple(columns) if columns is not None else None)


def rewritten(
    before: Mapping[str, TableContents], after: Mapping[str, TableContents], moved: Collection[str] = ()
) -> tuple[Rewritten, ...]:
    """Tables whose old columns hold something else than before, or may do so.

    A new column that was filled is none, and neither are rows that were only added.

    Args:
        moved: tables whose rows are in another file now, so that they all may be others.
    """
    found = []
    for table, was in before.items():
        now = after.get(table)
        if now is None or now.oid != was.oid:
            continue
        rows = now.touched - was.touched
        # The server may count a little later: rows that are no more than before cannot have been added only.
        known = bool(was.columns and now.columns)
        if rows <= 0 and table not in moved and (now.rows > was.rows or not known):
            continue
        if not known:
            found.append(Rewritten(table, max(rows, 1), None))
            continue
        other = tuple(
            name
            for name, (type_, digest) in was.columns.items()
            if name in now.columns and _alike(now.columns[name][0], type_) and now.columns[name][1] != digest
        )
        if other:
            found.append(Rewritten(table, max(rows, 1), other))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Usual:
    """How often rows of a table were updated or deleted while nothing was migrated."""

    touched: int
    seconds: float

    def exceeded(self, rows: int, seconds: float) -> bool:
        """Whether so many in so long a time are clearly more."""
        if self.touched == 0 or self.seconds <= 0:
            return True
        usual = self.touched / self.seconds * seconds
        return rows > _TIMES_USUAL * usual + (_FEW if usual >= 1 else 0)


def _alike(one: str, other: str) -> bool:
    """Whether values of both types are written in the same way."""
    texts = ("text", "character varying")
    return one == other or (one.startswith(texts) and other.startswith(texts))


def rows_changed_finding(
    found: Sequence[Rewritten], usual: Mapping[str, Usual], began: datetime, ended: datetime
) -> Finding | None:
    """That a migration changed rows that old code had written; None where it was no more than the app itself does.

    Args:
        usual: by table, where it is known.
        began: when the contents were looked at before the migration.
        ended: and after it.
    """
    window = (ended - began).total_seconds()
    told = [one for one in found if one.table not in usual or usual[one.table].exceeded(one.rows, window)]
    if not told:
        return None
    lines = [f"{one.table} ({', '.join(one.columns)})" if one.columns else one.table for one in told[:_NAMED]]
    more = f" and {len(told) - _NAMED} more tables" if len(told) > _NAMED else ""
    return Finding(
        "rows_changed",
        Level.CAUTION,
        f"While the migration ran, rows that were there were changed or deleted: {', '.join(lines)}{more}. What they "
        "held before is in the snapshot.",
        {"tables": [one.to_json() for one in told], "effect": "contents lost"},
    )
