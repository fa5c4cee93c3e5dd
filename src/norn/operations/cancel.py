"""Cancel: stop an operation that is queued or running; its steps are undone."""

from __future__ import annotations

from norn.domain.audit import Asked
from norn.domain.operations import Operation
from norn.errors import NotPossible, UnknownOperation
from norn.operations.services import Caller, Services, noting_refusal


async def request_cancel(services: Services, operation_id: str, reason: str, caller: Caller) -> Operation:
    """Ask for the end of an operation; it ends within seconds, and says so itself.

    Asked for twice, it is the same. Raises UnknownOperation, NotPossible (it has ended).
    """
    operation = await services.store.operation(operation_id)
    if operation is None:
        raise UnknownOperation(f"There is no operation {operation_id!r}.", hint="`norn status` shows what is running.")
    async with noting_refusal(services, caller, Asked("operation.cancel", operation.app, operation_id, reason)):
        if operation.status.ended:
            raise NotPossible(f"It has ended already: {operation.status.value}.", operationId=operation_id)
        if operation.cancel is None:
            async with services.store.accepting(operation.app, caller.who) as transaction:
                await transaction.cancel(operation_id, caller.name, services.known.of(operation.app).text(reason))
    found = await services.store.operation(operation_id)
    assert found is not None
    return found
