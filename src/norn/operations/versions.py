"""What is live, what a person calls a version, and what a rollback would go to: reading only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from norn.domain.deployments import Deployment
from norn.domain.images import MIN_PREFIX, Image, commit_prefix
from norn.domain.ports import Found, Presence
from norn.domain.targets import LiveVersion, NoTarget, Target, choose_target
from norn.domain.verdict import Finding, Level
from norn.errors import AmbiguousVersion, ImageMissing, UnknownVersion
from norn.operations.services import Services

_PAGES = (12, 100, 1_000, 50_000)
"""How much of the history is looked at: nearly always the target is among the first."""
_CHOOSE_FROM = 100
_AT_ONCE = 32
"""So many images are asked for at the same time, where the first choice is gone."""


async def live_version(services: Services, app: str, recorded: Deployment | None = None) -> LiveVersion | None:
    """What the runtime says is live, and the deployment it belongs to, by the runtime's own note or by its digest.

    A change that has not rolled out, and whose operation has ended (`partial`, or nothing could be put back), is what
    there is.

    `recorded` is one that was just read, and need not be again if it is that.
    """
    live = await services.runtime.live(app)
    if live is None:
        return None
    if live.coming is not None and await _left(services, live.coming.deployment_id):
        live = live.coming
    deployment = recorded if recorded is not None and recorded.id == live.deployment_id else None
    if deployment is None and live.deployment_id:
        deployment = await services.store.deployment(live.deployment_id)
    if deployment is None or deployment.app != app or deployment.digest != live.digest:
        deployment = await services.store.deployment_of_digest(app, live.digest)
    return LiveVersion(live.image_tag, live.digest, deployment)


async def _left(services: Services, operation_id: str | None) -> bool:
    """Whether nobody is at work any more on a change that has not rolled out."""
    operation = await services.store.operation(operation_id or "")
    return operation is not None and operation.status.ended


async def find_target(
    services: Services, app: str, live: LiveVersion | None, now: datetime | None = None
) -> Target | NoTarget:
    """The target of a rollback without a version: `choose_target` on the history, the quarantine and the images."""
    now = now or await services.store.now()
    kept, newest = await asyncio.gather(
        services.store.quarantined(app), services.store.deployments(app=app, limit=_PAGES[0])
    )
    quarantined = {item.image_tag: item.why for item in kept}
    looked: dict[str, Found] = {}
    for size in _PAGES:
        history = newest if size == _PAGES[0] else await services.store.deployments(app=app, limit=size)
        while True:
            missing = frozenset(tag for tag, found in looked.items() if found.presence is Presence.GONE)
            choice = choose_target(history, live, quarantined=quarantined, missing=missing, now=now)
            if not isinstance(choice, Target) or choice.deployment.image_tag in looked:
                break
            looked |= await _look(services, app, _unknown(history, choice.deployment, looked))
        if not isinstance(choice, Target):
            if len(history) < size:
                return choice
        elif choice.deployment.known_good or len(history) < size:
            found = looked[choice.deployment.image_tag]
            return replace(choice, findings=(*choice.findings, *doubts(choice.deployment, found)))
        # Further back there may be one, or one that is proven.
    return choice


def _unknown(history: Sequence[Deployment], first: Deployment, looked: Mapping[str, Found]) -> list[Deployment]:
    """What to look for at once: the first choice, and behind it as many as have been looked for in vain before."""
    tags = {first.image_tag: first}
    for deployment in history:
        if len(tags) > len(looked):
            break
        if deployment.seq < first.seq and deployment.rolled_out_at is not None and deployment.image_tag not in looked:
            tags.setdefault(deployment.image_tag, deployment)
    return list(tags.values())


async def _look(services: Services, app: str, deployments: Sequence[Deployment]) -> dict[str, Found]:
    """Which of the images are there, by their tags."""
    found: dict[str, Found] = {}
    for start in range(0, len(deployments), _AT_ONCE):
        some = deployments[start : start + _AT_ONCE]
        looks = await asyncio.gather(*(services.images.look(app, image_of(deployment)) for deployment in some))
        found |= {deployment.image_tag: look for deployment, look in zip(some, looks, strict=True)}
    return found


async def rolled_out_versions(services: Services, app: str) -> list[Deployment]:
    """What a person may choose from: the newest versions that have rolled out once, each by its last deployment."""
    newest: dict[str, Deployment] = {}
    for deployment in await services.store.rolled_out(app, limit=_CHOOSE_FROM):
        newest.setdefault(deployment.image_tag, deployment)
    return list(newest.values())


def image_of(deployment: Deployment) -> Image:
    """The image of a deployment that was built."""
    return Image(deployment.image_tag, deployment.digest or "", deployment.commit_sha)


def doubts(deployment: Deployment, found: Found) -> tuple[Finding, ...]:
    """A caution where nobody can say whether the image still exists: somebody else's outage is no reason to stop."""
    if found.presence is not Presence.UNKNOWN:
        return ()
    return (
        Finding(
            "image_unverified",
            Level.CAUTION,
            f"Whether the image {deployment.image_tag} still exists could not be found out: {found.why}.",
            {"imageTag": deployment.image_tag},
        ),
    )


async def find_version(services: Services, app: str, version: str) -> tuple[Deployment, tuple[Finding, ...]]:
    """The deployment that somebody calls by an image tag, a unique prefix of a commit, or a deployment id.

    With what is doubtful about it.

    Raises UnknownVersion, AmbiguousVersion (both with `candidates`) and ImageMissing.
    """
    deployment = await services.store.deployment(version) if version.isascii() and version.isalnum() else None
    if deployment is None or deployment.app != app:
        prefix = commit_prefix(app, version)
        found = await services.store.versions(app, prefix) if prefix else []
        if not found:
            found = await services.store.versions_of_tag(app, version) if version.isprintable() else []
        if len(found) > 1:
            raise AmbiguousVersion(
                f"{version!r} is the beginning of several versions of {app}.",
                hint="Give more of the commit.",
                candidates=[candidate.image_tag for candidate in found],
            )
        if not found:
            recent = await services.store.deployments(app=app, limit=50)
            candidates = list(dict.fromkeys(candidate.image_tag for candidate in recent))[:10]
            short = (
                f" (a prefix has at least {MIN_PREFIX} digits)" if prefix is None and len(version) < MIN_PREFIX else ""
            )
            raise UnknownVersion(
                f"No version of {app} in the history is called {version!r}{short}.",
                hint=f"`norn history {app}` lists them." if candidates else f"{app} was never deployed.",
                candidates=candidates,
            )
        deployment = found[0]
    there = await services.images.look(app, image_of(deployment)) if deployment.digest is not None else None
    if there is None or there.presence is Presence.GONE:
        raise ImageMissing(
            f"{deployment.image_tag} is in the history, but its image does not exist.",
            hint=f"`norn deploy {app} {deployment.commit_sha[:12]}` builds it again; "
            f"`norn artifacts {app}` lists what is kept.",
            imageTag=deployment.image_tag,
        )
    return deployment, doubts(deployment, there)
