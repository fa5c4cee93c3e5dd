"""Changes a Kubernetes Deployment: the image alone, a whole template, or what the infraspec declares.

Each change looks first, so that it may be asked for again after a crash or a lost answer, and says in its
preconditions what it saw. A server that was stopped in between and goes on later finds that another change was accepted
since, and leaves it at that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from norn.adapters.kubernetes import manifests
from norn.adapters.kubernetes.client import MANAGER, Cluster, Conflict, PatchTestFailed
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Deployment, Object, annotations_of
from norn.adapters.kubernetes.workload import (
    CHANGE,
    DEPLOYMENT,
    LIVE,
    PREFIX,
    RESTARTED,
    Note,
    Workload,
    annotate,
    image_patch,
    live_of,
    made_live,
    reference_of,
    resumed,
    running,
    template_patch,
    unchanged_since,
)
from norn.domain.ports import Release, Switch
from norn.errors import Busy, ForeignFields, Paused, RolloutFailed, Stale

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
        self, switch: Switch, refuse: Callable[[Workload], None], more: Mapping[str, str | None] = {}
    ) -> None:
        """Change the image of the app's containers, and nothing else, from what was seen live.

        `more` are annotations of the object that are set with it.

        `refuse` raises where what is there is not what the caller saw. Raises RolloutFailed, Busy.
        """
        tries = 0

        async def attempt() -> None:
            nonlocal tries
            for _ in range(_LOOKS):
                tries += 1
                workload = await self._workload(switch.app, fresh=tries > 1)
                images = images_for(workload, switch)
                done = workload.images(list(images)) == images
                if done and workload.change is not None and workload.change.deployment_id == switch.deployment_id:
                    return  # carried out before the answer was lost
                refuse(workload)
                note = Note(switch.deployment_id, switch.image.tag, switch.image.digest, images)
                cause = f"norn rollback to {switch.image.tag} ({switch.deployment_id})"
                operations = image_patch(workload, images, note, cause, resume=switch.resume)
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
        self, release: Release, template: Object, images: Mapping[str, str], refuse: Callable[[Workload], None]
    ) -> None:
        """Bring back a pod template as it was recorded, whole. `refuse` as for `switch`."""
        turn = _Turn(release.deployment_id)

        async def attempt() -> None:
            for _ in range(_LOOKS):
                workload = await self._workload(release.app, fresh=True)
                turn.refuse_others(workload)
                change = workload.change.deployment_id if workload.change is not None else None
                if change == release.deployment_id and workload.pod_template == template:
                    return
                refuse(workload)
                note = Note(release.deployment_id, release.image.tag, release.image.digest, images)
                cause = f"norn rollback to {release.image.tag} with its template ({release.deployment_id})"
                operations = template_patch(workload, template, note, cause, resume=release.resume)
                try:
                    await self._patch(workload, operations)
                    return
                except PatchTestFailed:
                    continue
            raise _always_changed(release.app)

        await self._cluster.patiently(attempt)

    async def apply(self, release: Release, refuse: Callable[[Workload], None]) -> None:
        """Make or change the Deployment as the infraspec says; `replicas` only where Norn makes it.

        `refuse` as for `switch`.

        Raises ForeignFields where somebody else has set one of the fields to something else.
        """
        wanted, turn = manifests.deployment(release), _Turn(release.deployment_id)

        async def attempt() -> None:
            force = False
            for _ in range(_LOOKS_AT_ALL):
                before = await self._mirror.refresh(release.app)
                if before is not None:
                    turn.refuse_others(Workload(before))
                    refuse(Workload(before))
                try:
                    obj = await self._cluster.apply(Deployment, _as_seen(wanted, before), force=force)
                    break
                except Conflict as conflict:
                    if conflict.causes:  # none: it has changed since the look
                        refuse_foreign(release, conflict)
                        force = True
            else:
                raise _always_changed(release.app)
            replicas = release.template.replicas
            # Sent once, by a patch of its own: a crash in between finds an object that nothing has rolled out on.
            new = before is None or LIVE not in Workload(before).annotations
            operations = resumed(Workload(obj), release.resume)
            if new and obj["spec"].get("replicas") != replicas:
                operations.append({"op": "add", "path": "/spec/replicas", "value": replicas})
            if operations:
                obj = await self._cluster.json_patch(Deployment, release.app, operations) or obj
            self._mirror.deployments.put(obj)

        await self._cluster.patiently(attempt)

    async def preview(self, release: Release) -> None:
        """Ask the API server whether `apply` would go through. Raises ForeignFields, ClusterRefused."""
        try:
            await self._cluster.apply(Deployment, manifests.deployment(release), dry_run=True)
        except Conflict as conflict:
            refuse_foreign(release, conflict)

    async def restart(self, app: str, operation_id: str, digest: str) -> None:
        """New pods of the same image: the one change of the pod template that is meant to make them.

        `digest` is what runs, for an image that somebody has set by hand and named by a tag alone.
        """
        turn = _Turn(operation_id)

        async def attempt() -> None:
            for _ in range(_LOOKS):
                workload = await self._workload(app, fresh=True)
                turn.refuse_others(workload)
                if workload.foreign or workload.live is None:
                    raise nothing_live(app)
                if workload.annotations.get(DEPLOYMENT) == operation_id:
                    return
                if workload.paused:
                    raise paused(app)
                note = running(workload, digest)  # a restart is an operation, and no version
                metadata = workload.pod_template.get("metadata") or {}
                operations = unchanged_since(workload)
                if "annotations" not in metadata:
                    operations.append({"op": "add", "path": "/spec/template/metadata/annotations", "value": {}})
                name = RESTARTED.replace("/", "~1")
                operations.append(
                    {"op": "add", "path": f"/spec/template/metadata/annotations/{name}", "value": operation_id}
                )
                values = {DEPLOYMENT: operation_id, CHANGE: note.to_text()}
                try:
                    await self._patch(workload, [*operations, *annotate(workload, values)])
                    return
                except PatchTestFailed:
                    continue
            raise _always_changed(app)

        await self._cluster.patiently(attempt)

    # ---- how much of it runs -------------------------------------------------------------------------------------

    async def scale(self, app: str, patch: Callable[[Workload], Sequence[Object]]) -> Workload:
        """Change the number of replicas by what `patch` says of the Deployment as it is; nothing where it says nothing.

        Raises RolloutFailed, Busy.
        """

        async def attempt() -> Workload:
            for _ in range(_LOOKS):
                workload = await self._workload(app, fresh=True)
                operations = patch(workload)
                if not operations:
                    return workload
                try:
                    await self._patch(workload, operations)
                except PatchTestFailed:
                    continue
                return await self._workload(app, fresh=True)
            raise Busy(f"Somebody else scales {app} all the time.", hint="Look for an autoscaler, or a colleague.")

        return await self._cluster.patiently(attempt)

    # ---- notes ---------------------------------------------------------------------------------------------------

    async def note(
        self, app: str, values: Mapping[str, str | None], holds: Callable[[Workload], bool] = lambda _: True
    ) -> bool:
        """Set annotations of the object; nothing that runs notices. False, and nothing is set, where not `holds`."""

        async def attempt() -> bool:
            for _ in range(_LOOKS_AT_ALL):
                workload = await self._workload(app, fresh=True)
                if not holds(workload):
                    return False
                version = workload.obj["metadata"]["resourceVersion"]  # nothing else to go by where it is not Norn's
                seen = unchanged_since(workload) or [_test("/metadata/resourceVersion", version)]
                try:
                    await self._patched(workload, seen + annotate(workload, values))
                except PatchTestFailed:
                    continue
                return True
            raise _always_changed(app)

        return await self._cluster.patiently(attempt)

    async def note_live(self, workload: Workload) -> None:
        """What was accepted last has rolled out."""
        note = workload.change
        assert note is not None
        live = workload.live
        if live is not None and (live.deployment_id, live.containers) == (note.deployment_id, note.containers):
            return  # a restart is no new version
        change = workload.annotations.get(DEPLOYMENT)
        values = made_live(note, datetime.now(UTC))
        if not await self.note(workload.name, values, lambda found: found.annotations.get(DEPLOYMENT) == change):
            raise superseded(await self._workload(workload.name, fresh=True))


class _Turn:
    """Whether a change is still the next one: none but itself has been accepted since its first look."""

    def __init__(self, change_id: str) -> None:
        self._change_id = change_id
        self._first: Workload | None = None

    def refuse_others(self, workload: Workload) -> None:
        """Raises RolloutFailed, reason `superseded`."""
        first = self._first = self._first or workload
        if workload.annotations.get(DEPLOYMENT) not in (self._change_id, first.annotations.get(DEPLOYMENT)):
            raise superseded(workload)


def _as_seen(wanted: Object, before: Object | None) -> Object:
    """To be applied only to the object as it was looked at."""
    if before is None:
        return wanted
    return wanted | {"metadata": wanted["metadata"] | {"resourceVersion": before["metadata"]["resourceVersion"]}}


def _test(path: str, value: str) -> Object:
    return {"op": "test", "path": path, "value": value}


def refuse_unseen(change: Switch | Release, workload: Workload) -> None:
    """Raises Paused, and Stale where what is live is not what the caller saw."""
    if workload.paused and not change.resume:
        raise paused(change.app)
    if change.expected_digest is None:
        return
    live = live_of(workload, "")
    for found in (live, live.coming if live is not None else None):
        # What a tag stood for when the caller looked, nobody has written down: it has to be the same tag.
        if found is not None and (
            found.digest == change.expected_digest if found.digest else found.image_tag == change.expected_tag
        ):
            return
    raise Stale(
        f"{change.app} was to be changed from {change.expected_tag or change.expected_digest}, "
        f"but {live.image_tag if live else 'nothing'} is live.",
        hint="Look again at what is live, and decide anew.",
        expected=change.expected_digest,
        live=live.digest if live else None,
    )


def images_for(workload: Workload, switch: Switch) -> dict[str, str]:
    """Which containers get which image: those recorded for the target, by name; else those that are Norn's now.

    Raises RolloutFailed where a recorded container is no longer there.
    """
    recorded = dict((switch.workload or {}).get("containers") or {})
    if not recorded:
        return dict.fromkeys(workload.managed, reference_of(switch.image))
    missing = sorted(key for key in recorded if key not in workload.containers)
    if missing:
        raise RolloutFailed(
            f"{switch.image.tag} ran in {', '.join(missing)}, which the pod template no longer has.",
            reason="template_incompatible",
            hint=f"`norn rollback {switch.app} --to {switch.image.tag} --template` brings its whole template back.",
        )
    return recorded


def refuse_foreign(release: Release, conflict: Conflict) -> None:
    """Norn's own image, notes and earlier patches are Norn's to set; all else that others own is theirs."""
    foreign = [
        {"manager": manager, "field": field}
        for manager, field in conflict.causes
        if manager != MANAGER and not _own_field(field, release.app)
    ]
    if foreign and not release.force:
        named = "; ".join(f"{item['field']} ({item['manager']})" for item in foreign)
        raise ForeignFields(
            f"Others have set what the infraspec of {release.app} sets, too: {named}.",
            hint=f"Take it out of the infraspec, or `norn deploy {release.app} --force` sets it as the infraspec says.",
            fields=foreign,
        )


def _own_field(field: str, app: str) -> bool:
    image = field == f'.spec.template.spec.containers[name="{app}"].image'
    return image or field.startswith((f".metadata.annotations.{PREFIX}", ".metadata.annotations.kubernetes.io/change"))


def paused(app: str) -> Paused:
    return Paused(
        f"The rollouts of the Kubernetes Deployment {app} are paused: it would take the change, and nothing would run.",
        hint=f"`norn rollback {app} --resume` lets them go on with the rollback; "
        f"`kubectl rollout resume deployment/{app}` as they are.",
    )


def _always_changed(app: str) -> Busy:
    return Busy(f"Somebody else changes {app} all the time.", hint="Look for another deploy tool.")


def superseded(workload: Workload) -> RolloutFailed:
    return RolloutFailed(
        f"Another change of {workload.name} was accepted since ({workload.annotations.get(DEPLOYMENT)}).",
        reason="superseded",
        hint=f"`norn status {workload.name}` shows what is live.",
    )


def nothing_there(app: str) -> RolloutFailed:
    return RolloutFailed(
        f"There is no Kubernetes Deployment {app}.", reason="deleted", hint=f"`norn deploy {app}` makes it."
    )


def nothing_live(app: str) -> RolloutFailed:
    return RolloutFailed(f"Nothing of {app} is live.", reason="nothing_live", hint=f"Deploy it: `norn deploy {app}`.")
