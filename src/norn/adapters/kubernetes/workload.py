"""What a Kubernetes Deployment says: no I/O.

Norn keeps its notes in annotations of the object itself (never of the pod template, so that an older ReplicaSet can be
used again): which change was accepted last, which version rolled out last, and where a rollback would go to. So what
is live comes from the cluster, and a rollback is possible while Norn is down.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from norn.adapters.kubernetes.resources import Object, annotations_of, name_of
from norn.domain.images import Image
from norn.domain.ports import Live

PREFIX = "norn.dev/"
DEPLOYMENT = PREFIX + "deployment"
"""The id of the last change that was accepted."""
IMAGE = PREFIX + "image"
"""Its tag, for people."""
CHANGE = PREFIX + "change"
"""The last change that was accepted, as a `Note`."""
LIVE = PREFIX + "live"
"""What rolled out last, as a `Note`."""
WAY_BACK = PREFIX + "way-back"
"""The previous known-good version, as a `Note`: where `norn rollback --direct` goes."""
DIRECT = PREFIX + "direct"
"""A rollback that was made without a server, to be taken into the history."""
ADOPTED = PREFIX + "adopted"
"""Somebody else has made the Deployment: of its pod template only the image is Norn's."""
FENCE = PREFIX + "fence"
"""Of the last operation that has changed something: none with a lower one changes anything any more."""
BEGUN = PREFIX + "begun"
"""`no` until it is let run for the first time, and `yes` from then on: whoever makes one anew would set it back."""
REPLICAS_BEFORE = PREFIX + "replicas-before"
"""How many replicas there were before the app was halted; while it stands there, none are to run."""
CHANGE_CAUSE = "kubernetes.io/change-cause"
RESTARTED = PREFIX + "restarted"
"""In the pod template: a restart is meant to make new pods."""
MANAGED_BY = "app.kubernetes.io/managed-by"

_LISTS = ("initContainers", "containers")


@dataclass(frozen=True, slots=True)
class Container:
    """Where an image stands in a pod template."""

    key: str
    """`containers/web`, `initContainers/migrate`: the name is what counts, positions move."""
    position: int
    image: str

    @property
    def name(self) -> str:
        return self.key.partition("/")[2]

    @property
    def path(self) -> str:
        """Of the container within the Deployment, as a JSON pointer (RFC 6901)."""
        return f"/spec/template/spec/{self.key.partition('/')[0]}/{self.position}"


@dataclass(frozen=True, slots=True)
class Note:
    """A version as it is written down on the object."""

    deployment_id: str
    image_tag: str
    digest: str
    containers: Mapping[str, str]
    """Image reference by container key."""
    since: str = ""
    """RFC 3339: since when it has been live."""

    def to_text(self) -> str:
        document = {
            "deployment": self.deployment_id,
            "imageTag": self.image_tag,
            "digest": self.digest,
            "containers": dict(self.containers),
        }
        return json.dumps(document | ({"since": self.since} if self.since else {}), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | None) -> Note | None:
        """None where there is no note, or nobody can make sense of it."""
        try:
            value = json.loads(text or "null")
            return cls(
                str(value["deployment"]),
                str(value["imageTag"]),
                str(value["digest"]),
                {str(key): str(image) for key, image in value["containers"].items()},
                str(value.get("since", "")),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


class Workload:
    """A Kubernetes Deployment, read."""

    def __init__(self, obj: Object) -> None:
        self.obj = obj
        self.name = name_of(obj)
        self.annotations = annotations_of(obj)
        self.change = Note.from_text(self.annotations.get(CHANGE))
        self.live = Note.from_text(self.annotations.get(LIVE))
        self.way_back = Note.from_text(self.annotations.get(WAY_BACK))

    @property
    def uid(self) -> str:
        uid: str = self.obj["metadata"]["uid"]
        return uid

    @property
    def generation(self) -> int:
        return int(self.obj["metadata"].get("generation", 0))

    @property
    def change_id(self) -> str | None:
        """Of the last change that was accepted: a deployment's, or a restart's; None where none ever was."""
        return self.annotations.get(DEPLOYMENT)

    @property
    def fence(self) -> int:
        return fence_of(self.obj)

    @property
    def begun(self) -> bool:
        """It has been let run."""
        return self.live is not None or self.annotations.get(BEGUN) == "yes"

    @property
    def paused(self) -> bool:
        return bool(self.obj["spec"].get("paused"))

    @property
    def replicas(self) -> int:
        """As many as are wanted now, whoever wants them."""
        return int(self.obj["spec"].get("replicas", 1))

    @property
    def halted(self) -> bool:
        """Norn has ended all of it for a while, and gives the replicas back."""
        return REPLICAS_BEFORE in self.annotations

    @property
    def revision(self) -> str:
        return self.annotations.get("deployment.kubernetes.io/revision", "")

    @property
    def foreign(self) -> bool:
        """Norn has neither made nor adopted it."""
        return self.change_id is None

    @property
    def adopted(self) -> bool:
        return self.annotations.get(ADOPTED) == "true"

    @property
    def pod_template(self) -> Object:
        template: Object = self.obj["spec"]["template"]
        return template

    @property
    def containers(self) -> dict[str, Container]:
        """All containers and init containers, by key."""
        pod = self.pod_template["spec"]
        return {
            key: Container(key, position, container.get("image", ""))
            for part in _LISTS
            for position, container in enumerate(pod.get(part) or ())
            for key in (f"{part}/{container['name']}",)
        }

    def images(self, keys: Sequence[str]) -> dict[str, str]:
        """The images of those containers that are there, by key."""
        there = self.containers
        return {key: there[key].image for key in keys if key in there}

    @property
    def managed(self) -> tuple[str, ...]:
        """The containers whose image is the app's own; injected sidecars are none of them."""
        note = self.change or self.live
        return tuple(note.containers) if note is not None else ()

    @property
    def own_container(self) -> str | None:
        """Of those the one that is no init container, rather the one named like the app; None where there is none."""
        keys = [key for key in self.managed if key.startswith("containers/") and key in self.containers]
        named = f"containers/{self.name}"
        return named if named in keys else next(iter(keys), None)

    def runs(self, note: Note | None) -> bool:
        """Whether the pod template has exactly the images of a note."""
        return note is not None and self.images(list(note.containers)) == dict(note.containers)

    @property
    def live_id(self) -> str | None:
        """The deployment that rolled out last, by its note."""
        return (self.live.deployment_id or None) if self.live is not None else None

    @property
    def rolling(self) -> bool:
        """A change was accepted and has not rolled out."""
        return self.change is not None and not self.runs(self.live) and self.runs(self.change)


def fence_of(obj: Object) -> int:
    """0 where there is none: an older server, or nobody, has changed it."""
    text = annotations_of(obj).get(FENCE, "")
    return int(text) if text.isdecimal() else 0


def main_container(workload: Workload, wanted: str | None = None) -> str | None:
    """The key of the container that is the app: as asked for, or named like the app, or the only one."""
    keys = [key for key in workload.containers if key.startswith("containers/")]
    named = f"containers/{wanted or workload.name}"
    if named in keys:
        return named
    return keys[0] if len(keys) == 1 and wanted is None else None


def sharing(workload: Workload, main: str) -> dict[str, str]:
    """The main container, and all that run the same image: init containers, workers beside it."""
    containers = workload.containers
    image = containers[main].image
    same = {key: container.image for key, container in containers.items() if container.image == image}
    return {main: image} | same


def live_of(workload: Workload, running_digest: str) -> Live | None:
    """What rolled out last; where somebody has changed the image by hand, that.

    `running_digest` is what the pods run, for an image that is named by a tag alone.
    """
    note = workload.live
    if workload.foreign:
        main = main_container(workload)
        image = workload.containers[main].image if main else next(iter(workload.containers.values())).image
        return Live(image, digest_of(image) or running_digest, None, _created(workload))
    if note is not None and (workload.runs(note) or workload.rolling):
        since = datetime.fromisoformat(note.since) if note.since else _created(workload)
        coming = None
        if workload.rolling and (change := workload.change) is not None:
            coming = Live(change.image_tag, change.digest, change.deployment_id, since)
        return Live(note.image_tag, note.digest or running_digest, note.deployment_id or None, since, coming)
    if workload.rolling or note is None:
        return None
    image = own_image(workload)
    return Live(image, digest_of(image) or running_digest, None, _created(workload))


def running(workload: Workload, digest: str) -> Note:
    """What the pod template names: as it was noted, or as somebody has set it by hand, which stands for `digest`."""
    for note in (workload.live, workload.change):
        if note is not None and workload.runs(note):
            return note
    image = own_image(workload)
    return Note("", image, digest_of(image) or digest, workload.images(workload.managed))


def own_image(workload: Workload) -> str:
    """As the pod template names it, whoever has set it."""
    images, own = workload.images(workload.managed), workload.own_container
    return images[own] if own is not None else next(iter(images.values()), "")


def _created(workload: Workload) -> datetime:
    return datetime.fromisoformat(workload.obj["metadata"]["creationTimestamp"])


def recorded(workload: Workload) -> dict[str, Any]:
    """What is kept of a version that is live, to bring back exactly that."""
    return {"containers": workload.images(workload.managed), "podTemplate": workload.pod_template}


# ---- references --------------------------------------------------------------------------------------------------


def digest_of(reference: str) -> str:
    """`sha256:…` of `repository@sha256:…`; empty where the reference names a tag."""
    return reference.partition("@")[2]


def repository_of(tag: str) -> str:
    """`registry:5000/team/app` of `registry:5000/team/app:tag` and of `…@sha256:…`."""
    name = tag.partition("@")[0]
    path, colon, last = name.rpartition(":")
    return path if colon and "/" not in last else name


def reference_of(image: Image) -> str:
    """What runs: the digest, never the tag, which can be moved."""
    return f"{repository_of(image.tag)}@{image.digest}"


def last_manager(workload: Workload, but: str) -> str:
    """The field manager that changed the object last, of those other than `but` and the cluster's own."""
    entries = workload.obj["metadata"].get("managedFields") or ()
    others = [entry for entry in entries if entry.get("manager") not in (but, "kube-controller-manager")]
    newest = max(others, key=lambda entry: str(entry.get("time", "")), default=None)
    return str(newest["manager"]) if newest else "somebody"
