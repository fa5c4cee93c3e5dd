"""What is kept and what goes, and why: images, snapshots, and databases that restores have put aside.

`artifacts.retain: N` keeps the newest N versions of an app that rolled out, and each snapshot for as long as the
version that it is the way back to. The decision is made on values alone; who carries it out removes nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from norn.domain.deployments import Deployment, Kind
from norn.domain.durations import format_duration


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of the app that exists, as Norn knows from its own builds."""

    image_tag: str
    digest: str


@dataclass(frozen=True, slots=True)
class BuiltImages:
    """What this installation has built of one app."""

    present: Sequence[StoredImage]
    """Not removed since, newest first."""
    tags: frozenset[str]
    """Of all that ever were."""


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    name: str
    taken_at: datetime
    operation_id: str
    """The deploy before whose migration it was taken; of another operation, it was taken by hand."""
    kept: bool


@dataclass(frozen=True, slots=True)
class FormerDatabase:
    """What was live before a restore."""

    restore_id: str
    name: str
    since: datetime


def going(fates: Iterable[Fate]) -> str:
    """A short name of all that is to go, and of nothing else."""
    named = sorted(f"{fate.kind} {fate.name}" for fate in fates if not fate.stays)
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Fate:
    """Of one thing: whether it stays, and why."""

    kind: str
    """image, snapshot, database"""
    name: str
    stays: bool
    why: str
    key: str = ""
    """What it is found by: an image's digest, a database's restore."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "stays": self.stays, "why": self.why}


@dataclass(frozen=True, slots=True)
class InUse:
    """What must not go whatever its age."""

    live: str | None
    """The digest that the runtime says is live."""
    target: str | None
    """The digest that a rollback would go to now."""
    by_operations: frozenset[str]
    """Digests and names of snapshots and databases that running operations work with."""


def plan_retention(
    history: Sequence[Deployment],
    images: Sequence[StoredImage],
    snapshots: Sequence[StoredSnapshot],
    formers: Sequence[FormerDatabase],
    in_use: InUse,
    *,
    retain: int,
    keep_replaced: timedelta,
    now: datetime,
) -> list[Fate]:
    """The fate of everything given, in its order.

    Args:
        history: deployments of the app, newest first.
        images: those that exist; several tags may have one digest.
        snapshots: those that exist, of this app.
        formers: databases put aside by restores, of this app.
        in_use: what must not go.
        retain: how many versions that rolled out are kept.
        keep_replaced: for how long a former database is kept.
        now: for their age.
    """
    versions = _versions(history)
    kept = _kept_versions(versions, in_use, retain)
    # Only of versions that are kept: looking through a long history for each that it ever had would take seconds.
    ways_back = {digest: found for digest in kept if (found := way_back(digest, history, snapshots)) is not None}
    now_live = next((found for found in history if found.live_from and found.live_until is None), None)
    own_data = None
    if now_live is not None and now_live.kind is Kind.ROLLBACK:  # perhaps of the code alone, and its data is wanted yet
        own_data = way_back(now_live.digest or "", history, snapshots, before=now_live.live_from)
    return [
        *(_image(image, versions, kept, in_use, retain) for image in images),
        *_snapshots(history, snapshots, kept, ways_back, own_data, in_use),
        *(_former(former, in_use, keep_replaced, now) for former in formers),
    ]


def _versions(history: Sequence[Deployment]) -> list[str]:
    """Digests that rolled out, the newest first: a version that was gone back to counts from then."""
    return list(
        dict.fromkeys(
            deployment.digest
            for deployment in history
            if deployment.digest is not None and deployment.rolled_out_at is not None
        )
    )


def _kept_versions(versions: Sequence[str], in_use: InUse, retain: int) -> Mapping[str, str]:
    """Digest to why it is kept."""
    kept = dict.fromkeys(versions[:retain], f"one of the newest {retain} versions")
    kept |= dict.fromkeys(in_use.by_operations, "a running operation uses it")
    if in_use.target is not None:
        kept[in_use.target] = "a rollback would go to it now"
    if in_use.live is not None:
        kept[in_use.live] = "it is live"
    return kept


def _image(image: StoredImage, versions: Sequence[str], kept: Mapping[str, str], in_use: InUse, retain: int) -> Fate:
    if image.image_tag in in_use.by_operations:
        return Fate("image", image.image_tag, True, "a running operation uses it", image.digest)
    if image.digest in kept:
        return Fate("image", image.image_tag, True, kept[image.digest], image.digest)
    why = f"older than the newest {retain} versions" if image.digest in versions else "it never rolled out"
    return Fate("image", image.image_tag, False, why, image.digest)


def way_back(
    digest: str,
    history: Sequence[Deployment],
    snapshots: Sequence[StoredSnapshot],
    *,
    before: datetime | None = None,
) -> str | None:
    """The snapshot with the data as a version left it: the first that a deploy took of it.

    Of the last time that it was live and a deploy came: a version that was gone back to has been live twice, and what
    was taken the first time is the way back until a deploy comes again. `before`: only what was taken before that.
    """
    deploys = {found.id for found in history}
    taken = [
        found for found in snapshots if found.operation_id in deploys and (before is None or found.taken_at < before)
    ]
    for deployment in (found for found in history if found.digest == digest):  # the last time first
        within = [found for found in taken if was_live(deployment, found.taken_at)]
        first = min(within, key=lambda found: found.taken_at, default=None)
        if first is not None:
            return first.name
    return None


def live_at(history: Sequence[Deployment], at: datetime) -> str | None:
    """The digest of what was live at a moment."""
    return next((found.digest for found in history if was_live(found, at)), None)


def was_live(deployment: Deployment, at: datetime) -> bool:
    """Whether a deployment was what was live at a moment."""
    began, ended = deployment.live_from, deployment.live_until
    return began is not None and began <= at and (ended is None or at < ended)


def _snapshots(
    history: Sequence[Deployment],
    snapshots: Sequence[StoredSnapshot],
    kept: Mapping[str, str],
    ways_back: Mapping[str, str],
    own_data: str | None,
    in_use: InUse,
) -> list[Fate]:
    deploys = {deployment.id for deployment in history}
    tags = {deployment.digest: deployment.image_tag for deployment in history if deployment.digest is not None}
    back_to = {name: digest for digest, name in ways_back.items()}
    newest = max(snapshots, key=lambda found: found.taken_at, default=None)

    def fate(found: StoredSnapshot) -> tuple[bool, str]:
        version = live_at(history, found.taken_at)
        tag = tags.get(version or "", "")
        if found.kept:
            return True, "it was taken by hand to be kept"
        if found.name in in_use.by_operations:
            return True, "a running operation uses it"
        if newest is not None and found.name == newest.name:
            return True, "it is the newest"
        if found.name == own_data:
            return True, "it has the data of what is live, from before its code was gone back to"
        if found.name in back_to:
            return True, f"it is the way back to {tags[back_to[found.name]]}"
        by_hand = found.operation_id not in deploys
        if by_hand and version in kept:
            return True, f"it was taken while {tag} was live"
        if version in kept:
            return False, f"a later attempt took it; {ways_back.get(version or '', 'none')} is the way back to {tag}"
        if not tag:
            return False, "nothing was live when it was taken"
        return False, f"{tag}, which was live when it was taken, is not kept any more"

    return [Fate("snapshot", found.name, *fate(found)) for found in snapshots]


def _former(former: FormerDatabase, in_use: InUse, keep_replaced: timedelta, now: datetime) -> Fate:
    if former.name in in_use.by_operations:
        return Fate("database", former.name, True, "a running operation uses it", former.restore_id)
    age = now - former.since
    stays = age < keep_replaced
    why = (
        f"what was live before a restore is kept for {format_duration(keep_replaced.total_seconds())}"
        if stays
        else f"it was replaced {format_duration(round(age.total_seconds()))} ago"
    )
    return Fate("database", former.name, stays, why, former.restore_id)
