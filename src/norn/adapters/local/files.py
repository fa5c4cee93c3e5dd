"""Files of the local runtime: JSON that is there whole or not at all.

Imports the standard library alone: the shim reads it at its start.
"""

# pathlib would take longer to import than all the rest.
# ruff: noqa: PTH101, PTH102, PTH105, PTH108, PTH120, PTH123

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

PathLike = str | os.PathLike[str]


def write_json(path: PathLike, value: Any, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace a file by `value` as JSON, atomically (rename(2)).

    With `durable` it survives a power cut once this returns: the file and its directory are synchronised. Raises
    OSError; the old file is untouched then, and nothing else is left.
    """
    path = os.fspath(path)
    part = f"{path}.{os.getpid()}.part"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            json.dump(value, file, ensure_ascii=False)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    if durable:
        sync_directory(os.path.dirname(path))


def sync_directory(path: PathLike) -> None:
    """Make the names in a directory survive a power cut (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: PathLike) -> Any:
    """What `write_json` wrote; None where the file does not exist. Raises ValueError where it is not JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_directory(path: PathLike, mode: int) -> None:
    """Make a directory (its parent exists) and give it that mode, whatever the umask is."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
    os.chmod(path, mode)
