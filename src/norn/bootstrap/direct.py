"""`norn rollback APP --direct`: the parts for a rollback without a server."""

from __future__ import annotations

import getpass
import platform
import sys
from typing import Any

from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.direct import DirectPlan, DirectRollback
from norn.config import Settings
from norn.operations.services import new_id


def _progress(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _caller() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (KeyError, OSError):
        return platform.node() or "somebody"


async def rollback_direct(
    settings: Settings, app: str, reason: str, *, resume: bool, dry_run: bool, timeout_s: float, quiet: bool
) -> dict[str, Any]:
    """Plan, patch, watch; what was done, as JSON. Raises NothingToRollBackTo, Paused, RolloutFailed, …"""
    cluster = Cluster(settings.namespace, settings.kube_context)
    direct = DirectRollback(cluster)
    output = (lambda _text: None) if quiet else _progress
    try:
        plan = await direct.plan(app)
        if dry_run or plan.unchanged:
            return _document(plan, None, dry_run=dry_run)
        operation_id = new_id()
        output(f"rollback of {app} from {plan.from_image} to {plan.target.image_tag}  {operation_id}\n")
        output(f"  why: {plan.why}\n")
        output("  caution: without a server nobody has checked whether the older code is enough.\n")
        await direct.run(plan, operation_id, _caller(), reason, resume=resume, timeout_s=timeout_s, output=output)
        return _document(plan, operation_id, dry_run=False)
    finally:
        await cluster.close()


def _document(plan: DirectPlan, operation_id: str | None, *, dry_run: bool) -> dict[str, Any]:
    return {
        "id": operation_id,
        "app": plan.workload.name,
        "kind": "rollback",
        "direct": True,
        "dryRun": dry_run,
        "unchanged": plan.unchanged,
        "imageTag": plan.target.image_tag,
        "digest": plan.target.digest,
        "fromImageTag": plan.from_image,
        "target": {"deploymentId": plan.target.deployment_id, "why": plan.why},
    }
