"""Values that apps get and nobody sees: one private file each."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from norn.domain.secrets import NAME, check_name, check_value
from norn.errors import Invalid, UnknownSecret

_APP = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def keep(path: Path, text: str, *, replace: bool = True) -> None:
    """Write a file that only its owner reads, whole or not at all; without `replace`, an existing one stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
            return
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class SecretFiles:
    """`<directory>/<app>/<NAME>`, mode 0600, in directories of mode 0700."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _app(self, app: str) -> Path:
        if not _APP.match(app):
            raise Invalid(f"{app!r} is not the name of an app.")
        return self._directory / app

    def _file(self, app: str, name: str) -> Path:
        check_name(name)
        return self._app(app) / name

    async def names(self, app: str) -> Sequence[str]:
        directory = self._app(app)
        return sorted(path.name for path in directory.iterdir() if NAME.match(path.name)) if directory.exists() else []

    async def values(self, app: str) -> Mapping[str, str]:
        directory = self._app(app)
        # As bytes: reading as text would turn carriage returns into new lines.
        return {name: (directory / name).read_bytes().decode() for name in await self.names(app)}

    async def set(self, app: str, name: str, value: str) -> None:
        """Raises Invalid for a wrong name, a value over 64 KiB, or one that an environment cannot hold (NUL)."""
        path = self._file(app, name)
        check_value(value)
        keep(path, value)

    async def unset(self, app: str, name: str) -> None:
        try:
            self._file(app, name).unlink()
        except FileNotFoundError as error:
            known = ", ".join(await self.names(app)) or "none"
            raise UnknownSecret(f"{app} has no secret {name!r}.", hint=f"There are: {known}.") from error
