"""Apps are directories under NORN_APPS_DIR; what is deployed of them are commits."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import fcntl
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from norn.adapters.source.archive import unpack
from norn.adapters.source.git import Git, scrubbed
from norn.domain.infraspec import Infraspec
from norn.domain.infraspec.parse import parse_infraspec
from norn.domain.ports import AppDirectory, Commit, Output
from norn.errors import (
    AmbiguousVersion,
    BuildFailed,
    InfraspecInvalid,
    NotPossible,
    ProgramFailed,
    UnknownApp,
    UnknownVersion,
)
from norn.threads import to_its_end

FILE = "infraspec.yaml"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_REF = re.compile(r"(?![-^])[^\s\x00-\x1f\x7f:?*\[\\]{1,255}\Z")
_FETCH_TIMEOUT_S = 120.0
_LFS = "version https://git-lfs.github.com/spec/"


class _Repository(NamedTuple):
    git: Git
    prefix: str
    """The app's directory below the top of the work tree (`services/shop/`), or nothing."""
    default: str
    """What HEAD means."""


class AppsDirectory:
    """The protocol is `norn.domain.ports.Source`.

    Args:
        apps_dir: NORN_APPS_DIR.
        mirrors: where clones of `repo.url` are kept.
    """

    def __init__(self, apps_dir: Path, *, mirrors: Path) -> None:
        self._apps_dir = apps_dir
        self._mirrors = mirrors

    async def apps(self) -> Sequence[AppDirectory]:
        return await asyncio.to_thread(self._list)

    def _list(self) -> list[AppDirectory]:
        try:
            found = [path for path in self._apps_dir.iterdir() if _NAME.match(path.name) and (path / FILE).is_file()]
        except FileNotFoundError:
            return []
        return [AppDirectory(path.name, path) for path in sorted(found)]

    async def app(self, name: str) -> AppDirectory:
        path = self._apps_dir / name
        if _NAME.match(name) is not None and (path / FILE).is_file():
            return AppDirectory(name, path)
        names = [app.name for app in await self.apps()]
        near = difflib.get_close_matches(name, names, 3, 0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There is no {FILE} in {self._apps_dir}/<app> yet."
        raise UnknownApp(f"There is no app {name[:80]!r}.", hint=hint if near or not names else
                         f"There are: {', '.join(names[:20])}.", candidates=near)  # fmt: skip

    # ---- the infraspec -------------------------------------------------------------------------------------------

    async def infraspec(self, app: AppDirectory, commit_sha: str | None = None) -> Infraspec:
        here = await self._own_infraspec(app)
        if commit_sha is None:
            return here
        repository = await self._repository(app, here)
        shown = f"{commit_sha[:12]}:{repository.prefix}{FILE}"
        try:
            text = await repository.git.run("cat-file", "blob", f"{commit_sha}:{repository.prefix}{FILE}")
        except ProgramFailed as failed:
            if here.repo is not None:
                return here  # a repository of the code alone
            raise InfraspecInvalid(f"{shown} cannot be read.", hint=f"Commit {FILE}.", problems=[]) from failed
        return parse_infraspec(text, path=shown, directory_name=app.name).spec

    async def _own_infraspec(self, app: AppDirectory) -> Infraspec:
        path = app.path / FILE
        try:
            text = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise InfraspecInvalid(f"{path} cannot be read: {error.strerror}.", problems=[]) from error
        return parse_infraspec(text, path=str(path), directory_name=app.name).spec

    # ---- commits -------------------------------------------------------------------------------------------------

    async def _repository(self, app: AppDirectory, spec: Infraspec) -> _Repository:
        if spec.repo is not None:
            return _Repository(Git(self._mirrors / f"{app.name}.git"), "", spec.repo.branch)
        git = Git(app.path)
        try:
            prefix = await git.run("rev-parse", "--show-prefix")
        except ProgramFailed as failed:
            raise NotPossible(
                f"{app.path} is not in a git work tree.",
                hint="What is deployed is a commit: git init, git add, git commit. Or name a repository: repo.url.",
            ) from failed
        return _Repository(git, prefix.strip("\n"), "HEAD")

    async def resolve(self, app: AppDirectory, ref: str) -> Commit:
        here = await self._own_infraspec(app)
        if here.repo is not None:
            await self._fetch(app, here.repo.url)
        repository = await self._repository(app, here)
        wanted = repository.default if ref == "HEAD" else ref
        if not _REF.match(wanted) or ".." in wanted or "@{" in wanted:
            raise UnknownVersion(f"{ref[:80]!r} is not the name of a commit, branch or tag.", hint="For example HEAD.")
        try:
            line = await repository.git.run(
                "log",
                "-1",
                "--no-show-signature",
                "--format=%H%x00%cI%x00%an%x00%s",
                "--end-of-options",
                f"{wanted}^{{commit}}",
                "--",
            )
        except ProgramFailed as failed:
            raise await self._unresolved(repository, app, ref, failed) from failed
        sha, committed_at, author, subject = line.rstrip("\n").split("\x00", 3)
        return Commit(sha, subject, author, datetime.fromisoformat(committed_at))

    async def _unresolved(
        self, repository: _Repository, app: AppDirectory, ref: str, failed: ProgramFailed
    ) -> UnknownVersion | AmbiguousVersion:
        output = str(failed.facts.get("output", ""))
        if "ambiguous" in output and (found := re.findall(r"hint:\s+([0-9a-f]{7,64}) commit", output)):
            return AmbiguousVersion(
                f"{ref!r} is the beginning of several commits of {app.name}.",
                hint="Give more of the commit.",
                candidates=found,
            )
        with contextlib.suppress(ProgramFailed):
            listed = await repository.git.run("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags")
            names = listed.split()
            near = difflib.get_close_matches(ref, names, 3, 0.5)
            if ref == "HEAD" and not names:
                return UnknownVersion(f"{app.name} has no commit yet.", hint="git add, git commit.", candidates=[])
            hint = f"Did you mean {' or '.join(near)}?" if near else "Is it committed, and fetched?"
            return UnknownVersion(f"{app.name} has no commit, branch or tag {ref!r}.", hint=hint, candidates=near)
        return UnknownVersion(f"{app.name} has no commit, branch or tag {ref!r}.", hint=failed.message)

    async def _fetch(self, app: AppDirectory, url: str) -> None:
        """A mirror of the repository, as it is now."""
        mirror = self._mirrors / f"{app.name}.git"
        await asyncio.to_thread(self._mirrors.mkdir, parents=True, exist_ok=True, mode=0o700)
        async with _locked(self._mirrors / f".{app.name}.lock"):
            git = Git(mirror)
            try:
                if mirror.exists() and (await git.run("config", "remote.origin.url")).strip() != url:
                    await asyncio.to_thread(shutil.rmtree, mirror)
                if mirror.exists():
                    await git.run("fetch", "--quiet", "--prune", "origin", timeout_s=_FETCH_TIMEOUT_S)
                    return
                half_done = self._mirrors / f".{app.name}.part"
                await asyncio.to_thread(shutil.rmtree, half_done, ignore_errors=True)
                arguments = ("clone", "--quiet", "--mirror", "--", url, str(half_done))
                await Git(self._mirrors).run(*arguments, timeout_s=_FETCH_TIMEOUT_S)
                half_done.rename(mirror)
            except ProgramFailed as failed:
                raise NotPossible(
                    f"{scrubbed(url)} cannot be fetched: {failed.message}",
                    hint="Try `git ls-remote` with the same URL as the user that runs the server.",
                ) from failed

    # ---- files ---------------------------------------------------------------------------------------------------

    async def export(self, app: AppDirectory, commit_sha: str, into: Path, output: Output) -> None:
        """Raises BuildFailed where the commit has a file that is not taken."""
        repository = await self._repository(app, await self._own_infraspec(app))
        archive = into.with_name(f"{into.name}.tar")
        try:
            # Below the top of a work tree git archives that directory alone.
            await self._archive(repository.git, commit_sha, archive)
            await to_its_end(unpack, archive, into)
        finally:
            archive.unlink(missing_ok=True)
        for line in await asyncio.to_thread(_left_out, into):
            output(f"{line}\n")
        if repository.default == "HEAD":
            changed = await repository.git.run("status", "--porcelain", "--untracked-files=no", "--", ".")
            if changed.strip():
                output(f"{len(changed.splitlines())} files have changes that are not committed, and are not deployed\n")

    @staticmethod
    async def _archive(git: Git, tree: str, archive: Path) -> None:
        try:
            await git.save(archive, "archive", "--format=tar", tree)
        except ProgramFailed as failed:
            raise BuildFailed(failed.message, **failed.facts) from failed


def _left_out(directory: Path) -> list[str]:
    """What `git archive` cannot bring."""
    said = []
    if (directory / ".gitmodules").exists():
        said.append("submodules are not included: only their empty directories are")
    attributes = directory / ".gitattributes"
    if attributes.exists() and "filter=lfs" in attributes.read_text(encoding="utf-8", errors="replace"):
        pointers = [
            path for path in directory.rglob("*")
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1_024
            and path.read_bytes().startswith(_LFS.encode())
        ]  # fmt: skip
        if pointers:
            said.append(f"{len(pointers)} files are pointers of Git LFS; their contents are not included")
    return said


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    with path.open("a") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield
