"""How things stand, in numbers: what only the database knows, and only at the moment of asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from norn.domain.automatic import is_automatic
from norn.domain.operations import Operation


@dataclass(frozen=True, slots=True)
class SnapshotAge:
    """Of an app's newest snapshot."""

    app: str
    age_s: float
    verified_age_s: float | None
    """Since one of the app's snapshots was last restored for a test; None: never."""


@dataclass(frozen=True, slots=True)
class Standing:
    servers_alive: int
    servers_dead: int
    """That have not been heard of for a while, and have not left."""
    leases_held: int
    leases_stale: int
    """Of operations that nobody works on though they should."""
    operations_queued: int
    notifications_undelivered: int
    sessions: int
    audit_entries: int
    snapshots: Sequence[SnapshotAge]
    """Of a thousand apps at most."""


def trigger_of(operation: Operation) -> str:
    """`person`, `automatic` (Norn itself), or `direct` (made without a server)."""
    if operation.params.get("direct"):
        return "direct"
    return "automatic" if is_automatic(operation.params) or operation.requested_by == "norn" else "person"
