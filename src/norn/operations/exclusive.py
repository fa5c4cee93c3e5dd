"""A database to oneself, over several steps of an operation: what happens in between belongs together."""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack

from norn.domain.ports import AppDatabase
from norn.errors import Unavailable
from norn.operations.procedures import Run
from norn.operations.services import Services


class Exclusive:
    """Databases that operations of this server have to themselves; after a crash a step asks for it again."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._held: dict[str, AsyncExitStack] = {}

    async def have(self, run: Run, database: AppDatabase) -> None:
        """Wait until nobody else is at work on the database, and keep others off it. Again: nothing happens."""
        if run.id not in self._held:
            held = AsyncExitStack()
            await held.enter_async_context(self._services.databases.alone(database, run.output.write))
            self._held[run.id] = held

    async def let_go(self, run: Run) -> None:
        """Let others at it again."""
        if (held := self._held.pop(run.id, None)) is not None:
            with contextlib.suppress(Unavailable):  # a lost connection has let go of it already
                await held.aclose()
