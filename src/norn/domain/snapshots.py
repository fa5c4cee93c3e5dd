"""What is written down beside a snapshot: exactly what it holds, and how to tell whether a copy of it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from norn.domain.deployments import rfc3339


@dataclass(frozen=True, slots=True)
class Anchor:
    """A moment of one database, as PostgreSQL names it: which transactions had been committed by then.

    It counts within that database alone: in a restored copy every row is newer than it.
    """

    system_identifier: str
    """Of the server (`pg_control_system()`)."""
    database_oid: int
    snapshot: str
    """`pg_current_snapshot()`, for `pg_visible_in_snapshot`."""
    wal_lsn: str
    at: datetime

    def to_json(self) -> dict[str, Any]:
        return {
            "systemIdentifier": self.system_identifier,
            "databaseOid": self.database_oid,
            "snapshot": self.snapshot,
            "walLsn": self.wal_lsn,
            "at": rfc3339(self.at),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Anchor:
        """Raises KeyError, ValueError, TypeError where it is no anchor."""
        return cls(
            str(value["systemIdentifier"]),
            int(value["databaseOid"]),
            str(value["snapshot"]),
            str(value["walLsn"]),
            datetime.fromisoformat(value["at"]),
        )


@dataclass(frozen=True, slots=True)
class TableState:
    """A table at the moment of an anchor."""

    rows: int
    oid: int
    file: int
    """Its relfilenode: with another one later it was rewritten, or truncated."""

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "oid": self.oid, "file": self.file}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TableState:
        return cls(int(value["rows"]), int(value["oid"]), int(value["file"]))
