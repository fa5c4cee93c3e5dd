"""Take the last restore back: the data, and the code as well where both went back together."""

from __future__ import annotations

from norn.domain.audit import Asked
from norn.domain.operations import Operation, OperationKind, Refuse
from norn.errors import NotPossible
from norn.operations.app_databases import database_of
from norn.operations.restore import RestoreRequest, last_restore, request_restore
from norn.operations.rollback_plan import request_rollback
from norn.operations.rollback_request import RollbackRequest
from norn.operations.services import Caller, Services, busy, once_operation
from norn.operations.way_back import taken_back


async def request_undo(services: Services, request: RestoreRequest, caller: Caller) -> Operation:
    """Accept it. Raises UnknownApp, SharedDatabase, NotPossible, Busy, and as `request_rollback`."""

    async def take() -> str:
        app = await services.source.app(request.app)
        for operation in await services.store.active_operations(app.name):
            restores = operation.kind is OperationKind.RESTORE or operation.params.get("withData")
            if restores and not operation.committed:
                raise busy(Refuse(operation, f"a {operation.kind.value} of {app.name} with its data is under way"))
        last = await last_restore(services, app.name, await database_of(services, app.name))
        together = await services.store.deployment(last.id)
        if together is None:
            return (await request_restore(services, request, caller)).id
        if together.from_deployment_id is None:
            raise NotPossible(
                f"What ran before {together.image_tag} is in no deployment, so its code cannot be brought back.",
                hint=f"Deploy it; {last.former} has its data until retention removes it.",
            )
        back = await taken_back(services, app.name, last, request.affects)
        wanted = RollbackRequest(
            app.name,
            together.from_deployment_id,
            reason=request.reason or f"takes back {together.id}",
            force=True,
            data=back,
            affects=request.affects,
            confirm=request.confirm,
        )
        reply = await request_rollback(services, wanted, caller)
        assert reply.deployment is not None
        return reply.deployment.id

    asked = Asked.request(OperationKind.RESTORE, request.app, "undo", request.reason)
    return await once_operation(services, caller, asked, take)
