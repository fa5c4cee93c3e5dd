"""The local store of a builder, which all builds of one user have in common.

A removal takes layers away that a build beside it has just found in its cache ("layer not known"): builds hold the
store together, removals want it for themselves, whichever server they belong to.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from norn.errors import BuildFailed

_WAIT_S = 120.0
_LOOK_EVERY_S = 0.05


def _place() -> str:
    """The user's home directory: it is there already, it is nobody else's, and there is one as there is one store."""
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"
    return home if Path(home).is_dir() else "/"


@contextmanager
def _opened() -> Iterator[int]:
    directory = os.open(_place(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


def _locked(directory: int, how: int) -> bool:
    try:
        fcntl.flock(directory, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@asynccontextmanager
async def building() -> AsyncIterator[None]:
    """Nothing is removed meanwhile. Raises BuildFailed where a removal does not end within two minutes."""
    with _opened() as directory:
        waited = 0.0
        while not _locked(directory, fcntl.LOCK_SH):
            if waited >= _WAIT_S:
                raise BuildFailed(
                    f"Images were still being removed from the builder's store after {_WAIT_S:g} s.",
                    hint="Is a `buildah rmi` (or podman, docker) hanging? Deploy again when it has ended.",
                )
            await asyncio.sleep(_LOOK_EVERY_S)
            waited += _LOOK_EVERY_S
        yield


@contextmanager
def removing() -> Iterator[bool]:
    """Whether nobody builds now; no build begins until it ends. What cannot go now goes after the next build."""
    with _opened() as directory:
        yield _locked(directory, fcntl.LOCK_EX)
