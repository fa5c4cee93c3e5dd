"""Unpacks what `git archive` wrote, trusting none of its names."""

from __future__ import annotations

import tarfile
from pathlib import Path

from norn.errors import BuildFailed


def unpack(archive: Path, into: Path) -> None:
    """Extract into the new directory `into`: files, directories and links; nothing outside, no devices, no owners.

    Links may lead anywhere inside; one that leads out is refused (the "tar" filter of PEP 706 for the rest).

    Raises BuildFailed.
    """
    into.mkdir(mode=0o755)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.type == tarfile.XGLTYPE:
                    continue
                tar.extract(_checked(member, into), into, set_attrs=True, numeric_owner=True, filter="tar")
    except (tarfile.FilterError, tarfile.TarError) as error:
        raise BuildFailed(f"The commit has a file that is not taken: {error}.") from error


def _checked(member: tarfile.TarInfo, into: Path) -> tarfile.TarInfo:
    if not (member.isreg() or member.isdir() or member.issym()):
        raise BuildFailed(f"{member.name} is neither a file, a directory nor a link.")
    if member.issym() and not member.linkname.startswith("/"):
        target = (into / member.name).parent.joinpath(member.linkname)
        if not Path(_normal(target)).is_relative_to(into):
            raise BuildFailed(f"{member.name} is a link that leads out of the repository ({member.linkname}).")
    return member.replace(uid=0, gid=0, uname="", gname="", deep=False)


def _normal(path: Path) -> str:
    """Without `..`, by the letters alone: nothing on the disk is asked."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1] or parts
        else:
            parts.append(part)
    return str(Path(*parts))
