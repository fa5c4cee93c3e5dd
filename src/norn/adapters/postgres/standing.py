"""How things stand, from the database: for those who measure."""

from __future__ import annotations

from typing import LiteralString

from norn.adapters.postgres.connections import Connections
from norn.domain.servers import SILENT_S
from norn.domain.standing import SnapshotAge, Standing

_COUNTS: LiteralString = """
SELECT (SELECT count(*) FROM servers WHERE seen_at >= clock_timestamp() - make_interval(secs => %(silent_s)s))
           AS servers_alive,
       (SELECT count(*) FROM servers WHERE seen_at < clock_timestamp() - make_interval(secs => %(silent_s)s))
           AS servers_dead,
       (SELECT count(*) FROM operations WHERE status = 'running' AND lease_until >= clock_timestamp()) AS leases_held,
       (SELECT count(*) FROM operations WHERE status = 'running' AND lease_until < clock_timestamp()) AS leases_stale,
       (SELECT count(*) FROM operations WHERE status = 'queued') AS operations_queued,
       (SELECT count(*) FROM deliveries WHERE delivered_at IS NULL) AS notifications_undelivered,
       (SELECT count(*) FROM sessions WHERE expires_at > clock_timestamp()) AS sessions,
       coalesce((SELECT max(seq) FROM audit), 0) AS audit_entries
"""
_SNAPSHOTS: LiteralString = """
SELECT app, extract(epoch FROM clock_timestamp() - max(taken_at))::float8 AS age_s,
       extract(epoch FROM clock_timestamp() - max(verified_at))::float8 AS verified_age_s
FROM snapshots WHERE removed_at IS NULL GROUP BY app ORDER BY max(taken_at) DESC LIMIT 1000
"""


class PostgresStanding:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def read(self) -> Standing:
        """Raises DatabaseUnavailable."""
        (counts,) = await self._connections.all(_COUNTS, silent_s=SILENT_S)
        ages = [SnapshotAge(**row) for row in await self._connections.all(_SNAPSHOTS)]
        return Standing(**counts, snapshots=ages)
