"""Images of a cluster: built from the app's Dockerfile, pushed to NORN_REGISTRY, and run by their digest."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from norn.adapters import programs
from norn.adapters.images import builder_store
from norn.adapters.images.builders import PASSED_ON, Builder, find_builder, last_stage
from norn.adapters.images.registry import Reference, Registry
from norn.domain.images import Image, image_tag
from norn.domain.infraspec import Infraspec
from norn.domain.ports import Bounds, Found, Output, Presence
from norn.domain.retention import BuiltImages, StoredImage
from norn.errors import AppTestsFailed, BuildFailed, NotDeployable, ProgramFailed, ProgramMissing, RegistryUnavailable
from norn.threads import to_its_end

REVISION_LABEL = "org.opencontainers.image.revision"
"""https://specs.opencontainers.org/image-spec/annotations/"""
_APP_LABEL = "norn.dev/app"
_DISK_HINT = "See the builder's own words; what is live is untouched."


class RegistryImages:
    """The protocol `Images`. `registry_name` is NORN_REGISTRY, None where it is not set: then nothing can be built."""

    def __init__(self, registry: Registry, registry_name: str | None, builder: str | None) -> None:
        self._registry = registry
        self._name = registry_name
        self._wanted_builder = builder

    def tag(self, app: str, commit_sha: str) -> str:
        """Raises NotDeployable where no registry is set."""
        if self._name is None:
            raise NotDeployable(
                "NORN_REGISTRY is not set: a cluster pulls its images from a registry.",
                hint="For example NORN_REGISTRY=registry.example.com/team; then start the server again.",
            )
        return image_tag(app, commit_sha, self._name)

    async def find(self, app: str, tag: str) -> Image | None:
        """What the registry has under that tag, if Norn has built it. Raises RegistryUnavailable."""
        reference = Reference.parse(tag)
        digest = await self._registry.digest(reference)
        if digest is None:
            return None
        labels = (await self._registry.config(reference.at(digest))).get("Labels") or {}
        commit_sha = labels.get(REVISION_LABEL, "")
        return Image(tag, digest, commit_sha) if commit_sha else None

    async def look(self, app: str, image: Image) -> Found:
        """A HEAD of the digest: 404 is gone; silence and 401 say nothing about the image."""
        if not image.digest:
            return Found(Presence.UNKNOWN, "its digest is not known")
        try:
            found = await self._registry.digest(Reference.parse(image.tag).at(image.digest))
        except RegistryUnavailable as error:
            return Found(Presence.UNKNOWN, error.message.rstrip("."))
        return Found(Presence.PRESENT if found is not None else Presence.GONE)

    async def build(self, spec: Infraspec, commit_sha: str, context: Path, output: Output) -> Image:
        """Build, and push. Raises BuildFailed, RegistryUnavailable."""
        tag = self.tag(spec.app, commit_sha)
        if found := await self.find(spec.app, tag):
            return found
        builder = self._builder()
        dockerfile = context / (spec.build.dockerfile or "Dockerfile")
        if not dockerfile.is_file():
            raise BuildFailed(
                f"{spec.app} has no {spec.build.dockerfile or 'Dockerfile'}: a cluster runs images.",
                hint="Add one, or say where it is: `build: {dockerfile: …}`.",
            )
        # Its own for each commit: another server may build an app of the same name at the same time.
        base = f"localhost/norn/{spec.app}:{commit_sha[:12]}"
        last = context.parent / "last-stage"
        await to_its_end(_write_last_stage, last, last_stage(base, spec.command))
        mark = {_APP_LABEL: spec.app}
        try:
            async with builder_store.building():
                await self._run(builder.build(str(context), str(dockerfile), base, mark), output)
                marks = mark | {REVISION_LABEL: commit_sha}
                await self._run(builder.build(str(last), str(last / "Dockerfile"), tag, marks), output)
                output(f"pushing {tag}\n")
                await self._run(builder.push(tag), output)
        except (ProgramFailed, ProgramMissing) as failed:
            hint = failed.hint or _DISK_HINT
            raise BuildFailed(f"The build failed: {failed.message}", hint=hint, **failed.facts) from failed
        finally:
            await asyncio.to_thread(shutil.rmtree, last, ignore_errors=True)
        await self._tidy(builder, spec.app, base)
        digest = await self._registry.digest(Reference.parse(tag))
        if digest is None:
            raise BuildFailed(f"{tag} was pushed, and the registry does not have it.", hint="Deploy again.")
        return Image(tag, digest, commit_sha)

    async def test(self, spec: Infraspec, image: Image, scratch: Path, output: Output) -> None:
        """Run `build.test` in a container of the image, without the app's environment. Raises AppTestsFailed."""
        if spec.build.test is None:
            return
        builder = self._builder()
        name = f"norn-test-{scratch.parent.name}"
        reference = f"{image.tag.rpartition(':')[0]}@{image.digest}"
        await self._quietly(builder.forget(name))  # of an attempt that was interrupted
        try:
            async with builder_store.building():
                for command in builder.run(name, reference, spec.build.test):
                    await self._run(command, output)
        except (ProgramFailed, ProgramMissing) as failed:
            hint = failed.hint or "See the output of build.test."
            raise AppTestsFailed(f"The app's tests failed: {failed.message}", hint=hint, **failed.facts) from failed
        finally:
            await asyncio.shield(self._quietly(builder.forget(name)))
            base = f"localhost/norn/{spec.app}:{image.commit_sha[:12]}"
            await asyncio.shield(self._tidy(builder, spec.app, base))

    async def stored(self, app: str, built: BuiltImages) -> Sequence[StoredImage]:
        """Those that this installation has pushed: a registry may be others', too."""
        return built.present

    async def remove(self, app: str, image: StoredImage, bounds: Bounds) -> str:
        """DELETE by digest, where that takes nothing of anybody else's along."""
        if bounds.registry == "keep":
            return "artifacts.registry says `keep`"
        reference = Reference.parse(image.image_tag)
        tags = await self._registry.tags(reference)
        others = sorted(tags - {Reference.parse(tag).version for tag in bounds.own})
        if others and bounds.registry != "delete":
            return (
                f"{reference.repository} has tags that are not this installation's ({', '.join(others[:3])}); "
                "`artifacts: {registry: delete}` deletes Norn's own all the same"
            )
        for tag in sorted(tags - {reference.version}):
            if await self._registry.digest(reference.at(tag)) == image.digest:
                mine = any(Reference.parse(stays).version == tag for stays in bounds.staying)
                if mine or tag in others:
                    return f"the tag {tag} leads to the same digest"
        return await self._registry.delete(reference.at(image.digest))

    # ---- inside --------------------------------------------------------------------------------------------------

    def _builder(self) -> Builder:
        assert self._name is not None
        host = self._name.partition("/")[0]
        return Builder(find_builder(self._wanted_builder), insecure=self._registry.insecure(host))

    async def _run(self, argv: list[str], output: Output) -> None:
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        await programs.run(argv, env=programs.environment(**passed), output=output, tethered=True)

    async def _quietly(self, argv: list[str]) -> str:
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        done = await programs.run(argv, env=programs.environment(**passed), check=False)
        return done.output.strip() if done.exit_status == 0 else ""

    async def _tidy(self, builder: Builder, app: str, base: str) -> None:
        """The registry has the image; here the newest base stays alone, whose layers the next build uses again."""
        with builder_store.removing() as alone:
            if not alone:
                return
            kept = await self._quietly(builder.image_id(base))
            found = await self._quietly(builder.images(f"{_APP_LABEL}={app}"))
            surplus = dict.fromkeys(line.removeprefix("sha256:") for line in found.split())
            surplus.pop(kept.removeprefix("sha256:"), None)
            if surplus:
                await self._quietly(builder.remove(*surplus))


def _write_last_stage(directory: Path, text: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "Dockerfile").write_text(text, encoding="utf-8")
