"""`norn serve --stop-all`: the end of everything that runs for a NORN_HOME."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from pathlib import Path

from norn.bootstrap.installation import Installation
from norn.config import Settings
from norn.errors import ServerNotStarted


async def stop_all(settings: Settings) -> None:
    """End the server, the apps, and the embedded PostgreSQL of this home.

    Raises ServerNotStarted where the server does not end.
    """
    await _stop_server(settings.home)
    if settings.home.exists():
        await Installation(settings).stop_all()


async def _stop_server(home: Path) -> None:
    try:
        lock = (home / "serve.lock").open("a+", encoding="ascii")
    except OSError:
        return
    with lock:
        for attempt in range(300):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                pid = lock.read().strip()
                if attempt == 0 and pid.isdecimal():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGTERM)
                await asyncio.sleep(0.1)
            else:
                return
    raise ServerNotStarted("The server does not end.", hint="Look at its log; then end it by its process id.")
