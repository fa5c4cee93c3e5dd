"""A rollback without a server: all that it needs are a kubeconfig and the notes on the object."""

from __future__ import annotations

import json
from dataclasses import dataclass

from norn.adapters.kubernetes.changes import Changes, paused
from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.pods import Mark
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Deployment
from norn.adapters.kubernetes.rollouts import RolloutWatch
from norn.adapters.kubernetes.workload import DIRECT, WAY_BACK, Note, Workload
from norn.domain.images import Image
from norn.domain.ports import Direct, Output, Switch
from norn.errors import NothingToRollBackTo, NotPossible


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
    """The note that such a rollback leaves; None where there is none, or nobody can make sense of it."""
    change = workload.change
    try:
        value = json.loads(workload.annotations.get(DIRECT) or "null")
        if value is None or change is None or value["id"] != change.deployment_id:
            return None
        return Direct(
            str(value["id"]),
            str(value["by"]),
            str(value["reason"]),
            Image(change.image_tag, change.digest, ""),
            str(value["target"]),
            str(value["from"]),
            str(value["fromImageTag"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


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
        note = {
            "id": operation_id,
            "by": by,
            "reason": reason,
            "target": target.deployment_id,
            "from": live.deployment_id if live is not None and not plan.undoes else "",
            "fromImageTag": plan.from_image,
        }
        more: dict[str, str | None] = {DIRECT: json.dumps(note, separators=(",", ":"))}
        if not plan.undoes:
            more[WAY_BACK] = None  # going back again would come here
        image = Image(target.image_tag, target.digest, "")
        switch = Switch(app, operation_id, image, {"containers": dict(target.containers)}, resume=resume)

        def refuse(workload: Workload) -> None:
            if workload.paused and not resume:
                raise paused(app)

        self._mirror.start()
        try:
            changes = Changes(self._cluster, self._mirror)
            await changes.switch(switch, refuse, more)
            output(f"image changed to {target.image_tag}\n")
            watch = RolloutWatch(self._cluster, self._mirror, app, operation_id, output)
            workload = await watch.to_the_end(Mark.of(plan.workload), timeout_s)
            await changes.note_live(workload)
        finally:
            await self._mirror.stop()
