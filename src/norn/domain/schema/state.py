"""What an app's database looked like at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from norn.domain.catalog import Catalog, CatalogEntry
from norn.domain.schema.access import Access


@dataclass(frozen=True, slots=True)
class Schema:
    """The catalog of a database, and what the role of an app may do there."""

    catalog: Catalog
    database: str
    """Which database it is: OIDs and column numbers count only within one and the same. Empty: not known."""
    at: datetime
    access: Access = field(default_factory=lambda: Access(""))
    counted_since: datetime | None = None
    """Since when the server counts how often tables are used (`pg_stat_database.stats_reset`)."""

    def to_json(self) -> dict[str, Any]:
        return {
            "catalog": [
                [entry.kind, entry.name, entry.definition, entry.oid, entry.number, entry.facts]
                for entry in self.catalog
            ],
            "database": self.database,
            "at": self.at.isoformat(),
            "access": {
                "role": self.access.role,
                "roles": sorted(self.access.roles),
                "unrestricted": self.access.unrestricted,
                "seesAllRows": self.access.sees_all_rows,
            },
            "countedSince": self.counted_since.isoformat() if self.counted_since else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Schema:
        """Raises KeyError, ValueError, TypeError where it is none."""
        access, since = value["access"], value["countedSince"]
        return cls(
            Catalog(tuple(CatalogEntry(*entry) for entry in value["catalog"])),
            str(value["database"]),
            datetime.fromisoformat(value["at"]),
            Access(
                access["role"],
                frozenset(access["roles"]),
                unrestricted=bool(access["unrestricted"]),
                sees_all_rows=bool(access["seesAllRows"]),
            ),
            datetime.fromisoformat(since) if since is not None else None,
        )
