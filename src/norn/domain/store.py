"""What the operations keep in Norn's database, as protocols; `norn.adapters.postgres` keeps them.

Writing is possible in two ways only. `accepting` takes a request: one at a time per app. `fenced` writes on behalf of
a claimed operation and fails with LeaseLost once another server has taken it over. Both publish the events of what
they changed when they commit, and nothing when they do not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

from norn.domain.audit import Who
from norn.domain.claims import Beat, Begun, Claim
from norn.domain.configuration import Digests
from norn.domain.deployments import Deployment, rfc3339
from norn.domain.health import HealthCheck
from norn.domain.operations import Operation, OperationKind, OperationStatus, Remembered, StepStatus
from norn.domain.ports.audit import Audit
from norn.domain.ports.runtimes import Health
from norn.domain.retention import BuiltImages
from norn.domain.servers import ServerSeen, StaleLease
from norn.domain.snapshots import Snapshot
from norn.domain.surroundings import DatabaseState, Noted, Surroundings


class Now(Enum):
    """The time of the write, by the database's clock."""

    NOW = "now"


NOW = Now.NOW


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed. `seq` follows the order of commits: who has seen n has seen all below n."""

    seq: int
    at: datetime
    app: str
    operation_id: str | None
    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Quarantine:
    image_tag: str
    digest: str | None
    commit_sha: str
    deployment_id: str
    why: str
    since: datetime

    def to_json(self) -> dict[str, Any]:
        return {
            "imageTag": self.image_tag,
            "digest": self.digest,
            "commitSha": self.commit_sha,
            "deploymentId": self.deployment_id,
            "why": self.why,
            "since": rfc3339(self.since),
        }


@dataclass(frozen=True, slots=True)
class Restore:
    """A restored database that has taken the live one's place."""

    id: str
    """Of the operation."""
    app: str
    database: str
    former: str
    """What was live until then is called so now."""
    snapshot: str | None
    """None where this was an undo."""
    undoes: str | None
    """The restore that this one took back."""
    moment: Mapping[str, Any] | None
    """What the database held when it took its place (`Moment` as JSON)."""
    restored_at: datetime
    undone_by: str | None
    dropped_at: datetime | None
    """When the former database was removed."""


@dataclass(frozen=True, slots=True)
class AppState:
    """How an app stands, at one moment and in one round trip."""

    active: Sequence[Operation]
    """Queued and running operations, newest first."""
    live: Deployment | None
    """The deployment that Norn recorded as live."""
    now: datetime
    change: tuple[str, bool]
    """As `Store.newest_change`."""


class Changed(Exception):
    """What a request was decided on has changed since: nothing is written, and it is to be decided anew."""


class Fenced(Protocol):
    """A transaction of one claimed operation."""

    async def begin_step(self, ordinal: int, step: str) -> None: ...

    async def end_step(self, ordinal: int, status: StepStatus, output: str, text: str = "") -> None:
        """With the step's whole (bounded) output; `text` is what of it nobody who follows has heard yet."""
        ...

    async def append_output(self, ordinal: int, step: str, output: str, text: str) -> None:
        """Keep `output` as the step's whole (bounded) output; `text` is what is new, for those who follow."""
        ...

    async def save(self, state: Mapping[str, Any]) -> None: ...

    async def mark(
        self, *, accepted: bool | None = None, committed: bool | None = None, undoing: Mapping[str, Any] | None = None
    ) -> None:
        """Note a point the operation has passed; `undoing` is the error for which it is being undone."""
        ...

    async def end(
        self, status: OperationStatus, error: Mapping[str, Any] | None, result: Mapping[str, Any] | None
    ) -> None: ...

    async def update_deployment(self, **columns: Any) -> None:
        """Set columns of the operation's own deployment; a time may be NOW."""
        ...

    async def follow_with(
        self, operation_id: str, kind: OperationKind, params: Mapping[str, Any], requested_by: str, reason: str
    ) -> bool:
        """With the end of this operation another one of its app is accepted; False where somebody asked for another."""
        ...

    async def add_deployment(self, deployment_id: str, **columns: Any) -> None:
        """The deployment of the operation that follows."""
        ...

    async def make_live(self) -> None:
        """The operation's own deployment is what is live from now on; what was before it is not any more."""
        ...

    async def mark_rolled_back(self, deployment_id: str, why: str) -> None:
        """The operation's own rollback replaced `deployment_id`: mark it and put its image in quarantine."""
        ...

    async def lift_quarantine(self, image_tag: str, digest: str | None, by: str) -> None: ...

    async def ask(self, asks: Mapping[str, Any]) -> None:
        """Have somebody confirm this before the operation goes on."""
        ...

    async def add_snapshot(self, snapshot: Snapshot) -> None: ...

    async def verified(self, name: str, verification: Mapping[str, Any]) -> None:
        """How the verification of a snapshot went: `ok`, `message`, and what was done."""
        ...

    async def snapshot_removed(self, name: str, why: str) -> None: ...

    async def image_built(self, image_tag: str, digest: str) -> None:
        """This installation has built the image, and pushed it where there is a registry."""
        ...

    async def image_removed(self, image_tag: str, digest: str) -> None: ...

    async def add_restore(
        self, database: str, former: str, snapshot: str | None, undoes: str | None, moment: Mapping[str, Any]
    ) -> None:
        """The operation's own restore has taken the live database's place; does nothing where that is known."""
        ...

    async def former_dropped(self, restore_id: str) -> None: ...

    async def note_surroundings(
        self, noted: Noted, database: DatabaseState | None, configuration: Digests | None, *, again: bool
    ) -> None:
        """What is around the operation's own deployment (see `norn.domain.surroundings`).

        `again`: in place of what is noted for that moment already, which stays otherwise.
        """
        ...

    async def note_configuration(self, moment: str, configuration: Digests | None) -> None:
        """What it has been told, in the record of that moment; does nothing where there is none."""
        ...


class Accepting(Protocol):
    """A transaction that takes a request for one app, alone."""

    async def active(self) -> Sequence[Operation]:
        """Queued and running operations of the app, newest first."""
        ...

    async def live_deployment_id(self) -> str | None: ...

    async def add_operation(
        self, operation_id: str, kind: OperationKind, params: Mapping[str, Any], requested_by: str, reason: str
    ) -> None: ...

    async def add_begun(
        self,
        operation_id: str,
        kind: OperationKind,
        params: Mapping[str, Any],
        requested_by: str,
        reason: str,
        begun: Begun,
    ) -> None:
        """As `add_operation`, claimed by this server from the first moment; nothing of the app may be running."""
        ...

    async def claim(self) -> Claim:
        """What `add_begun` has claimed; as `deployment`."""
        ...

    async def add_deployment(self, deployment_id: str, **columns: Any) -> None: ...

    async def deployment(self) -> Deployment:
        """What `add_deployment` has added. Asked for after the transaction, it does not hold that up."""
        ...

    async def lift_quarantine(self, image_tag: str, digest: str | None, by: str) -> None: ...

    async def cancel(self, operation_id: str, by: str, reason: str, *, preempted_by: str | None = None) -> bool:
        """Whether it was still to be cancelled. Raises NotPossible where it was not, and nothing pre-empts it."""
        ...

    async def confirm(self, operation_id: str, by: str) -> bool:
        """Whether the operation still waits for it."""
        ...

    async def remember(self, key: str, request_hash: str, operation_id: str) -> None:
        """Bind an Idempotency-Key to its operation."""
        ...


class Store(Protocol):
    """Everything else is reading."""

    @property
    def audit(self) -> Audit: ...

    def accepting(
        self, app: str, who: Who | None = None, seen: AppState | None = None
    ) -> AbstractAsyncContextManager[Accepting]:
        """`who` is written into the audit, with what is done; None: whoever each thing is requested by.

        With `seen`, nothing is read again. Raises Changed, at the end at the latest, where something else is under way
        or live by now, or the Idempotency-Key is in use.
        """
        ...

    def fenced(self, claim: Claim) -> AbstractAsyncContextManager[Fenced]: ...

    async def now(self) -> datetime:
        """The database's clock: the one that counts."""
        ...

    # ---- the engine ----
    async def register(self, server_id: str) -> None:
        """Make this server known, and free what servers of this machine that are dead by now had claimed."""
        ...

    async def unregister(self, server_id: str) -> None: ...

    async def claim(self, server_id: str, lease_s: float, running: Sequence[str]) -> Claim | None:
        """The next operation to work on: one whose owner has gone, else the oldest queued one whose app is free."""
        ...

    async def beat(self, server_id: str, claims: Mapping[str, int], lease_s: float) -> Beat: ...

    async def release(self, claim: Claim) -> None:
        """Give a claim back: the next server may go on at once."""
        ...

    async def servers(self) -> Sequence[ServerSeen]:
        """All that have registered and not left, dead ones for a day."""
        ...

    async def stale_leases(self) -> Sequence[StaleLease]: ...

    async def hold(self, server_id: str) -> None:
        """For ever: hold what ends with this process, so that the others know at once when it has gone."""
        ...

    def notifications(self) -> AsyncIterator[str]:
        """What servers say as they commit: `operations` (there may be one to claim), `cancel:<id>`, `passed:<id>` (it
        was accepted, committed or has ended) and `events`. Ends never, comes back after lost connections."""
        ...

    # ---- health ----
    async def note_health(self, app: str, health: Health) -> None: ...

    async def health_asked(self, within_s: float) -> frozenset[str]:
        """The apps that somebody has asked in the last so many seconds."""
        ...

    async def health_checks(self, app: str, within_s: float, limit: int) -> Sequence[HealthCheck]:
        """The newest first; they are kept for a day."""
        ...

    # ---- operations and history ----
    async def operation(self, operation_id: str) -> Operation | None: ...

    async def active_operations(self, app: str | None = None) -> Sequence[Operation]: ...

    async def deployment(self, deployment_id: str) -> Deployment | None: ...

    async def deployments(
        self,
        *,
        app: str | None = None,
        apps: Collection[str] | None = None,
        status: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Sequence[Deployment]:
        """Newest first; `before` is the `seq` to go on below. Of one app; else of these apps; else of all."""
        ...

    async def rolled_out(self, app: str, limit: int) -> Sequence[Deployment]:
        """Those that rolled out, whatever became of them; newest first."""
        ...

    async def app_state(self, app: str) -> AppState: ...

    async def deployment_of_digest(self, app: str, digest: str) -> Deployment | None:
        """The newest deployment that rolled out with that image."""
        ...

    async def versions(self, app: str, commit_prefix: str, limit: int = 10) -> Sequence[Deployment]:
        """For each commit that begins so, its newest deployment (one that rolled out, where there is one)."""
        ...

    async def versions_of_tag(self, app: str, image_tag: str) -> Sequence[Deployment]:
        """For each digest that went by exactly that tag, its newest deployment; Norn's own tags have one."""
        ...

    async def quarantined(self, app: str) -> Sequence[Quarantine]: ...

    async def snapshots(self, app: str) -> Sequence[Mapping[str, Any]]: ...

    async def built_images(self, app: str) -> BuiltImages:
        """Those that this installation has built."""
        ...

    async def restores(self, app: str) -> Sequence[Restore]:
        """Newest first; those whose former database is still there, and the last ones besides."""
        ...

    async def newest_change(self) -> tuple[str, bool]:
        """A text that is another one once an operation that can change a database has begun or ended since, or a
        secret was set, and whether such an operation is at work."""
        ...

    async def installation_key(self) -> bytes:
        """32 random bytes that are the same for all servers on this database, and nowhere else."""
        ...

    async def surroundings_noted(self, app: str) -> Sequence[Noted]:
        """Each record that there is, the newest first."""
        ...

    async def surroundings(self, deployment_id: str, moment: str) -> Surroundings | None: ...

    async def remembered(self, key: str) -> Remembered | None:
        """What an Idempotency-Key is bound to."""
        ...

    async def remember_answer(self, key: str, request_hash: str, operation_id: str) -> bool:
        """Bind an Idempotency-Key to an operation that was there already; False where it is bound by now."""
        ...

    # ---- events ----
    async def events_after(
        self, seq: int, *, app: str | None = None, operation: str | None = None, limit: int = 500
    ) -> Sequence[Event]: ...

    async def kept_events(self) -> tuple[int, int]:
        """The numbers of the oldest and the newest event; (1, 0) where there has been none, (n + 1, n) where none is
        left."""
        ...
