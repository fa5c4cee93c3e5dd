"""A rollback without a server: all that it needs are a kubeconfig and the notes on the object."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from norn.adapters.kubernetes.changes import Changes
from norn.adapters.kubernetes.client import Cluster, PatchTestFailed
from norn.adapters.kubernetes.patches import annotate, pointer
from norn.adapters.kubernetes.pods import Mark
from norn.adapters.kubernetes.preconditions import paused
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Deployment, Object
from norn.adapters.kubernetes.rollouts import RolloutWatch
from norn.adapters.kubernetes.workload import DIRECT, WAY_BACK, Note, Workload
from norn.domain.images import Image
from norn.domain.ports import Direct, Output, Switch
from norn.errors import NothingToRollBackTo, NotPossible

_KEPT = 10
"""So many are kept until a server takes them into the history: an annotation has no room without end."""


async def forget_direct(cluster: Cluster, mirror: Mirror, app: str, operation_id: str) -> None:
    """Remove the note of one that is in the history. Where another one is made meanwhile the next look finds both."""
    obj = await mirror.refresh(app)
    if obj is None or not (operations := without_direct(Workload(obj), operation_id)):
        return
    with contextlib.suppress(PatchTestFailed):
        await cluster.json_patch(Deployment, app, operations)
    await mirror.refresh(app)


@dataclass(frozen=True, slots=True)
class DirectPlan:
    """Where a rollback without a server goes to, and why."""

    workload: Workload
    target: Note
    why: str
    undoes: bool
    """What is undone has not rolled out: the way back of what is live stays what it is."""

    @property
    def unchanged(self) -> bool:
        return self.workload.runs(self.target)

    @property
    def from_image(self) -> str:
        change = self.workload.change
        if change is not None and self.workload.runs(change):
            return change.image_tag
        return ", ".join(self.workload.images(self.workload.managed).values())


def plan_direct(workload: Workload) -> DirectPlan:
    """A change that has not rolled out is undone; else it goes to the previous known-good version.

    Raises NothingToRollBackTo.
    """
    if workload.live is not None and not workload.runs(workload.live):
        why = "it rolled out last; what is there now has not, or was changed by hand"
        return DirectPlan(workload, workload.live, why, undoes=True)
    if workload.way_back is None:
        raise NothingToRollBackTo(
            f"The Kubernetes Deployment {workload.name} has no note of a version to go back to.",
            hint=f"`kubectl set image deployment/{workload.name} CONTAINER=IMAGE` sets any image; "
            f"`kubectl get replicasets -o wide` shows earlier ones.",
            skipped=[],
        )
    return DirectPlan(workload, workload.way_back, "the previous known-good version, as noted on the object", False)


def read_direct(workload: Workload) -> Direct | None:
    """The first of such rollbacks that no server has taken in yet; None where there is none."""
    return next(iter(_read(workload)), None)


def _read(workload: Workload) -> list[Direct]:
    """The notes that they leave, oldest first; none where another change came after them, or they make no sense."""
    change = workload.change
    try:
        notes = json.loads(workload.annotations.get(DIRECT) or "[]")
        if isinstance(notes, dict):  # as it was once: the last one alone, without what the change itself says
            notes = [{"imageTag": change.image_tag, "digest": change.digest} | notes] if change is not None else []
        if not notes or change is None or notes[-1]["id"] != change.deployment_id:
            return []
        return [
            Direct(
                str(note["id"]),
                str(note["by"]),
                str(note["reason"]),
                Image(str(note["imageTag"]), str(note["digest"]), ""),
                str(note["target"]),
                str(note["from"]),
                str(note["fromImageTag"]),
            )
            for note in notes
        ]
    except (ValueError, TypeError, LookupError):
        return []


def _written(made: Sequence[Direct]) -> str | None:
    """The last of them; None where there are none."""
    notes = [
        {
            "id": one.id,
            "by": one.by,
            "reason": one.reason,
            "imageTag": one.image.tag,
            "digest": one.image.digest,
            "target": one.target_deployment_id,
            "from": one.from_deployment_id,
            "fromImageTag": one.from_image_tag,
        }
        for one in made[-_KEPT:]
    ]
    return json.dumps(notes, separators=(",", ":")) if notes else None


def with_direct(workload: Workload, made: Direct) -> str | None:
    """The notes, with one more."""
    return _written([*_read(workload), made])


def without_direct(workload: Workload, operation_id: str) -> list[Object]:
    """Operations that remove the note of one that is in the history; only if nobody has made another one meanwhile."""
    text = workload.annotations.get(DIRECT)
    if text is None:
        return []
    left = _written([made for made in _read(workload) if made.id != operation_id])
    return [{"op": "test", "path": pointer(DIRECT), "value": text}, *annotate(workload, {DIRECT: left})]


class DirectRollback:
    """Looks, changes, watches: once, from the command line."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._mirror = Mirror(cluster)

    async def plan(self, app: str) -> DirectPlan:
        """Raises NothingToRollBackTo, NotPossible, RuntimeUnavailable."""
        obj = await self._cluster.get(Deployment, app)
        if obj is None:
            raise NothingToRollBackTo(
                f"There is no Kubernetes Deployment {app} in the namespace {self._cluster.namespace}.",
                hint="NORN_NAMESPACE says where to look.",
                skipped=[],
            )
        workload = Workload(obj)
        if workload.halted:
            raise NotPossible(
                f"{app} is stopped in the middle of a rollback of code and data: which data is live is not known here.",
                hint="Start a Norn server: it brings that rollback to its end, and the app back.",
            )
        return plan_direct(workload)

    async def run(
        self, plan: DirectPlan, operation_id: str, by: str, reason: str, *, resume: bool, timeout_s: float,
        output: Output,
    ) -> None:  # fmt: skip
        """The same patch and the same watch as a server's. Raises Paused, RolloutFailed, RuntimeUnavailable."""
        app, target = plan.workload.name, plan.target
        live = plan.workload.live
        image = Image(target.image_tag, target.digest, "")
        comes_from = live.deployment_id if live is not None and not plan.undoes else ""
        made = Direct(operation_id, by, reason, image, target.deployment_id, comes_from, plan.from_image)
        more: dict[str, str | None] = {}
        if not plan.undoes:
            more[WAY_BACK] = None  # going back again would come here
        switch = Switch(app, operation_id, image, {"containers": dict(target.containers)}, resume=resume)

        def refuse(workload: Workload) -> None:
            if workload.paused and not resume:
                raise paused(app)
            more[DIRECT] = with_direct(workload, made)  # of what is there at this attempt

        self._mirror.start()
        try:
            changes = Changes(self._cluster, self._mirror)
            await changes.switch(switch, None, refuse, more)
            output(f"image changed to {target.image_tag}\n")
            watch = RolloutWatch(self._cluster, self._mirror, app, operation_id, output)
            workload = await watch.to_the_end(Mark.of(plan.workload), timeout_s)
            await changes.note_live(workload, None)
        finally:
            await self._mirror.stop()
