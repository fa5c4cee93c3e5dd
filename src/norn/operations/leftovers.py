"""What operations that another server ended have left in this one's work directory."""

from __future__ import annotations

import asyncio
import shutil

from norn.operations.services import Services


async def remove_leftovers(services: Services) -> None:
    """A server that was killed cannot tidy up after itself, and whoever took over from it cannot reach its files."""
    if not await asyncio.to_thread(services.work_dir.exists):
        return
    for directory in await asyncio.to_thread(lambda: list(services.work_dir.iterdir())):
        operation = await services.store.operation(directory.name)
        if operation is None or operation.status.ended:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
