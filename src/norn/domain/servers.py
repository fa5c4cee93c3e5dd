"""The servers that work on one database, and what one of them may have left behind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from norn.domain.deployments import rfc3339

SILENT_S = 10.0
"""A server that was not heard of for so long, twenty heartbeats, is dead or cut off."""


@dataclass(frozen=True, slots=True)
class ServerSeen:
    id: str
    host: str
    started_at: datetime
    silent_s: float
    """For how long nothing was heard of it, by the database's clock."""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "host": self.host,
            "startedAt": rfc3339(self.started_at),
            "silentS": round(self.silent_s, 1),
            "dead": self.silent_s > SILENT_S,
        }


@dataclass(frozen=True, slots=True)
class StaleLease:
    """An operation that nobody works on, though its server's time with it is over."""

    operation_id: str
    app: str
    kind: str
    owner: str | None
    overdue_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            "operationId": self.operation_id,
            "app": self.app,
            "kind": self.kind,
            "server": self.owner,
            "overdueS": round(self.overdue_s, 1),
        }
