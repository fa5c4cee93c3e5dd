"""Images that were rolled back from: refused on deploy until somebody asks for them by name, or lifts that."""

from __future__ import annotations

from norn.domain.images import TAG_LENGTH, commit_prefix
from norn.domain.store import Quarantine
from norn.errors import AmbiguousVersion, Quarantined, UnknownVersion
from norn.operations.services import Caller, Services


async def refuse_quarantined(services: Services, app: str, tag: str, digest: str | None, *, force: bool) -> None:
    """Raises Quarantined for an image of the same tag (which is that of its commit), or of the same content."""
    if force:
        return
    for item in await services.store.quarantined(app):
        same = digest is not None and item.digest == digest
        if item.image_tag == tag or same:
            also = "" if item.image_tag == tag else f" is the same image as {item.image_tag}, which"
            raise Quarantined(
                f"{tag}{also} is in quarantine: {item.why}.",
                hint=f"Deploy a commit that mends it, or `norn deploy {app} {tag[-TAG_LENGTH:]} --force`.",
                imageTag=tag,
                deploymentId=item.deployment_id,
            )


async def lift(services: Services, app_name: str, version: str, caller: Caller) -> Quarantine:
    """Let an image be deployed again; what was lifted.

    `version` is its tag or a unique prefix of its commit. Raises UnknownApp, UnknownVersion, AmbiguousVersion.
    """
    app = (await services.source.app(app_name)).name
    kept = await services.store.quarantined(app)
    prefix = commit_prefix(app, version)
    found = [item for item in kept if item.image_tag == version] or [
        item for item in kept if prefix and item.commit_sha.startswith(prefix)
    ]
    if len(found) > 1:
        tags = [item.image_tag for item in found]
        raise AmbiguousVersion(f"{version!r} is the beginning of several.", hint="Give more of it.", candidates=tags)
    if not found:
        raise UnknownVersion(
            f"Nothing of {app} that is called {version!r} is in quarantine.",
            hint=f"`norn quarantine list {app}` lists what is.",
            candidates=[item.image_tag for item in kept],
        )
    async with services.store.accepting(app, caller.who) as transaction:
        await transaction.lift_quarantine(found[0].image_tag, found[0].digest, caller.name)
    return found[0]
