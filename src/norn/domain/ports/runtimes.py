"""Images, and what runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from norn.domain.configuration import Shape, Texts
from norn.domain.images import Image
from norn.domain.infraspec import Infraspec
from norn.domain.ports.output import Output
from norn.domain.retention import BuiltImages, StoredImage
from norn.domain.verdict import Finding


@dataclass(frozen=True, slots=True)
class Template:
    """How an image is run: all that a rollback of the image alone leaves as it is."""

    role: str
    replicas: int
    port: int | None
    healthcheck: str | None
    env: Mapping[str, str]
    secrets: tuple[str, ...]
    """Names only; values are looked up when a process starts."""
    rollout_timeout_s: float
    internal_host: str | None = None
    """The name of a Service, where the runtime has such a thing."""

    @classmethod
    def of(cls, spec: Infraspec) -> Template:
        """How an image of this infraspec is run."""
        return cls(
            role=spec.role,
            replicas=spec.replicas,
            port=spec.port,
            healthcheck=spec.healthcheck,
            env=dict(spec.env),
            secrets=spec.secrets,
            rollout_timeout_s=spec.rollback.timeout_s,
            internal_host=spec.hosts.internal,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "replicas": self.replicas,
            "port": self.port,
            "healthcheck": self.healthcheck,
            "env": dict(self.env),
            "secrets": list(self.secrets),
            "rolloutTimeoutS": self.rollout_timeout_s,
            "internalHost": self.internal_host,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Template:
        return cls(
            role=value["role"],
            replicas=value["replicas"],
            port=value["port"],
            healthcheck=value["healthcheck"],
            env=dict(value["env"]),
            secrets=tuple(value["secrets"]),
            rollout_timeout_s=value["rolloutTimeoutS"],
            internal_host=value.get("internalHost"),
        )


Workload = Mapping[str, Any]
"""What a runtime itself has written down of a version that was live, so as to bring exactly that back; as JSON.

Empty for a runtime to which image and template say it all.
"""


@dataclass(frozen=True, slots=True)
class Release:
    """An image under a template, on behalf of one deployment."""

    app: str
    deployment_id: str
    image: Image
    template: Template
    workload: Workload | None = None
    """Where given: how the runtime ran this version when it was live; exactly that is brought back."""
    force: bool = False
    """Take over what others have changed by hand, too."""
    resume: bool = False
    expected_digest: str | None = None
    expected_tag: str = ""
    """As of a `Switch`, where the caller looked at what is live before."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A change of the image alone, on behalf of one deployment."""

    app: str
    deployment_id: str
    image: Image
    workload: Workload | None = None
    """What the runtime had written down of the version that is gone to, if it had."""
    expected_digest: str | None = None
    """What the caller saw live; where something else is live by now, Stale is raised. None: whatever is live."""
    expected_tag: str = ""
    """What it was called: all that can be compared where the runtime names what is live by a tag alone."""
    resume: bool = False
    """Let a rollout go on that somebody has paused."""


@dataclass(frozen=True, slots=True)
class Turn:
    """On whose behalf a runtime changes an app, and how its changes stand to those of others.

    A server may be stopped for any time just before a call, and go on after others have had their turn. So a runtime
    that several servers reach keeps the highest fence that it has seen of each app, with everything that a turn does,
    and refuses what comes with a lower one: RolloutFailed, reason `superseded`. (A fencing token: Martin Kleppmann, How
    to do distributed locking, 2016.)
    """

    operation_id: str
    fence: int
    confirm: Callable[[], Awaitable[None]]
    """Raises LeaseLost once another server has taken over: for what leaves nothing behind that could be compared."""


@dataclass(frozen=True, slots=True)
class Direct:
    """A rollback that was made on the runtime itself, while no server was there to write it down."""

    id: str
    by: str
    reason: str
    image: Image
    """As far as the runtime's own notes say; without a commit."""
    target_deployment_id: str
    from_deployment_id: str
    from_image_tag: str


class Presence(StrEnum):
    """Whether an image can still be had."""

    PRESENT = "present"
    GONE = "gone"
    UNKNOWN = "unknown"
    """Whoever keeps the images does not answer, or does not let Norn look."""


@dataclass(frozen=True, slots=True)
class Found:
    presence: Presence
    why: str = ""
    """For UNKNOWN: what the answer was."""


@dataclass(frozen=True, slots=True)
class Live:
    """What the runtime says is live: from the runtime, not from Norn's memory."""

    image_tag: str
    digest: str
    deployment_id: str | None
    """The deployment that the runtime has noted for it, if it has."""
    since: datetime
    coming: Live | None = None
    """What was accepted after it and has not rolled out: it may never, and stay for all that."""


@dataclass(frozen=True, slots=True)
class Health:
    """How what is live is doing at this moment."""

    wanted: int
    ready: int
    restarts: int
    """Restarts of the live processes since they were started for this release."""
    message: str = ""
    """The first reason why something is not ready, in the runtime's words; empty where all is."""
    response_ms: float | None = None
    """How long the slowest replica took to answer its health check; None where nobody could be asked."""

    @property
    def healthy(self) -> bool:
        return self.ready >= self.wanted


@dataclass(frozen=True, slots=True)
class Bounds:
    """What removing an image must not touch."""

    staying: frozenset[str]
    """Tags of the app that stay."""
    own: frozenset[str]
    """All tags of the app that this installation has ever pushed."""
    registry: Literal["keep", "delete"] | None = None
    """`artifacts.registry` of the infraspec; None: only where nobody else has a tag."""


class Images(Protocol):
    """Builds and keeps images."""

    def tag(self, app: str, commit_sha: str) -> str:
        """The tag under which the build of a commit is known."""
        ...

    async def find(self, app: str, tag: str) -> Image | None:
        """The image under that tag, None where it does not exist (any longer)."""
        ...

    async def look(self, app: str, image: Image) -> Found:
        """Whether what runs for this image, its digest, can still be had. Answers within seconds, never raises."""
        ...

    async def build(self, spec: Infraspec, commit_sha: str, context: Path, output: Output) -> Image:
        """Build the exported tree in `context` (which is used up) into an image; returns an existing one as it is.

        Raises BuildFailed.
        """
        ...

    async def test(self, spec: Infraspec, image: Image, scratch: Path, output: Output) -> None:
        """Run `build.test` in the image, with `scratch` (new, removed by the caller) to work in. AppTestsFailed."""
        ...

    async def stored(self, app: str, built: BuiltImages) -> Sequence[StoredImage]:
        """The app's images that exist and are this installation's to remove."""
        ...

    async def remove(self, app: str, image: StoredImage, bounds: Bounds) -> str:
        """Remove an image: empty where it is gone now, else why it stays. Raises RegistryUnavailable."""
        ...


class Runtime(Protocol):
    """Where the apps run. Changing what runs is two calls: one that the runtime accepts at once, and `watch`."""

    name: str

    async def live(self, app: str) -> Live | None:
        """What requests are answered by now (for a worker: what works now); None where nothing was ever rolled out."""
        ...

    async def health(self, app: str) -> Health | None:
        """Asks each replica now; None where nothing was ever rolled out."""
        ...

    async def findings(self, app: str) -> Sequence[Finding]:
        """What about the way it runs at this moment is worth knowing before it is changed."""
        ...

    async def configuration(self, app: str) -> Texts:
        """What the live processes are told when they start, as far as Norn may read it: to be hashed, never stored."""
        ...

    def shape(self, workload: Workload, template: Template | None) -> Shape:
        """What of the way a version is run has to fit its image, from what was noted of it; empty: nothing is known."""
        ...

    async def preflight(self, spec: Infraspec, *, force: bool) -> None:
        """Before anything is built: would a rollout be possible at all (port free, …)?

        With `force`, what others have changed by hand is no hindrance. Raises RolloutFailed, Paused, ForeignFields.
        """
        ...

    async def refuse_paused(self, app: str) -> None:
        """Raises Paused where a change would be accepted, and nothing would come of it."""
        ...

    async def foreign(self, app: str) -> bool:
        """Whether something of that name runs that Norn has not made and not adopted."""
        ...

    async def adopt(self, app: str, turn: Turn, container: str | None) -> Image:
        """Take over what somebody else has made, as it runs; from then on only its image is changed.

        Nothing that runs is changed. Raises NotPossible.
        """
        ...

    async def apply(self, release: Release, turn: Turn) -> None:
        """A deploy: run this image under this template. Durable on return; nothing has rolled out yet."""
        ...

    async def set_image(self, switch: Switch, turn: Turn) -> None:
        """A rollback: change the image and nothing else. Durable on return. Raises Stale, Paused, RolloutFailed."""
        ...

    async def restart(self, app: str, turn: Turn) -> None:
        """Replace all processes by new ones of the same image and template. Durable on return."""
        ...

    async def halt(self, app: str, turn: Turn, output: Output) -> None:
        """End all that runs of an app and keep it so until `bring_back`; how much ran is remembered, durably.

        What is changed meanwhile (`set_image`, `watch`) is live without running. Returns once nothing runs any more;
        requests are answered with an error by then. Raises RolloutFailed where it does not end.
        """
        ...

    async def bring_back(self, app: str, turn: Turn | None, timeout_s: float, output: Output) -> None:
        """Run as much as before `halt`, and see it healthy. Of an app that runs: only that. Raises RolloutFailed.

        Without a turn where nobody's operation is under way.
        """
        ...

    async def halted(self) -> Sequence[str]:
        """The apps that `halt` has ended and `bring_back` has not brought back."""
        ...

    async def watch(self, app: str, deployment_id: str, turn: Turn | None, timeout_s: float, output: Output) -> None:
        """Bring the accepted change of `deployment_id` to its end, without losing a request; returns once all of it
        is live and what was before is gone.

        Raises RolloutFailed (with `reason` and the end of the process's log) as soon as it is certain.
        """
        ...

    async def available(self, app: str, deployment_id: str) -> int:
        """How many replicas of a change that has not rolled out answer requests all the same."""
        ...

    async def put_back(self, app: str, turn: Turn, previous: Workload | None, output: Output) -> None:
        """Undo the change of this operation where it is not live yet: what is live stays live, alone.

        Whoever was to make that change, and comes to it only now, is refused. `previous` is what `workload` said before
        the change. Raises RolloutFailed where that is ill as well.
        """
        ...

    async def workload(self, app: str) -> Workload:
        """What is to be remembered of the version that is live, to bring back exactly that."""
        ...

    async def note_way_back(self, app: str, turn: Turn, live: str | None, way_back: Release | None) -> None:
        """Note where a rollback would go to, for the day on which Norn itself is down.

        `live` is the deployment that it leads back from, by the runtime's own note; nothing is noted once another is.
        """
        ...

    async def direct(self, app: str) -> Direct | None:
        """The first rollback that was made without a server and is not in the history yet."""
        ...

    async def forget_direct(self, app: str, operation_id: str) -> None:
        """It is in the history by now."""
        ...

    async def job_runs(self, app: str, name: str, operation_id: str) -> bool:
        """Whether a job that an interrupted server began is still at work, so that `run_job` goes on with it."""
        ...

    async def run_job(
        self,
        release: Release,
        turn: Turn,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        output: Output,
    ) -> None:
        """Run a command in an image once, to its end, with the app's own environment and `env` over it.

        `release.deployment_id` is the operation that it belongs to. Nothing of it is left then. Raises ProgramFailed,
        LeaseLost.
        """
        ...

    async def end_job(self, app: str, turn: Turn, name: str) -> None:
        """End what is left of a job: its operation was cancelled or has failed."""
        ...

    async def database_url(self, spec: Infraspec) -> str | None:
        """The DATABASE_URL that the app's processes get; None where Norn may not know."""
        ...

    def logs(self, app: str, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """The last `tail` lines of the live processes' output, then, with `follow`, more as it comes."""
        ...
