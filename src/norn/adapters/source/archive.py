"""Unpacks what `git archive` wrote, trusting none of its names.

The filters of PEP 706 would do, but Debian 12's Python (3.11.2) does not have them yet.
"""

from __future__ import annotations

import os.path
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from norn.errors import BuildFailed
from norn.threads import go_on


def unpack(archive: Path, into: Path) -> None:
    """Extract into the new directory `into`: files, directories and links; nothing outside, no devices, no owners.

    Raises BuildFailed for a name or a link that leads out, OSError for the disk's own trouble.
    """
    into.mkdir(mode=0o755)
    directories = {PurePosixPath()}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                go_on()
                path = _checked(member)
                # A parent that is a link would carry the file elsewhere: each must be a directory made here.
                if path.parent not in directories:
                    raise BuildFailed(f"{member.name} is not below a directory of the commit.")
                _write(tar, member, into / path)
                if member.isdir():
                    directories.add(path)
    except tarfile.TarError as error:
        raise BuildFailed(f"The commit cannot be unpacked: {error}.") from error
    except FileExistsError as error:
        raise BuildFailed(f"The commit has {Path(error.filename).name} twice.") from error


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(mode=0o755)
    elif member.issym():
        path.symlink_to(member.linkname)
    else:
        content = tar.extractfile(member)
        assert content is not None
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)
        path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _checked(member: tarfile.TarInfo) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise BuildFailed(f"{member.name!r} is no name of a file in a repository.")
    if not (member.isreg() or member.isdir() or member.issym()):
        raise BuildFailed(f"{member.name} is neither a file, a directory nor a link.")
    if member.issym() and not member.linkname.startswith("/"):
        target = os.path.normpath(path.parent / member.linkname)
        if PurePosixPath(target).parts[:1] == ("..",):
            raise BuildFailed(f"{member.name} is a link that leads out of the repository ({member.linkname}).")
    return path
