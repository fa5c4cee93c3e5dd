"""How an app did when it was asked, as it is kept for a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from norn.domain.deployments import rfc3339
from norn.domain.ports.runtimes import Health


@dataclass(frozen=True, slots=True)
class HealthCheck:
    at: datetime
    health: Health

    def to_json(self) -> dict[str, Any]:
        health = self.health
        return {
            "at": rfc3339(self.at),
            "healthy": health.healthy,
            "wanted": health.wanted,
            "ready": health.ready,
            "restarts": health.restarts,
            "responseMs": round(health.response_ms, 1) if health.response_ms is not None else None,
            "message": health.message,
        }
