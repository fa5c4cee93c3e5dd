"""The JSON patches (RFC 6902) by which a Kubernetes Deployment is changed, with what has to hold for them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from norn.adapters.kubernetes.resources import Object
from norn.adapters.kubernetes.workload import (
    CHANGE,
    CHANGE_CAUSE,
    DEPLOYMENT,
    FENCE,
    IMAGE,
    LIVE,
    REPLICAS_BEFORE,
    Note,
    Workload,
)
from norn.domain.deployments import rfc3339
from norn.domain.ports import Turn


def pointer(annotation: str) -> str:
    """Of an annotation within its object (RFC 6901)."""
    return "/metadata/annotations/" + annotation.replace("~", "~0").replace("/", "~1")


def annotate(workload: Workload, values: Mapping[str, str | None]) -> list[Object]:
    """Operations that set annotations of the object (None: remove)."""
    operations: list[Object] = []
    if "annotations" not in workload.obj["metadata"]:
        operations.append({"op": "add", "path": "/metadata/annotations", "value": {}})
    for name, value in values.items():
        if value is not None:
            operations.append({"op": "add", "path": pointer(name), "value": value})
        elif name in workload.annotations:
            operations.append({"op": "remove", "path": pointer(name)})
    return operations


def unchanged_since(workload: Workload) -> list[Object]:
    """Operations that hold only while nobody else has made a change through Norn; none where it is not Norn's.

    A test for null is one for nothing (of the API server; RFC 6902 does not say).
    """
    if workload.foreign:
        return []
    return [
        {"op": "test", "path": pointer(name), "value": workload.annotations.get(name)} for name in (DEPLOYMENT, FENCE)
    ]


def image_patch(
    workload: Workload, images: Mapping[str, str], note: Note, cause: str, turn: Turn | None, *, resume: bool
) -> list[Object]:
    """Change the images of these containers, by name, and nothing else; only if all is as it was seen.

    The preconditions are `test` operations on each container's name and present image, and on Norn's last change:
    resourceVersion would conflict with every status update of a rollout.
    """
    operations = unchanged_since(workload)
    containers = workload.containers
    for key, image in images.items():
        container = containers[key]
        operations += [
            {"op": "test", "path": f"{container.path}/name", "value": container.name},
            {"op": "test", "path": f"{container.path}/image", "value": container.image},
        ]
        if container.image != image:
            operations.append({"op": "replace", "path": f"{container.path}/image", "value": image})
    return operations + resumed(workload, resume) + annotate(workload, accepted(note, cause, turn))


def resumed(workload: Workload, resume: bool) -> list[Object]:
    """Operations that let paused rollouts go on, where they are to."""
    return [{"op": "remove", "path": "/spec/paused"}] if resume and workload.paused else []


def halt_patch(workload: Workload) -> list[Object]:
    """No replicas, and a note of how many there were; only if as many are wanted as was seen."""
    operations: list[Object] = []
    if "replicas" in workload.obj["spec"]:  # an older API server leaves the default out
        operations.append({"op": "test", "path": "/spec/replicas", "value": workload.replicas})
    operations.append({"op": "add", "path": "/spec/replicas", "value": 0})
    return operations + ([] if workload.halted else annotate(workload, {REPLICAS_BEFORE: str(workload.replicas)}))


def start_patch(workload: Workload) -> list[Object]:
    """As many replicas as before `halt_patch`, where nobody has set another number since; the note is removed."""
    before = workload.annotations[REPLICAS_BEFORE]
    operations: list[Object] = [{"op": "test", "path": pointer(REPLICAS_BEFORE), "value": before}]
    if workload.replicas == 0:
        operations += [
            {"op": "test", "path": "/spec/replicas", "value": 0},
            {"op": "replace", "path": "/spec/replicas", "value": int(before) if before.isdecimal() else 1},
        ]
    return operations + annotate(workload, {REPLICAS_BEFORE: None})


def template_patch(
    workload: Workload, template: Object, note: Note, cause: str, turn: Turn, *, resume: bool
) -> list[Object]:
    """Bring back a whole pod template as it was recorded."""
    operations = unchanged_since(workload)
    operations += [
        {"op": "test", "path": "/spec/template", "value": workload.pod_template},
        {"op": "replace", "path": "/spec/template", "value": template},
    ]
    return operations + resumed(workload, resume) + annotate(workload, accepted(note, cause, turn))


def accepted(note: Note, cause: str, turn: Turn | None) -> dict[str, str | None]:
    """The annotations that go with every change."""
    return {
        DEPLOYMENT: note.deployment_id,
        IMAGE: note.image_tag,
        CHANGE: note.to_text(),
        CHANGE_CAUSE: cause,
    } | fenced(turn)


def fenced(turn: Turn | None) -> dict[str, str | None]:
    """What is left of whoever's turn it was, so that nobody before him changes anything any more."""
    return {FENCE: str(turn.fence)} if turn is not None else {}


def made_live(note: Note, now: datetime) -> dict[str, str | None]:
    """The annotation that says what rolled out."""
    live = Note(note.deployment_id, note.image_tag, note.digest, note.containers, rfc3339(now) or "")
    return {LIVE: live.to_text()}
