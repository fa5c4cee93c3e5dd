"""A deployment: Norn's record of one attempt to run one image, and the states it goes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """What a deployment is doing, or how it ended."""

    QUEUED = "queued"
    BUILDING = "building"
    TESTING = "testing"
    SNAPSHOTTING = "snapshotting"
    MIGRATING = "migrating"
    DEPLOYING = "deploying"
    BAKING = "baking"
    DEPLOYED = "deployed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"

    @property
    def ended(self) -> bool:
        return self in (Status.DEPLOYED, Status.FAILED, Status.CANCELLED, Status.ROLLED_BACK)


class Kind(StrEnum):
    """What made the deployment."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    ADOPT = "adopt"


def rfc3339(at: datetime | None) -> str | None:
    """RFC 3339 in UTC with milliseconds, as every time in JSON."""
    if at is None:
        return None
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One row of the history. Times are UTC."""

    id: str
    seq: int
    """Order of acceptance; grows with every deployment of every app."""
    app: str
    kind: Kind
    status: Status
    image_tag: str
    digest: str | None
    """None until the image is built."""
    commit_sha: str
    commit_subject: str
    origin_seq: int
    """The `seq` of the deploy that first brought this version: a rollback inherits that of its target. What is older
    and what newer is decided by this, so that going back twice goes further back, never to and fro."""
    requested_by: str
    requested_at: datetime
    reason: str = ""
    from_deployment_id: str | None = None
    from_image_tag: str | None = None
    target_deployment_id: str | None = None
    template: Mapping[str, Any] | None = None
    target: Mapping[str, Any] | None = None
    verdict: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    rolled_out_at: datetime | None = None
    proven_at: datetime | None = None
    """When its bake time ended with all health checks passed."""
    live_from: datetime | None = None
    live_until: datetime | None = None
    rolled_back_at: datetime | None = None
    rolled_back_by: str | None = None
    snapshot: str | None = None
    workload: Mapping[str, Any] | None = None
    """What the runtime wrote down of it when it rolled out, to bring back exactly that; not shown."""

    @property
    def known_good(self) -> bool:
        """Rolled out completely, healthy through its bake time, and not rolled back since."""
        return self.status is Status.DEPLOYED and self.rolled_out_at is not None and self.proven_at is not None

    @property
    def rolled_out(self) -> bool:
        """Rolled out, and never failed since, though perhaps not proven through its whole bake time."""
        return self.rolled_out_at is not None and self.status in (Status.DEPLOYED, Status.BAKING)

    def live_for(self, now: datetime) -> timedelta:
        """How long it was live, until now where it still is."""
        if self.live_from is None:
            return timedelta(0)
        return max((self.live_until or now) - self.live_from, timedelta(0))

    def to_json(self) -> dict[str, Any]:
        """As HTTP and the command line show it; without steps, which belong to the operation."""
        return {
            "id": self.id,
            "app": self.app,
            "kind": self.kind.value,
            "status": self.status.value,
            "imageTag": self.image_tag,
            "digest": self.digest,
            "commitSha": self.commit_sha,
            "commitSubject": self.commit_subject,
            "fromImageTag": self.from_image_tag,
            "fromDeploymentId": self.from_deployment_id,
            "target": dict(self.target) if self.target is not None else None,
            "verdict": dict(self.verdict) if self.verdict is not None else None,
            "requestedBy": self.requested_by,
            "reason": self.reason,
            "requestedAt": rfc3339(self.requested_at),
            "startedAt": rfc3339(self.started_at),
            "finishedAt": rfc3339(self.finished_at),
            "rolledOutAt": rfc3339(self.rolled_out_at),
            "provenAt": rfc3339(self.proven_at),
            "liveFrom": rfc3339(self.live_from),
            "liveUntil": rfc3339(self.live_until),
            "rolledBackAt": rfc3339(self.rolled_back_at),
            "rolledBackBy": self.rolled_back_by,
            "snapshot": self.snapshot,
            "error": dict(self.error) if self.error is not None else None,
        }
