"""Bodies of requests, and the shapes of answers for /openapi.json. Names are camelCase, times RFC 3339 in UTC."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Name = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Reason = Annotated[str, StringConstraints(max_length=2_000, pattern=r"^[^\x00]*$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=False)


class DeployBody(_Body):
    ref: Name = Field(default="HEAD", description="A commit, branch or tag.", examples=["main", "3f2a91c"])
    force: bool = Field(
        default=False, description="Deploy an image in quarantine, and lift that; set fields that others have set."
    )
    snapshot: bool = Field(default=True, description="False: no snapshot before the migration; wants a reason.")
    reason: Reason = ""


class LiftBody(_Body):
    image_tag: Name = Field(description="An image tag, or a unique prefix of its commit.", examples=["3f2a91c"])


class RollbackBody(_Body):
    image_tag: Name | None = Field(
        default=None,
        description="Any version in the history: an image tag, a unique prefix of a commit, a deployment id. "
        "Without it, the newest known-good one before.",
        examples=["myapp:3f2a91c", "3f2a91c"],
    )
    from_: Name | None = Field(default=None, alias="from", description="The live deployment as you saw it; else 409.")
    further: bool = Field(default=False, description="Go further back than a rollback that still runs or bakes.")
    template: bool = Field(default=False, description="Restore the target's whole template instead of the image alone.")
    reason: Reason = ""
    force: bool = Field(default=False, description="Go on although the verdict is unsafe.")
    resume: bool = Field(default=False, description="Let rollouts that somebody has paused go on with this.")
    dry_run: bool = Field(default=False, description="Only say what would be done.")
    restore_snapshot: bool = Field(
        default=False, description="Bring the data back as well, as the version left it; asks before it goes on."
    )
    affects: list[Name] = Field(
        default_factory=list, max_length=1_000, description="With data: the other apps that use the database."
    )
    confirm: bool = Field(default=False, description="With data: yes to what would be lost, without being asked.")


class AdoptBody(_Body):
    container: Name | None = Field(
        default=None, description="Which container is the app, where there are several.", examples=["web"]
    )


class SnapshotBody(_Body):
    reason: Reason = ""
    keep: bool = Field(default=False, description="Retention leaves it alone.")


class UndoBody(_Body):
    affects: list[Name] = Field(
        default_factory=list, max_length=1_000, description="The other apps that use the database and go with it."
    )
    confirm: bool = Field(default=False, description="Yes to what would be lost, without being asked.")
    reason: Reason = ""


class RestoreBody(UndoBody):
    into: Name | None = Field(default=None, description="A new database of this name; the live one stays.")


class PruneBody(_Body):
    dry_run: bool = Field(default=False, description="Only say what would go.")


class CancelBody(_Body):
    reason: Reason = ""


class TokenBody(_Body):
    name: Name = Field(description="Unlike that of any other token.", examples=["on-call"])
    role: Literal["viewer", "operator", "deployer", "admin"]
    apps: list[Name] | None = Field(
        default=None, min_length=1, max_length=1_000, description="Those it is for; null: all, those to come as well."
    )
    expires: Name | None = Field(
        default=None, description="After how long it lets nobody in any more; null: never.", examples=["90d", "12h"]
    )


class SecretBody(_Body):
    value: str = Field(max_length=65_536, repr=False)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", alias_generator=to_camel, populate_by_name=True)


class Problem(_Answer):
    """RFC 9457; further members are facts."""

    type: str
    title: str
    status: int
    detail: str


class StepAnswer(_Answer):
    step: str
    status: str = Field(description="running, done, failed, undone")
    started_at: str
    duration_ms: int | None
    output: str


class SkippedAnswer(_Answer):
    deployment_id: str
    image_tag: str
    why: str


class TargetAnswer(_Answer):
    deployment_id: str
    image_tag: str
    commit_sha: str
    why: str
    live_for_s: float
    skipped: list[SkippedAnswer]


class WayAnswer(_Answer):
    text: str = Field(description="What it does, and at what price.")
    command: str = Field(description="To type into a shell; empty where it is none.")
    statement: str = Field(description="To run in the app's database; empty where it is none.")


class FindingAnswer(_Answer):
    code: str = Field(description="Stable; docs/verdict.md explains each.")
    level: str = Field(description="safe, caution, unsafe")
    message: str
    ways: list[WayAnswer] = Field(default=[], description="What helps.")


class VerdictAnswer(_Answer):
    level: str = Field(description="safe, caution, unsafe")
    findings: list[FindingAnswer]


class DeploymentAnswer(_Answer):
    id: str
    app: str
    kind: str = Field(description="deploy, rollback")
    status: str
    image_tag: str
    digest: str | None
    commit_sha: str
    from_image_tag: str | None
    target: TargetAnswer | None
    verdict: VerdictAnswer | None
    requested_by: str
    reason: str
    requested_at: str
    started_at: str | None
    finished_at: str | None
    error: dict[str, Any] | None
    steps: list[StepAnswer] = []


class RollbackAnswer(_Answer):
    """A deployment; with `dryRun` only the plan, its id null."""

    id: str | None
    app: str
    kind: str
    image_tag: str
    unchanged: bool


class DeploymentsAnswer(_Answer):
    deployments: list[DeploymentAnswer]
    cursor: str | None = Field(description="Give it as `cursor` for the next page; null where there is none.")


class OperationAnswer(_Answer):
    id: str
    app: str
    kind: str
    status: str = Field(description="queued, running, succeeded, failed, cancelled")
    requested_by: str
    asks: dict[str, Any] | None = Field(
        default=None, description="What it waits to have confirmed: `about` (loss, room), `message`, and facts."
    )
    steps: list[StepAnswer]


class AppAnswer(_Answer):
    name: str
    role: str | None
    problem: str | None
    live: dict[str, Any] | None
    health: dict[str, Any] | None
    operation: dict[str, Any] | None


class AppsAnswer(_Answer):
    apps: list[AppAnswer]


class ArtifactAnswer(_Answer):
    image_tag: str
    digest: str
    commit_sha: str
    status: str
    deployed_at: str | None
    live: bool
    target: bool


class ArtifactsAnswer(_Answer):
    artifacts: list[ArtifactAnswer]


class SnapshotAnswer(_Answer):
    name: str
    database: str
    commit_sha: str
    size_bytes: int
    taken_at: str
    kept: bool
    verified_at: str | None = Field(description="When a test restore of it last succeeded.")
    exists: bool


class SnapshotsAnswer(_Answer):
    snapshots: list[SnapshotAnswer]


class QuarantinedAnswer(_Answer):
    image_tag: str
    digest: str | None
    commit_sha: str
    deployment_id: str
    why: str
    since: str


class QuarantineAnswer(_Answer):
    quarantine: list[QuarantinedAnswer]


class HealthCheckAnswer(_Answer):
    at: str
    healthy: bool
    wanted: int
    ready: int
    restarts: int
    response_ms: float | None = Field(description="Of the slowest replica; null where none could be asked.")
    message: str


class HealthChecksAnswer(_Answer):
    checks: list[HealthCheckAnswer]


class ServerAnswer(_Answer):
    id: str
    host: str
    started_at: str
    silent_s: float = Field(description="Seconds since it was last heard of.")
    dead: bool


class StaleLeaseAnswer(_Answer):
    operation_id: str
    app: str
    kind: str
    server: str | None
    overdue_s: float


class ServersAnswer(_Answer):
    servers: list[ServerAnswer]
    stale_leases: list[StaleLeaseAnswer]


class FateAnswer(_Answer):
    kind: str = Field(description="image, snapshot, database")
    name: str
    stays: bool
    why: str


class RetentionAnswer(_Answer):
    fates: list[FateAnswer]


class SecretsAnswer(_Answer):
    secrets: list[str]


class DeliveryAnswer(_Answer):
    receiver: str = Field(description="Scheme, host and port; the rest may hold secrets.")
    status: str = Field(description="pending, delivered, undelivered")
    attempts: int
    next_at: str | None
    delivered_at: str | None
    error: str = Field(description="Of the last attempt; empty where there was none.")


class NotificationAnswer(_Answer):
    id: str
    event: str = Field(description="rollback, rollback.automatic, rollback.failed, deploy.failed, restore.failed")
    app: str
    operation_id: str
    at: str
    error: str = Field(description="Why the receivers that its infraspec names are not known; else empty.")
    deliveries: list[DeliveryAnswer]


class NotificationsAnswer(_Answer):
    notifications: list[NotificationAnswer]


class TokenAnswer(_Answer):
    id: str
    name: str
    role: str = Field(description="viewer, operator, deployer, admin")
    apps: list[str] | None = Field(description="Null: all.")
    home: bool = Field(description="It is the file admin-token of a NORN_HOME.")
    created_by: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None = Field(description="To the minute.")
    expired: bool


class NewTokenAnswer(TokenAnswer):
    token: str = Field(description="What lets in. It is shown this once.")


class TokensAnswer(_Answer):
    tokens: list[TokenAnswer]


class NotificationKeyAnswer(_Answer):
    key: str = Field(description="`whsec_…`, by which receivers verify.")


class AuditEntryAnswer(_Answer):
    seq: int
    at: str
    actor: str = Field(description="The name that the history shows.")
    token: str = Field(description="The name of the token that was shown; empty where Norn itself acts.")
    address: str = Field(description="Of the client; empty where Norn itself acts.")
    action: str = Field(examples=["rollback.request"])
    app: str | None = Field(description="Null: it concerns all.")
    subject: str = Field(description="An operation's id, the name of a snapshot, secret or token, a version.")
    reason: str
    outcome: str = Field(description="accepted, done, refused, succeeded, failed, cancelled")
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditAnswer(_Answer):
    entries: list[AuditEntryAnswer]
    cursor: str | None = Field(description="For the next page.")


class HealthAnswer(_Answer):
    status: str = Field(description="ok, degraded, unavailable")
    version: str
    parts: dict[str, Any]
