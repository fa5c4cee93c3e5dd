"""Takes rollbacks that were made without a server into the history, and watches them through their bake time."""

from __future__ import annotations

import structlog

from norn.domain.deployments import Status
from norn.domain.operations import Accept, OperationKind, admit
from norn.domain.ports import Direct
from norn.errors import NornError
from norn.operations.services import Caller, Services, accepting

log = structlog.get_logger(__name__)


async def take_in_all(services: Services) -> None:
    """Look at each app once; the next look finds what this one could not."""
    for app in await services.source.apps():
        try:
            made = await services.runtime.direct(app.name)
            if made is not None:
                await _take_in(services, app.name, made)
        except NornError as error:
            log.warning("direct_rollback_not_taken_in", app=app.name, error=error.message)


async def _take_in(services: Services, app: str, made: Direct) -> None:
    """A rollback like any other, but that its change is made already; what was under way is stopped for it."""
    if await services.store.deployment(made.id) is None:
        target = await services.store.deployment(made.target_deployment_id)
        caller = Caller(made.by)
        async with accepting(services, app, caller, made.id) as transaction:
            admission = admit(OperationKind.ROLLBACK, await transaction.active(), explicit=True)
            assert isinstance(admission, Accept)
            params = {"targetId": made.target_deployment_id, "ensure": False, "explicit": True, "template": False,
                      "direct": True}  # fmt: skip
            await transaction.add_operation(made.id, OperationKind.ROLLBACK, params, made.by, made.reason)
            origin = {"origin_seq": target.origin_seq} if target is not None else {}
            await transaction.add_deployment(
                made.id,
                kind="rollback",
                status=Status.QUEUED.value,
                image_tag=made.image.tag,
                digest=made.image.digest,
                commit_sha=target.commit_sha if target else "",
                commit_subject=target.commit_subject if target else "",
                from_deployment_id=made.from_deployment_id or None,
                from_image_tag=made.from_image_tag or None,
                target_deployment_id=target.id if target else None,
                template=target.template if target else None,
                requested_by=made.by,
                reason=made.reason,
                **origin,
            )
            for operation in admission.stop:
                why = f"{made.by} has rolled back to {made.image.tag} without a server"
                await transaction.cancel(operation.id, made.by, why, preempted_by=made.id)
        log.info("direct_rollback_taken_in", app=app, operation=made.id, by=made.by)
    await services.runtime.forget_direct(app, made.id)
