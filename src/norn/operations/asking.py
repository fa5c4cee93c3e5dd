"""An operation that asks before it goes on: what would be lost, or what could not be found out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from norn.domain.audit import Asked
from norn.domain.durations import format_duration
from norn.errors import NotConfirmed, NotPossible, UnknownOperation
from norn.operations.procedures import Run
from norn.operations.services import Caller, Services, noting_refusal

PATIENCE_S = 900.0
"""After which nobody seems to be there any more: nothing is changed, and what was prepared is removed."""
_LOOK_EVERY_S = 0.25


async def ask(run: Run, services: Services, asks: Mapping[str, Any]) -> None:
    """Wait until somebody confirms. Where the request said yes to all of it beforehand, there is nothing to wait for.

    Raises NotConfirmed when nobody does in time; who says no cancels the operation.
    """
    if run.operation.params.get("confirm"):
        return
    known = await services.store.operation(run.id)
    if known is None or known.asks != asks:
        async with run.transaction() as transaction:
            await transaction.ask(asks)
    run.output.line(f"waiting for confirmation, {format_duration(PATIENCE_S)} at most: `norn confirm {run.id}`")
    await run.output.flush()
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    while loop.time() < end:
        found = await services.store.operation(run.id)
        if found is not None and found.confirmed is not None:
            run.output.line(f"confirmed by {found.confirmed.get('by')}")
            return
        await asyncio.sleep(_LOOK_EVERY_S)
    raise NotConfirmed(
        f"Nobody confirmed within {format_duration(PATIENCE_S)}; nothing was changed.",
        hint="Ask again with --yes to confirm beforehand.",
    )


async def confirm(services: Services, operation_id: str, caller: Caller) -> None:
    """Say yes to what an operation asks. Raises UnknownOperation, NotPossible (it asks nothing)."""
    operation = await services.store.operation(operation_id)
    if operation is None:
        raise UnknownOperation(f"There is no operation {operation_id!r}.", hint="`norn status` shows what is running.")
    asked = Asked(f"{operation.kind.value}.confirm", operation.app, operation_id)
    async with (
        noting_refusal(services, caller, asked),
        services.store.accepting(operation.app, caller.who) as transaction,
    ):
        if not await transaction.confirm(operation_id, caller.name) and operation.confirmed is None:
            raise NotPossible("This operation waits for no confirmation.", operationId=operation_id)
