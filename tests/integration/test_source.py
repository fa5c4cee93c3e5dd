"""What is deployed are commits: found by name in real git repositories, whose contents nobody trusts."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from norn.adapters.source import archive as archives
from norn.adapters.source.archive import unpack
from norn.adapters.source.directory import AppsDirectory
from norn.domain.ports import AppDirectory
from norn.errors import AmbiguousVersion, BuildFailed, InfraspecInvalid, NotPossible, UnknownApp, UnknownVersion

SPEC = "app: {name}\nrole: worker\ncommand: python3 main.py\n{more}"
WHO = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *WHO, *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(directory: Path, *, name: str = "shop", more: str = "", below: str = "") -> Path:
    """A repository with one commit; the app is in the directory `below` its top."""
    app = directory / below
    app.mkdir(parents=True)
    git(directory, "init", "-q", "-b", "main", ".")
    (app / "infraspec.yaml").write_text(SPEC.format(name=name, more=more))
    (app / "main.py").write_text("print('one')\n")
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "first")
    return app


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    (tmp_path / "projects").mkdir()
    return tmp_path / "projects"


@pytest.fixture
def source(apps: Path) -> AppsDirectory:
    return AppsDirectory(apps, mirrors=apps.parent / "repos")


async def export(source: AppsDirectory, app: AppDirectory, into: Path) -> list[str]:
    """Export HEAD; what was said meanwhile."""
    said: list[str] = []
    commit = await source.resolve(app, "HEAD")
    await source.export(app, commit.sha, into, said.append)
    return said


# ---- apps --------------------------------------------------------------------------------------------------------


async def test_an_app_is_found_at_every_look(source: AppsDirectory, apps: Path) -> None:
    assert await source.apps() == []
    repository(apps / "shop")
    assert [app.name for app in await source.apps()] == ["shop"]


async def test_an_unknown_app_names_the_nearest(source: AppsDirectory, apps: Path) -> None:
    repository(apps / "shop")
    with pytest.raises(UnknownApp) as refused:
        await source.app("shpo")
    assert refused.value.hint == "Did you mean shop?"


@pytest.mark.parametrize("name", ["..", ".", "../shop", "a/b", "a'b", "a\nb", "$(id)", "", "A", "-shop", "s" * 64])
async def test_a_name_that_is_no_label_is_unknown_wherever_it_would_lead(
    source: AppsDirectory, apps: Path, name: str
) -> None:
    (apps.parent / "infraspec.yaml").write_text(SPEC.format(name="x", more=""))
    with pytest.raises(UnknownApp):
        await source.app(name)


async def test_the_infraspec_is_the_commits_own(source: AppsDirectory, apps: Path) -> None:
    path = repository(apps / "shop")
    app = await source.app("shop")
    first = await source.resolve(app, "HEAD")
    (path / "infraspec.yaml").write_text(SPEC.format(name="shop", more="replicas: 3\n"))
    assert (await source.infraspec(app, first.sha)).replicas == 1
    assert (await source.infraspec(app)).replicas == 3


async def test_a_commit_without_an_infraspec_says_so(source: AppsDirectory, apps: Path) -> None:
    path = repository(apps / "shop")
    git(path, "rm", "-q", "--cached", "infraspec.yaml")
    git(path, "commit", "-qm", "without")
    app = await source.app("shop")
    commit = await source.resolve(app, "HEAD")
    with pytest.raises(InfraspecInvalid) as refused:
        await source.infraspec(app, commit.sha)
    assert (commit.sha[:12] in refused.value.message, refused.value.hint) == (True, "Commit infraspec.yaml.")


# ---- refs --------------------------------------------------------------------------------------------------------


async def test_a_commit_says_who_when_and_what(source: AppsDirectory, apps: Path) -> None:
    path = repository(apps / "shop")
    commit = await source.resolve(await source.app("shop"), "main")
    assert (commit.sha, commit.subject, commit.author) == (git(path, "rev-parse", "HEAD"), "first", "Test")


@pytest.mark.parametrize(
    "ref",
    ["--output=/tmp/x", "-1", "HEAD..main", "main@{1}", "a b", "a\nb", "a\x00b", "$(id)", "; id", "main:main.py",
     "^main", "../main", "*", "x" * 300, ""],
)  # fmt: skip
async def test_a_ref_that_is_no_name_is_unknown_and_reaches_no_option(
    source: AppsDirectory, apps: Path, ref: str
) -> None:
    repository(apps / "shop")
    app = await source.app("shop")
    with pytest.raises(UnknownVersion):
        await source.resolve(app, ref)


async def test_an_unknown_branch_names_the_nearest(source: AppsDirectory, apps: Path) -> None:
    path = repository(apps / "shop")
    git(path, "branch", "release-2")
    with pytest.raises(UnknownVersion) as refused:
        await source.resolve(await source.app("shop"), "relaese-2")
    assert refused.value.facts["candidates"] == ["release-2"]


async def test_a_prefix_of_several_commits_lists_them(source: AppsDirectory, apps: Path) -> None:
    path = repository(apps / "shop")
    seen: dict[str, str] = {}
    prefix = ""
    for number in range(2_000):  # four hexadecimal digits: two of a few hundred begin alike
        tree = git(path, "rev-parse", "HEAD^{tree}")
        sha = git(path, "commit-tree", tree, "-m", str(number))
        if sha[:4] in seen:
            prefix = sha[:4]
            break
        seen[sha[:4]] = sha
    assert prefix
    with pytest.raises(AmbiguousVersion) as refused:
        await source.resolve(await source.app("shop"), prefix)
    assert all(candidate.startswith(prefix) for candidate in refused.value.facts["candidates"])
    assert len(refused.value.facts["candidates"]) == 2


async def test_a_repository_without_a_commit_says_what_to_do(source: AppsDirectory, apps: Path) -> None:
    (apps / "shop").mkdir()
    git(apps / "shop", "init", "-q", ".")
    (apps / "shop" / "infraspec.yaml").write_text(SPEC.format(name="shop", more=""))
    with pytest.raises(UnknownVersion) as refused:
        await source.resolve(await source.app("shop"), "HEAD")
    assert refused.value.hint == "git add, git commit."


async def test_a_directory_that_is_no_work_tree_says_what_to_do(source: AppsDirectory, apps: Path) -> None:
    (apps / "shop").mkdir()
    (apps / "shop" / "infraspec.yaml").write_text(SPEC.format(name="shop", more=""))
    with pytest.raises(NotPossible) as refused:
        await source.resolve(await source.app("shop"), "HEAD")
    assert "git init" in refused.value.hint


# ---- repositories elsewhere --------------------------------------------------------------------------------------


async def test_with_repo_url_the_branch_of_the_clone_is_deployed_as_it_is_now(
    source: AppsDirectory, apps: Path, tmp_path: Path
) -> None:
    upstream = repository(tmp_path / "upstream")
    (apps / "shop").mkdir()
    more = f"repo: {{url: {upstream}, branch: main}}\n"
    (apps / "shop" / "infraspec.yaml").write_text(SPEC.format(name="shop", more=more))
    app = await source.app("shop")
    assert (await source.resolve(app, "HEAD")).subject == "first"
    git(upstream, "commit", "-q", "--allow-empty", "-m", "second")
    assert (await source.resolve(app, "HEAD")).subject == "second"
    await export(source, app, tmp_path / "context")
    assert (tmp_path / "context" / "main.py").exists()


async def test_a_repository_that_cannot_be_fetched_is_named_without_its_password(
    source: AppsDirectory, apps: Path
) -> None:
    (apps / "shop").mkdir()
    more = "repo: {url: 'http://me:hidden-word@127.0.0.1:1/shop.git', branch: main}\n"
    (apps / "shop" / "infraspec.yaml").write_text(SPEC.format(name="shop", more=more))
    with pytest.raises(NotPossible) as refused:
        await source.resolve(await source.app("shop"), "HEAD")
    assert "127.0.0.1:1/shop.git" in refused.value.message
    assert "hidden-word" not in refused.value.message + refused.value.hint + str(refused.value.facts)


# ---- files -------------------------------------------------------------------------------------------------------


async def test_an_app_below_the_top_is_exported_alone(source: AppsDirectory, apps: Path, tmp_path: Path) -> None:
    top = tmp_path / "mono"
    app_path = repository(top, below="services/shop")
    (apps / "shop").symlink_to(app_path)
    await export(source, await source.app("shop"), tmp_path / "context")
    assert sorted(path.name for path in (tmp_path / "context").iterdir()) == ["infraspec.yaml", "main.py"]


async def test_changes_that_are_not_committed_are_said_and_left_out(
    source: AppsDirectory, apps: Path, tmp_path: Path
) -> None:
    path = repository(apps / "shop")
    (path / "main.py").write_text("print('two')\n")
    said = await export(source, await source.app("shop"), tmp_path / "context")
    assert (tmp_path / "context" / "main.py").read_text() == "print('one')\n"
    assert "1 files have changes that are not committed" in "".join(said)


async def test_what_can_be_executed_and_links_inside_are_kept(
    source: AppsDirectory, apps: Path, tmp_path: Path
) -> None:
    path = repository(apps / "shop")
    (path / "run").write_text("#!/bin/sh\n")
    (path / "run").chmod(0o755)
    (path / "link").symlink_to("run")
    git(path, "add", "-A")
    git(path, "commit", "-qm", "second")
    await export(source, await source.app("shop"), tmp_path / "context")
    assert os.access(tmp_path / "context" / "run", os.X_OK)
    assert (tmp_path / "context" / "link").readlink() == Path("run")


async def test_nothing_that_a_repository_configures_is_run(source: AppsDirectory, apps: Path, tmp_path: Path) -> None:
    path = repository(apps / "shop")
    ran = tmp_path / "ran"
    for key in ("core.fsmonitor", "core.pager", "core.sshCommand"):
        git(path, "config", key, f"touch {ran};")
    hook = path / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    await export(source, await source.app("shop"), tmp_path / "context")
    assert not ran.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have others' files")
async def test_a_work_tree_of_another_user_is_read_as_that_user(
    source: AppsDirectory, apps: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = repository(apps / "shop")
    for each in (path, *path.rglob("*")):
        os.chown(each, 65534, 65534, follow_symlinks=False)
    for parent in (path, *path.parents[:-1]):
        if parent.stat().st_uid == 0 and parent != Path("/tmp"):
            parent.chmod(0o755)
    assert (await source.resolve(await source.app("shop"), "HEAD")).subject == "first"


# ---- hostile archives --------------------------------------------------------------------------------------------

Add = Callable[[tarfile.TarFile], None]


def file(name: str) -> Add:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))

    return add


def member(name: str, kind: bytes, target: str = "") -> Add:
    def add(tar: tarfile.TarFile) -> None:
        found = tarfile.TarInfo(name)
        found.type, found.linkname = kind, target
        tar.addfile(found)

    return add


@pytest.mark.parametrize(
    "adds",
    [
        [file("../evil")],
        [file("/tmp/evil")],
        [member("d", tarfile.DIRTYPE), file("d/../../evil")],
        [member("d", tarfile.SYMTYPE, ".."), file("d/evil")],
        [member("d", tarfile.SYMTYPE, "../..")],
        [member("d", tarfile.SYMTYPE, "/tmp"), file("d/evil")],
        [member("d", tarfile.SYMTYPE, "/tmp"), member("d/evil", tarfile.DIRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("device", tarfile.CHRTYPE)],
        [file("twice"), file("twice")],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
    ],
    ids=[
        "up", "absolute", "up from inside", "through a link up", "link out", "through an absolute link",
        "directory through a link", "pipe", "device", "twice", "hard link",
    ],
)  # fmt: skip
def test_a_hostile_archive_writes_nothing_outside(tmp_path: Path, adds: list[Add]) -> None:
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        for add in adds:
            add(tar)
    with pytest.raises(BuildFailed):
        unpack(archive, tmp_path / "context")
    assert not list(tmp_path.glob("evil"))
    assert not Path("/tmp/evil").exists()


async def test_an_export_that_is_stopped_while_it_unpacks_writes_no_more(
    source: AppsDirectory, apps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(apps / "shop")
    into = tmp_path / "work" / "context"
    into.parent.mkdir()
    written, may_go_on = threading.Event(), threading.Event()
    write = archives._write

    def on_a_slow_disk(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        write(tar, member, path)
        written.set()
        may_go_on.wait()

    monkeypatch.setattr(archives, "_write", on_a_slow_disk)
    exporting = asyncio.create_task(export(source, await source.app("shop"), into))
    await asyncio.to_thread(written.wait)
    exporting.cancel()
    await asyncio.wait({exporting}, timeout=0.05)
    still = not exporting.done()
    may_go_on.set()
    await asyncio.gather(exporting, return_exceptions=True)
    assert (still, exporting.cancelled()) == (True, True), "whoever tidies up comes after it"
    assert [path.name for path in into.iterdir()] == ["infraspec.yaml"], "the first of two"


def test_a_truncated_archive_is_said(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        file("a")(tar)
    archive.write_bytes(archive.read_bytes()[:514])
    with pytest.raises(BuildFailed, match="cannot be unpacked"):
        unpack(archive, tmp_path / "context")
