"""A database to oneself, over several steps of an operation: what happens in between belongs together."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack

from norn.domain.ports import AppDatabase
from norn.errors import NotPossible, Unavailable
from norn.operations.procedures import Run
from norn.operations.services import Services


class Exclusive:
    """Databases that operations of this server have to themselves; after a crash a step asks for it again."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._held: dict[str, AsyncExitStack] = {}

    async def have(self, run: Run, database: AppDatabase, at_most_s: float | None = None) -> None:
        """Wait until nobody else is at work on the database, and keep others off it. Again: nothing happens.

        It lasts until `let_go`, or until this server leaves the operation. Raises NotPossible after `at_most_s`.
        """
        if run.id in self._held:
            return
        held = AsyncExitStack()
        try:
            async with asyncio.timeout(at_most_s):
                await held.enter_async_context(self._services.databases.alone(database, run.output.write))
        except TimeoutError as error:
            raise NotPossible(
                f"Another operation is at work on the database {database.name}, still after {at_most_s:g} s.",
                hint="`norn status` shows what is running; a server that hangs keeps it: end that.",
            ) from error
        self._held[run.id] = held
        run.on_leave(lambda: self.let_go(run))

    async def let_go(self, run: Run) -> None:
        """Let others at it again."""
        if (held := self._held.pop(run.id, None)) is not None:
            with contextlib.suppress(Unavailable):  # a lost connection has let go of it already
                await held.aclose()
