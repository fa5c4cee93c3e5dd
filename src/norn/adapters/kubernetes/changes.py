"""Changes a Kubernetes Deployment: the image alone, a whole template, or what the infraspec declares.

Each change looks first, so that it may be asked for again after a crash or a lost answer, and says in its
preconditions what it saw. A server that was stopped in between and goes on later finds a higher fence than its own, or
that another change was accepted since, and leaves it at that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from norn.adapters.kubernetes import manifests
from norn.adapters.kubernetes.client import Cluster, Conflict, PatchTestFailed
from norn.adapters.kubernetes.patches import (
    annotate,
    fenced,
    image_patch,
    made_live,
    pointer,
    resumed,
    template_patch,
    unchanged_since,
)
from norn.adapters.kubernetes.preconditions import (
    Order,
    always_changed,
    confirming,
    images_for,
    nothing_live,
    nothing_there,
    paused,
    refuse_foreign,
    refuse_late,
    superseded,
)
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Deployment, Object, annotations_of
from norn.adapters.kubernetes.workload import BEGUN, CHANGE, DEPLOYMENT, RESTARTED, Note, Workload, running
from norn.domain.ports import Release, Switch, Turn
from norn.errors import Busy, RolloutFailed

log = structlog.get_logger(__name__)

_LOOKS = 4
"""How often a change looks again when somebody else was quicker."""
_LOOKS_AT_ALL = 12
"""The same where anything counts that has changed of the object, its status as well."""


class Changes:
    def __init__(self, cluster: Cluster, mirror: Mirror) -> None:
        self._cluster = cluster
        self._mirror = mirror

    async def _workload(self, app: str, *, fresh: bool) -> Workload:
        obj = await (self._mirror.refresh(app) if fresh else self._mirror.deployment(app))
        if obj is None:
            raise nothing_there(app)
        return Workload(obj)

    async def _patch(self, workload: Workload, operations: Sequence[Object]) -> None:
        """Change what runs."""
        obj = await self._patched(workload, operations)
        log.info("patch_accepted", app=workload.name, operation=annotations_of(obj).get(DEPLOYMENT))

    async def _patched(self, workload: Workload, operations: Sequence[Object]) -> Object:
        obj = await self._cluster.json_patch(Deployment, workload.name, operations)
        if obj is None:
            raise nothing_there(workload.name)
        self._mirror.deployments.put(obj)
        return obj

    # ---- the image alone -----------------------------------------------------------------------------------------

    async def switch(
        self,
        switch: Switch,
        turn: Turn | None,
        refuse: Callable[[Workload], None],
        more: Mapping[str, str | None] = {},
    ) -> None:
        """Change the image of the app's containers, and nothing else, from what was seen live.

        Without a turn where there is no server. `more` are annotations of the object that are set with it.

        `refuse` raises where what is there is not what the caller saw. Raises RolloutFailed, Busy.
        """
        tries = 0

        async def attempt() -> None:
            nonlocal tries
            for _ in range(_LOOKS):
                tries += 1
                workload = await self._workload(switch.app, fresh=tries > 1)
                refuse_late(workload, turn)
                images = images_for(workload, switch)
                done = workload.images(list(images)) == images
                if done and workload.change is not None and workload.change.deployment_id == switch.deployment_id:
                    return  # carried out before the answer was lost
                refuse(workload)
                note = Note(switch.deployment_id, switch.image.tag, switch.image.digest, images)
                cause = f"norn rollback to {switch.image.tag} ({switch.deployment_id})"
                operations = image_patch(workload, images, note, cause, turn, resume=switch.resume)
                try:
                    await self._patch(workload, operations + annotate(workload, more))
                    return
                except PatchTestFailed:
                    continue  # somebody was quicker, or the copy was old: look again, and decide again
            raise Busy(
                f"Somebody else changes {switch.app} all the time: {_LOOKS} attempts failed.",
                hint="Look for another deploy tool.",
            )

        await self._cluster.patiently(attempt)

    # ---- more than the image -------------------------------------------------------------------------------------

    async def restore(
        self,
        release: Release,
        turn: Turn,
        template: Object,
        images: Mapping[str, str],
        refuse: Callable[[Workload], None],
    ) -> None:
        """Bring back a pod template as it was recorded, whole. `refuse` as for `switch`."""
        order = Order(release.deployment_id, turn)

        async def attempt() -> None:
            for _ in range(_LOOKS):
                workload = await self._workload(release.app, fresh=True)
                order.refuse_others(workload)
                change = workload.change.deployment_id if workload.change is not None else None
                if change == release.deployment_id and workload.pod_template == template:
                    return
                refuse(workload)
                note = Note(release.deployment_id, release.image.tag, release.image.digest, images)
                cause = f"norn rollback to {release.image.tag} with its template ({release.deployment_id})"
                operations = template_patch(workload, template, note, cause, turn, resume=release.resume)
                try:
                    await self._patch(workload, operations)
                    return
                except PatchTestFailed:
                    continue
            raise always_changed(release.app)

        await self._cluster.patiently(attempt)

    async def apply(self, release: Release, turn: Turn, refuse: Callable[[Workload], None]) -> None:
        """Make or change the Deployment as the infraspec says; `replicas` only where Norn makes it.

        `refuse` as for `switch`.

        Raises ForeignFields where somebody else has set one of the fields to something else, LeaseLost.
        """
        wanted, order = manifests.deployment(release, turn), Order(release.deployment_id, turn)

        async def attempt() -> None:
            force = False
            for _ in range(_LOOKS_AT_ALL):
                before = await self._mirror.refresh(release.app)
                if before is not None:
                    order.refuse_others(Workload(before))
                    refuse(Workload(before))
                else:
                    force = False
                try:
                    obj = await self._cluster.apply(Deployment, manifests.as_seen(wanted, before), force=force)
                except Conflict as conflict:
                    if before is not None and conflict.causes:  # none: it has changed since the look
                        refuse_foreign(release, conflict)
                        force = True
                    continue
                self._mirror.deployments.put(obj)
                try:
                    await self._begin(Workload(obj), release, turn)
                    return
                except PatchTestFailed:
                    continue
            raise always_changed(release.app)

        async with confirming(turn, lambda: self.remove(release.app, turn, lambda found: not found.begun)):
            await self._cluster.patiently(attempt)

    async def _begin(self, workload: Workload, release: Release, turn: Turn) -> None:
        """What was applied runs: all that is left to do of a Deployment that has never been let run.

        That one is made without replicas. Where there was none it cannot be told whether this is early or late: whoever
        came after may have made one and removed it again. So the claim is confirmed while nothing runs, and what lets
        it run finds this very object, or none. Raises PatchTestFailed, LeaseLost.
        """
        operations, replicas = resumed(workload, release.resume), release.template.replicas
        if not workload.begun:
            await turn.confirm()
            operations += annotate(workload, {BEGUN: "yes"})
            if workload.replicas != replicas:
                operations.append({"op": "add", "path": "/spec/replicas", "value": replicas})
        if not operations:
            return
        obj = await self._cluster.json_patch(Deployment, workload.name, unchanged_since(workload) + operations)
        if obj is None:
            raise PatchTestFailed(f"{workload.name} was removed meanwhile.")
        self._mirror.deployments.put(obj)

    async def remove(self, app: str, turn: Turn, holds: Callable[[Workload], bool] = lambda _: True) -> bool:
        """Remove the Deployment, where this operation's change came last, nothing has rolled out on it, and it `holds`.

        False where it stays.
        """

        async def attempt() -> bool:
            for _ in range(_LOOKS_AT_ALL):
                obj = await self._mirror.refresh(app)
                if obj is None:
                    return True
                workload = Workload(obj)
                refuse_late(workload, turn)
                own = workload.change_id == turn.operation_id
                if not own or workload.live is not None or not holds(workload):
                    return False
                try:
                    await self._cluster.delete_as_seen(Deployment, obj)
                except PatchTestFailed:
                    continue
                return True
            raise always_changed(app)

        return await self._cluster.patiently(attempt)

    async def preview(self, release: Release) -> None:
        """Ask the API server whether `apply` would go through. Raises ForeignFields, ClusterRefused."""
        try:
            await self._cluster.apply(Deployment, manifests.deployment(release), dry_run=True)
        except Conflict as conflict:
            refuse_foreign(release, conflict)

    async def restart(self, app: str, turn: Turn, digest: str) -> None:
        """New pods of the same image: the one change of the pod template that is meant to make them.

        `digest` is what runs, for an image that somebody has set by hand and named by a tag alone.
        """
        operation_id = turn.operation_id
        order = Order(operation_id, turn)

        async def attempt() -> None:
            for _ in range(_LOOKS):
                workload = await self._workload(app, fresh=True)
                order.refuse_others(workload)
                if workload.foreign or workload.live is None:
                    raise nothing_live(app)
                if workload.change_id == operation_id:
                    return
                if workload.paused:
                    raise paused(app)
                note = running(workload, digest)  # a restart is an operation, and no version
                metadata = workload.pod_template.get("metadata") or {}
                operations = unchanged_since(workload)
                if "annotations" not in metadata:
                    operations.append({"op": "add", "path": "/spec/template/metadata/annotations", "value": {}})
                operations.append({"op": "add", "path": f"/spec/template{pointer(RESTARTED)}", "value": operation_id})
                values = {DEPLOYMENT: operation_id, CHANGE: note.to_text()} | fenced(turn)
                try:
                    await self._patch(workload, [*operations, *annotate(workload, values)])
                    return
                except PatchTestFailed:
                    continue
            raise always_changed(app)

        await self._cluster.patiently(attempt)

    # ---- how much of it runs -------------------------------------------------------------------------------------

    async def scale(self, app: str, turn: Turn | None, patch: Callable[[Workload], Sequence[Object]]) -> Workload:
        """Change the number of replicas by what `patch` says of the Deployment as it is.

        Where that is nothing the turn leaves its mark all the same. Raises RolloutFailed, Busy.
        """

        async def attempt() -> Workload:
            for _ in range(_LOOKS):
                workload = await self._workload(app, fresh=True)
                refuse_late(workload, turn)
                operations = patch(workload)
                if not operations and (turn is None or workload.fence == turn.fence):
                    return workload
                marked = [*unchanged_since(workload), *operations, *annotate(workload, fenced(turn))]
                try:
                    await (self._patch if operations else self._patched)(workload, marked)
                except PatchTestFailed:
                    continue
                return await self._workload(app, fresh=True)
            raise Busy(f"Somebody else scales {app} all the time.", hint="Look for an autoscaler, or a colleague.")

        return await self._cluster.patiently(attempt)

    # ---- notes ---------------------------------------------------------------------------------------------------

    async def note(
        self,
        app: str,
        turn: Turn | None,
        values: Mapping[str, str | None],
        holds: Callable[[Workload], bool] = lambda _: True,
    ) -> bool:
        """Set annotations of the object; nothing that runs notices. False, and nothing is set, where not `holds`."""

        async def attempt() -> bool:
            for _ in range(_LOOKS_AT_ALL):
                workload = await self._workload(app, fresh=True)
                refuse_late(workload, turn)
                if not holds(workload):
                    return False
                version = workload.obj["metadata"]["resourceVersion"]  # nothing else to go by where it is not Norn's
                seen = unchanged_since(workload) or [
                    {"op": "test", "path": "/metadata/resourceVersion", "value": version}
                ]
                try:
                    await self._patched(workload, seen + annotate(workload, {**values, **fenced(turn)}))
                except PatchTestFailed:
                    continue
                return True
            raise always_changed(app)

        return await self._cluster.patiently(attempt)

    async def take_turn(self, app: str, turn: Turn) -> Workload | None:
        """Leave the mark of this turn, so that whoever comes late is refused, and only then look.

        None where there is nothing, or nothing of Norn's, or another installation has changed it since. LeaseLost.
        """
        obj = await self._cluster.patiently(lambda: self._mirror.refresh(app))
        if obj is None:
            return None
        try:
            if not await self.note(app, turn, {}, lambda found: not found.foreign):
                return None
            return await self._cluster.patiently(lambda: self._workload(app, fresh=True))
        except RolloutFailed:
            await turn.confirm()  # or it is this server that comes late
            return None

    async def note_live(self, workload: Workload, turn: Turn | None) -> None:
        """What was accepted last has rolled out."""
        note = workload.change
        assert note is not None
        live = workload.live
        if live is not None and (live.deployment_id, live.containers) == (note.deployment_id, note.containers):
            return  # a restart is no new version
        change = workload.change_id
        values = made_live(note, datetime.now(UTC))
        if not await self.note(workload.name, turn, values, lambda found: found.change_id == change):
            raise superseded(await self._workload(workload.name, fresh=True))
