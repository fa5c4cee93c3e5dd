"""What a restore of a snapshot would lose: rows written and rows deleted since it was taken, table by table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TableLoss:
    """What a restore would lose in one table."""

    table: str
    """Qualified and quoted as SQL has it: `public.notes`."""
    written: int | None
    """Rows inserted or updated since: they go, or go back to what they were. None where it is not known."""
    deleted: int | None
    """Rows deleted since: they come back. None where it is not known."""
    why: str = ""
    """Why something is not known: "no primary key"."""

    @property
    def nothing(self) -> bool:
        """All is known, and it is nothing."""
        return self.written == 0 and self.deleted == 0

    @property
    def unknown(self) -> bool:
        return self.written is None or self.deleted is None

    def text(self) -> str:
        """One line for a person.

        >>> TableLoss("public.notes", 120, 3).text()
        'public.notes: 120 rows written, 3 deleted since'
        >>> TableLoss("public.log", 1, None, "no primary key").text()
        'public.log: 1 row written since, deleted: unknown (no primary key)'
        """
        counts = [(self.written, "written"), (self.deleted, "deleted")]
        unknown = [what for count, what in counts if count is None]
        if len(unknown) == len(counts):
            return f"{self.table}: unknown{self._reason}"
        # Beside something unknown a nought says something: that much is known.
        known = [(count, what) for count, what in counts if count or (count == 0 and unknown)]
        if not known:
            return f"{self.table}: nothing"
        (first, what), *others = known
        rows = "row" if first == 1 else "rows"
        said = ", ".join([f"{first} {rows} {what}", *(f"{count} {what}" for count, what in others)])
        rest = f", {unknown[0]}: unknown{self._reason}" if unknown else ""
        return f"{self.table}: {said} since{rest}"

    @property
    def _reason(self) -> str:
        return f" ({self.why})" if self.why else ""

    def to_json(self) -> dict[str, Any]:
        return {"table": self.table, "written": self.written, "deleted": self.deleted, "why": self.why}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TableLoss:
        """Raises KeyError, ValueError, TypeError where it is none."""
        written, deleted = value["written"], value["deleted"]
        return cls(
            str(value["table"]),
            None if written is None else int(written),
            None if deleted is None else int(deleted),
            str(value.get("why", "")),
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """What a restore would lose; made by `Loss.of`, it holds only the tables where something is, or may be, lost."""

    tables: tuple[TableLoss, ...] = ()

    @classmethod
    def of(cls, tables: Iterable[TableLoss]) -> Loss:
        """Without those that lose nothing, in the order of their names."""
        return cls(tuple(sorted((table for table in tables if not table.nothing), key=lambda table: table.table)))

    @property
    def nothing(self) -> bool:
        """All is known, and it is nothing."""
        return all(table.nothing for table in self.tables)

    @property
    def written(self) -> int:
        """Rows written since, as far as known."""
        return sum(table.written or 0 for table in self.tables)

    @property
    def deleted(self) -> int:
        """Rows deleted since, as far as known."""
        return sum(table.deleted or 0 for table in self.tables)

    @property
    def unknown(self) -> tuple[TableLoss, ...]:
        """The tables of which not all is known."""
        return tuple(table for table in self.tables if table.unknown)

    def text(self) -> str:
        """A line for each table, for a person; empty where nothing is lost."""
        return "\n".join(table.text() for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        """Beside the tables what follows from them, for scripts."""
        return {
            "nothing": self.nothing,
            "written": self.written,
            "deleted": self.deleted,
            "tables": [table.to_json() for table in self.tables],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Loss:
        """Raises KeyError, ValueError, TypeError where it is none."""
        return cls(tuple(TableLoss.from_json(table) for table in value["tables"]))
