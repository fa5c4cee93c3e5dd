"""A snapshot of a database: exactly what it holds, and how to tell whether a copy of it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

FORMAT = 1
"""Of the file beside a dump."""
SPARE = 1.1
"""Ten per cent more room than a dump, or a restored copy, is expected to take."""


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
            "at": self.at.isoformat(),
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


@dataclass(frozen=True, slots=True)
class SnapshotOrder:
    """Of what, for whom and why a snapshot is to be taken."""

    app: str
    commit_sha: str
    """The commit before whose migration it is taken, or what was live."""
    operation_id: str
    reason: str
    at: datetime
    kept: bool = False
    """By hand, and left alone by retention."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is written beside the dump, as `<same name>.json`."""

    name: str
    """`<db>_<sha>_<timestamp>.dump`"""
    app: str
    database: str
    commit_sha: str
    """The first 12 digits."""
    operation_id: str
    """The deployment before whose migration it was taken, or the operation that took it by hand."""
    reason: str
    kept: bool
    taken_at: datetime
    anchor: Anchor
    server_version: int
    """As `server_version_num`."""
    host: str
    """The machine in whose directory it lies."""
    size_bytes: int
    database_bytes: int
    """Of the database it was taken of, as `pg_database_size`."""
    sha256: str
    locale: Mapping[str, str]
    """Encoding, collation and so on of the database, as `pg_database` has them."""
    roles: tuple[str, ...]
    """Of the whole server: what the dump says belongs to somebody can be restored where they exist."""
    tables: Mapping[str, TableState]
    """By quoted, qualified name (`public."Order"`)."""
    fingerprint: str
    """Of the catalog; see `norn.domain.catalog`."""
    catalog: Mapping[str, str]
    """The beginning of the hash of each object's definition, by `kind name`."""

    @property
    def major(self) -> int:
        return self.server_version // 10_000

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables.values())

    @property
    def own_tables(self) -> dict[str, TableState]:
        """Without materialised views: what follows from tables is no data of its own."""
        return {name: state for name, state in self.tables.items() if f"materialized view {name}" not in self.catalog}

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "app": self.app,
            "database": self.database,
            "commitSha": self.commit_sha,
            "operationId": self.operation_id,
            "reason": self.reason,
            "kept": self.kept,
            "takenAt": self.taken_at.isoformat(),
            "anchor": self.anchor.to_json(),
            "serverVersion": self.server_version,
            "host": self.host,
            "sizeBytes": self.size_bytes,
            "databaseBytes": self.database_bytes,
            "sha256": self.sha256,
            "locale": dict(self.locale),
            "roles": list(self.roles),
            "tables": {name: table.to_json() for name, table in sorted(self.tables.items())},
            "fingerprint": self.fingerprint,
            "catalog": dict(sorted(self.catalog.items())),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Snapshot:
        """Raises KeyError, ValueError, TypeError, AttributeError where it is none."""
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']}")
        return cls(
            name=str(value["name"]),
            app=str(value["app"]),
            database=str(value["database"]),
            commit_sha=str(value["commitSha"]),
            operation_id=str(value["operationId"]),
            reason=str(value["reason"]),
            kept=bool(value["kept"]),
            taken_at=datetime.fromisoformat(value["takenAt"]),
            anchor=Anchor.from_json(value["anchor"]),
            server_version=int(value["serverVersion"]),
            host=str(value["host"]),
            size_bytes=int(value["sizeBytes"]),
            database_bytes=int(value["databaseBytes"]),
            sha256=str(value["sha256"]),
            locale={name: str(found) for name, found in value["locale"].items()},
            roles=tuple(map(str, value["roles"])),
            tables={name: TableState.from_json(table) for name, table in value["tables"].items()},
            fingerprint=str(value["fingerprint"]),
            catalog=dict(value["catalog"]),
        )
