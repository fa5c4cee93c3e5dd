"""Values that apps get and nobody sees: one private file each."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from norn.errors import Invalid, UnknownSecret

MAX_BYTES = 65_536
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")
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


def check_name(name: str) -> None:
    """Raises Invalid for what an environment cannot hold as a name."""
    if not _NAME.match(name):
        raise Invalid(f"{name!r} is not the name of a secret.", hint="Letters, digits and _, no digit first.")


def check_value(value: str) -> None:
    """Raises Invalid for a value over 64 KiB, or one that an environment cannot hold."""
    if "\x00" in value or len(value.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise Invalid("The value has a NUL or is over 64 KiB.", hint="Keep files elsewhere, and their path here.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Invalid("The value is not text.", hint="Encode it, with base64 for example.") from error


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
        return sorted(path.name for path in directory.iterdir() if _NAME.match(path.name)) if directory.exists() else []

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
