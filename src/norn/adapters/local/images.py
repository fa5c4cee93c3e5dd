"""Images of the local runtime: immutable directories, `images/<app>/<first 12 of the commit>` under NORN_HOME.

An image exists when its `.json` does, which is written last. The tree is built under its final path: what a build
writes down of its own place (the first lines of scripts in a virtual environment) stays true.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from norn.adapters import accounts, programs
from norn.adapters.local import files, seal
from norn.adapters.local.state import check_app_name
from norn.domain.images import Image, commit_prefix, image_tag
from norn.domain.infraspec import Infraspec
from norn.domain.ports import Bounds, Found, Output, Presence, Template
from norn.domain.retention import BuiltImages, StoredImage
from norn.errors import AppTestsFailed, BuildFailed, ImageMissing, ProgramFailed, ProgramMissing, RuntimeUnavailable
from norn.threads import go_on, to_its_end

_SHA = re.compile(r"[0-9a-f]{12}\Z")


class LocalImages:
    """The protocol `Images`. Builds run as the account of the apps."""

    def __init__(self, home: Path) -> None:
        self._root = home / "images"

    # ---- the protocol ----------------------------------------------------------------------------------------

    def tag(self, app: str, commit_sha: str) -> str:
        """Without a registry in front: images stay on this machine."""
        return image_tag(app, commit_sha)

    async def look(self, app: str, image: Image) -> Found:
        """Whether it is on this disk."""
        found = await self.find(app, image.tag)
        same = found is not None and found.digest == image.digest
        return Found(Presence.PRESENT if same else Presence.GONE)

    async def find(self, app: str, tag: str) -> Image | None:
        """The image under that tag, None where it does not exist (any longer)."""
        record = self._record(app, tag)
        return Image(record["tag"], record["digest"], record["commitSha"]) if record else None

    async def build(self, spec: Infraspec, commit_sha: str, context: Path, output: Output) -> Image:
        """Run `build.command` in the exported tree and seal it; an image that is there is returned as it is.

        `context` is used up. A directory `home` beside it is the HOME of the build. Raises BuildFailed.
        """
        tag = image_tag(spec.app, commit_sha)
        if found := await self.find(spec.app, tag):
            return found
        if spec.command is None:
            raise BuildFailed(
                f"The infraspec of {spec.app} has no `command`, and the local runtime does not know how to start it.",
                hint="Add `command: …`. A Dockerfile is not used by the local runtime.",
            )
        tree = self._tree(spec.app, tag)
        home = context.parent / "home"
        try:
            with _disk_trouble():
                await to_its_end(self._lay_out, context, tree, home)
                if spec.build.command is not None:
                    await _run(spec.build.command, tree, home, output)
                digest = await to_its_end(seal.seal, tree, own=os.geteuid() == 0)
                record = {
                    "tag": tag,
                    "digest": digest,
                    "commitSha": commit_sha,
                    "command": list(spec.command),
                    "template": Template.of(spec).to_json(),
                    "builtAt": datetime.now(UTC).isoformat(),
                }
                await to_its_end(files.write_json, self._record_path(tree), record)
        except (ProgramFailed, ProgramMissing) as failed:
            await _clear(tree, home)
            hint = failed.hint or "See the output of build.command."
            raise BuildFailed(f"The build failed: {failed.message}", hint=hint, **failed.facts) from failed
        except BaseException:
            self._record_path(tree).unlink(missing_ok=True)  # stopped as it was written: it has no files any more
            await _clear(tree, home)
            raise
        await _clear(home)
        return Image(tag, digest, commit_sha)

    async def test(self, spec: Infraspec, image: Image, scratch: Path, output: Output) -> None:
        """Run `build.test` in a copy of the image, made in `scratch`. Raises AppTestsFailed."""
        if spec.build.test is None:
            return
        copy, home = scratch / "app", scratch / "home"
        try:
            with _disk_trouble():
                await to_its_end(_copy, self.directory(spec.app, image.tag), copy)
                await to_its_end(_give_home, home)
                await _run(spec.build.test, copy, home, output)
        except BuildFailed as failed:
            raise AppTestsFailed(failed.message, hint=failed.hint, **failed.facts) from failed
        except (ProgramFailed, ProgramMissing) as failed:
            hint = failed.hint or "See the output of build.test."
            raise AppTestsFailed(f"The app's tests failed: {failed.message}", hint=hint, **failed.facts) from failed

    async def stored(self, app: str, built: BuiltImages) -> Sequence[StoredImage]:
        """Those on this disk, whoever built them: all below NORN_HOME is Norn's."""
        directory = self._root / check_app_name(app)

        def look() -> list[StoredImage]:
            found = []
            for path in sorted(directory.glob("*.json")) if directory.is_dir() else ():
                record = files.read_json(path)
                if record is not None and _SHA.match(path.stem):
                    found.append(StoredImage(record["tag"], record["digest"]))
            return found

        try:
            return await asyncio.to_thread(look)
        except (OSError, ValueError, KeyError) as error:
            raise RuntimeUnavailable(f"The images of {app} cannot be listed: {error}.") from error

    async def remove(self, app: str, image: StoredImage, bounds: Bounds) -> str:
        """Remove an image; one that is not there is removed already."""
        tree = self._tree(app, image.image_tag)
        self._record_path(tree).unlink(missing_ok=True)  # first: a tree without its record is no image
        await asyncio.to_thread(seal.remove_tree, tree)
        return ""

    # ---- for the runtime -------------------------------------------------------------------------------------

    def directory(self, app: str, tag: str) -> Path:
        """Where the image's files are. Raises ImageMissing."""
        self._existing(app, tag)
        return self._tree(app, tag)

    def command(self, app: str, tag: str) -> Sequence[str]:
        """How the image is started: what the infraspec of its own commit said. Raises ImageMissing."""
        return tuple(self._existing(app, tag)["command"])

    def template(self, app: str, tag: str) -> Template:
        """How its own infraspec wanted it to be run: what a job in it gets as environment. Raises ImageMissing."""
        return Template.from_json(self._existing(app, tag)["template"])

    # ---- inside ----------------------------------------------------------------------------------------------

    def _existing(self, app: str, tag: str) -> Mapping[str, Any]:
        record = self._record(app, tag)
        if record is None:
            raise ImageMissing(f"The image {tag} does not exist.", hint="Deploy its commit again.", imageTag=tag)
        return record

    def _tree(self, app: str, tag: str) -> Path:
        name = commit_prefix(check_app_name(app), tag) or ""
        if not _SHA.match(name):
            raise ImageMissing(f"{tag!r} is no image of {app}.", hint=f"`norn artifacts {app}` lists those there are.")
        return self._root / app / name

    @staticmethod
    def _record_path(tree: Path) -> Path:
        return tree.with_name(f"{tree.name}.json")

    def _record(self, app: str, tag: str) -> Mapping[str, Any] | None:
        path = self._record_path(self._tree(app, tag))
        try:
            record: Mapping[str, Any] | None = files.read_json(path)
        except (OSError, ValueError) as error:
            raise RuntimeUnavailable(f"{path} cannot be read: {error}.", hint="Remove it and deploy again.") from error
        return record

    def _lay_out(self, context: Path, tree: Path, home: Path) -> None:
        self._root.parent.mkdir(parents=True, exist_ok=True)
        for directory in (self._root, tree.parent):
            files.make_directory(directory, 0o755)
        seal.remove_tree(tree)  # of a build that was interrupted
        _move(context, tree)
        account = accounts.for_apps()
        seal.hand_over(tree, account)
        _give_home(home)
        if not accounts.can_reach(tree, account):
            assert account is not None
            raise BuildFailed(
                f"The user {account.name!r}, which apps run as, cannot reach {tree}.",
                hint="Put NORN_HOME below directories that everyone may enter (mode 0711 or 0755).",
            )


async def _run(command: Sequence[str], cwd: Path, home: Path, output: Output) -> None:
    env = programs.environment(HOME=str(home), PYTHONUNBUFFERED="1")
    await programs.run(command, env=env, cwd=cwd, account=accounts.for_apps(), output=output, tethered=True)


def _move(context: Path, tree: Path) -> None:
    try:
        context.rename(tree)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(context, tree, symlinks=True, copy_function=_copy_file)
        shutil.rmtree(context)


def _copy(image: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.parent.chmod(0o755)
    shutil.copytree(image, copy, symlinks=True, copy_function=_copy_file)
    seal.hand_over(copy, accounts.for_apps())


def _copy_file(source: str, copy: str) -> None:
    go_on()
    shutil.copy2(source, copy)


def _give_home(home: Path) -> None:
    seal.remove_tree(home)
    home.mkdir(mode=0o700, parents=True)
    seal.hand_over(home, accounts.for_apps())
    home.chmod(0o700)


async def _clear(*trees: Path) -> None:
    for tree in trees:
        await asyncio.shield(asyncio.to_thread(seal.remove_tree, tree))


@contextmanager
def _disk_trouble() -> Iterator[None]:
    try:
        yield
    except shutil.Error as error:
        raise BuildFailed(f"The image could not be copied: {error.args[0][0][2]}.", hint=_DISK_HINT) from error
    except OSError as error:
        what = "The disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        raise BuildFailed(f"The image could not be written: {what}{where}.", hint=_DISK_HINT) from error


_DISK_HINT = "Make room or mend the directory NORN_HOME lies in, then deploy again; what is live is untouched."
