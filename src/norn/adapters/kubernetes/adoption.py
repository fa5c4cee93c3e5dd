"""Adopting a Kubernetes Deployment that somebody else has made: what is written on it, and what it runs. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from norn.adapters.kubernetes.patches import accepted, made_live
from norn.adapters.kubernetes.pods import running_digests
from norn.adapters.kubernetes.resources import Object
from norn.adapters.kubernetes.workload import ADOPTED, Note, Workload, digest_of, main_container, sharing
from norn.domain.images import Image
from norn.errors import NotPossible


@dataclass(frozen=True, slots=True)
class Adoption:
    image: Image
    """What runs: the first entry of its history."""
    notes: Mapping[str, str | None]
    """Annotations to be set; none where it was adopted already, by this very deployment."""


def plan_adoption(
    workload: Workload, pods: Sequence[Object], deployment_id: str, container: str | None = None
) -> Adoption:
    """What adopting it means. `pods` are those of its present template. Raises NotPossible."""
    app = workload.name
    if not workload.foreign and workload.change is not None:
        if workload.change.deployment_id != deployment_id:
            raise NotPossible(f"{app} is Norn's already.", hint=f"`norn status {app}`")
        return Adoption(Image(workload.change.image_tag, workload.change.digest, ""), {})
    key = main_container(workload, container)
    if key is None:
        names = ", ".join(name.partition("/")[2] for name in workload.containers)
        raise NotPossible(
            f"Which container of {app} is the app? There are {names}.",
            hint=f"`norn adopt {app} --container NAME`",
            containers=[found.name for found in workload.containers.values()],
        )
    image = workload.containers[key].image
    digest = digest_of(image) or _digest_of(app, pods, key)
    tag = image.partition("@")[0]
    note = Note(deployment_id, tag, digest, sharing(workload, key))
    values = accepted(note, f"norn adopt ({deployment_id})", None) | made_live(note, datetime.now(UTC))
    return Adoption(Image(tag, digest, ""), values | {ADOPTED: "true"})


def _digest_of(app: str, pods: Sequence[Object], key: str) -> str:
    """What the pods run for a tag; all of them the same, or there is no telling what to come back to."""
    digests = running_digests(pods, key.partition("/")[2])
    if len(digests) != 1:
        what = "no pod runs" if not digests else f"its pods run {len(digests)} different images"
        raise NotPossible(
            f"{app} cannot be adopted as it is: {what}.",
            hint="Norn comes back to digests: adopt it while it runs well, with one image in all pods.",
        )
    return next(iter(digests))
