"""The passwords of the apps' roles: a private file each, or, with several servers on a database, made from its key."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from norn.adapters.secrets import keep


class Passwords:
    """What an app's role logs in with; the same on every server.

    Args:
        directory: a private directory; what lies there counts.
        key: 32 bytes that all servers on one database have (`Store.installation_key`), where there may be several: a
            password that only one of them knew would be changed by the next, under the feet of what runs.
    """

    def __init__(self, directory: Path, key: Callable[[], Awaitable[bytes]] | None = None) -> None:
        self._directory = directory
        self.key = key

    async def known(self, app: str) -> str:
        """The password, where there is one already; else empty."""
        with contextlib.suppress(FileNotFoundError):
            return (self._directory / app).read_text(encoding="ascii")
        if self.key is not None:
            return hmac.new(await self.key(), f"role of {app}".encode(), hashlib.sha256).hexdigest()
        return ""

    async def of(self, app: str) -> str:
        """The password; made where there is none."""
        if known := await self.known(app):
            return known
        path = self._directory / app
        keep(path, secrets.token_hex(32), replace=False)
        return path.read_text(encoding="ascii")  # another server may have been first
