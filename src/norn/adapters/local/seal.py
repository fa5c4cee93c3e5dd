"""Sealing a built tree: its digest, its ownership, and what may not be in it."""

# Links are compared as text, which pathlib does not do.
# ruff: noqa: PTH115, PTH117, PTH118, PTH120

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from norn.adapters.accounts import Account
from norn.errors import BuildFailed
from norn.threads import go_on

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/etc", "/nix", "/dev/null", sys.base_prefix)
"""Where a link may lead outside of its image: what the machine has installed."""
_CHUNK = 1_048_576


def _entries(root: Path, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Relative paths with what lstat(2) says, sorted, directories before what is in them."""
    with os.scandir(root / below) as found:
        names = sorted(entry.name for entry in found)
    for name in names:
        go_on()
        path = f"{below}{name}"
        info = (root / path).lstat()
        yield path, info
        if stat.S_ISDIR(info.st_mode):
            yield from _entries(root, f"{path}/")


def link_leaves(root: Path, path: str, target: str) -> bool:
    """Whether a link at `path` (relative to the image's root) leads to what is neither in the image nor installed."""
    at = os.path.normpath(os.path.join(root, os.path.dirname(path), target))
    allowed = _SYSTEM if os.path.isabs(target) else ()
    return not any(at == place or at.startswith(f"{place}/") for place in (str(root), *allowed))


def _content_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def seal(root: Path, *, own: bool) -> str:
    """Make the tree immutable and return its digest: `sha256:` and 64 hexadecimal digits.

    The digest is over one line for each entry: path, kind, whether it can be executed, link target, content. Files
    become 0444 or 0555, directories 0555; with `own` all of it becomes the server's. Setuid bits go.

    Raises BuildFailed for what an image cannot hold, OSError for the disk's own trouble.
    """
    digest = hashlib.sha256()
    directories = [root]
    for path, info in _entries(root):
        full = root / path
        kind, executable, more = "file", "", ""
        if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
            _break_hard_link(full)
        if own:
            os.chown(full, os.geteuid(), os.getegid(), follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode):
            kind, more = "link", os.fsdecode(os.readlink(full))
            if link_leaves(root, path, more):
                raise BuildFailed(
                    f"The link {path} leads out of the image, to {more}.",
                    hint="Copy what it points to into the build, or remove the link.",
                    path=path,
                )
        elif stat.S_ISDIR(info.st_mode):
            kind = "directory"
            directories.append(full)
        elif stat.S_ISREG(info.st_mode):
            executable = "x" if info.st_mode & 0o111 else ""
            full.chmod(0o555 if executable else 0o444)
            more = _content_digest(full)
        else:
            raise BuildFailed(
                f"{path} is neither a file, a directory nor a link.",
                hint="An image holds no devices, sockets or pipes: make them when the app starts.",
                path=path,
            )
        line = "\0".join((path, kind, executable, more))
        digest.update(f"{len(line.encode('utf-8', 'surrogateescape'))}:".encode())
        digest.update(line.encode("utf-8", "surrogateescape"))
    for directory in reversed(directories):
        if own:
            os.chown(directory, os.geteuid(), os.getegid())
        directory.chmod(0o555)
    return f"sha256:{digest.hexdigest()}"


def _break_hard_link(path: Path) -> None:
    """A second name of the file may lie outside, where its content could still be changed."""
    copy = path.with_name(f"{path.name}.sealing")
    shutil.copy2(path, copy)
    copy.replace(path)


def hand_over(root: Path, account: Account | None) -> None:
    """Give the tree to the account, writable; without an account it is only made writable."""
    root.chmod(0o755)
    if account:
        os.chown(root, account.uid, account.gid)
    for path, info in _entries(root):
        full = root / path
        if account:
            os.chown(full, account.uid, account.gid, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            full.chmod(stat.S_IMODE(info.st_mode) | (0o755 if stat.S_ISDIR(info.st_mode) else 0o644))


def remove_tree(root: Path) -> None:
    """Remove a tree whose directories may be read-only. One that is not there is removed already."""
    if not root.exists():
        return
    with contextlib.suppress(PermissionError):
        root.chmod(0o755)
    for path, info in _entries(root):
        if stat.S_ISDIR(info.st_mode):
            (root / path).chmod(0o755)
    shutil.rmtree(root)
