"""A deployment as text: what was asked for, what is planned, how it ended."""

from __future__ import annotations

import sys

from norn.cli.context import Context
from norn.errors import EXIT_DONE, EXIT_FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Document = Mapping[str, Any]


def announce(context: Context, deployment: Document) -> None:
    """Say on standard error what has begun, and, for a rollback, why that target and what to look out for."""
    printer = context.printer
    if deployment.get("unchanged"):
        return
    since = f" from {deployment['fromImageTag']}" if deployment.get("fromImageTag") else ""
    printer.progress(
        f"{deployment['kind']} of {deployment['app']}{since} to {deployment['imageTag']}  {deployment['id']}"
    )
    for line in reasons(deployment):
        printer.progress(line)
    if deployment.get("verdict"):
        from norn.cli.verdicts import findings

        for line in findings(deployment["verdict"], harmless=False):
            printer.progress(line, "yellow")


def reasons(deployment: Document) -> list[str]:
    """Why that target, which were passed over, and which data comes back with it."""
    target = deployment.get("target")
    if not target:
        return []
    lines = [f"  why: {target['why']}"]
    lines += [f"  passed over {skip['imageTag']}: {skip['why']}" for skip in target["skipped"]]
    return lines + _data(target.get("restore"))


def _data(restore: Document | None) -> list[str]:
    """Which data comes back with it, how old it is, and for how long the app would be down."""
    if restore is None:
        return []
    from norn.cli.output import ago

    if restore["snapshot"] is None:
        what = "the database that the restore has put aside"
    else:
        verified = f"verified {ago(restore['verifiedAt'])} ago" if restore["verifiedAt"] else "never verified"
        what = f"{restore['snapshot']}, {ago(restore['takenAt'])} old, {verified}"
    down = f"  down for about {restore['expectedDowntimeS']:g} s while the databases are swapped"
    if "loss" not in restore:
        return [f"  data: {what}; what would be lost is looked up, shown and asked before anything is changed", down]
    lost = restore["lossText"].splitlines() or ["nothing that was written since"]
    return [f"  data: {what}", "  would be lost:", *(f"    {line}" for line in lost), down]


def show_plan(plan: Document) -> str:
    """What a rollback would do."""
    if plan["unchanged"]:
        return f"{plan['imageTag']} is live already: nothing would be changed"
    lines = [f"would change {plan['app']} from {plan['fromImageTag'] or 'nothing'} to {plan['imageTag']}"]
    lines += reasons(plan)
    lines += [f"  would stop {id_}" for id_ in plan.get("stops", ())]
    from norn.cli.verdicts import findings, ways

    verdict = plan["verdict"]
    lines.append(f"verdict: {verdict['level']}")
    return "\n".join([*lines, *findings(verdict), *ways(verdict)])


def outcome(context: Context, deployment: Document) -> int:
    """Print how a deployment stands, and its error; the exit status that goes with it."""
    context.printer.result(deployment, lambda: _sentence(deployment))
    explain(deployment)
    return EXIT_FAILED if has_failed(deployment) else EXIT_DONE


def has_failed(deployment: Document) -> bool:
    """Whether it ended without its version being live; rolled back at once because its bake failed, say."""
    status = deployment["status"]
    return status in ("failed", "cancelled") or (status == "rolled_back" and bool(deployment.get("error")))


def explain(deployment: Document) -> None:
    """Why it failed, on standard error: the error, the end of what the step printed, what could not be undone."""
    error = deployment.get("error")
    if has_failed(deployment) and error:
        print(f"error: {error.get('message')}", file=sys.stderr)
        failed_step = next((s for s in reversed(deployment.get("steps", ())) if s["status"] == "failed"), None)
        if failed_step:
            print(f"  in the step {failed_step['step']}", file=sys.stderr)
            for line in failed_step["output"].splitlines()[-20:]:
                print(f"  | {line}", file=sys.stderr)
        for undo in error.get("undoErrors", ()):
            print(f"NOT UNDONE, the step {undo['step']}: {undo['message']}", file=sys.stderr)
        if error.get("stays"):
            print(f"STAYS: {error['stays']}", file=sys.stderr)
        if error.get("hint"):
            print(f"hint: {error['hint']}", file=sys.stderr)


def _sentence(deployment: Document) -> str:
    tag, app, status = deployment["imageTag"], deployment["app"], deployment["status"]
    if deployment.get("unchanged") and status in ("deployed", "rolled_back"):
        return f"{app} runs {tag} already: nothing was changed"
    if deployment.get("unchanged"):
        return f"{app} is going to {tag} already ({deployment['id']}, {status})"
    match status:
        case "deployed":
            return f"{app} runs {tag}"
        case "baking":
            return f"{app} runs {tag}; its health is watched for a while yet (`norn watch {deployment['id']}`)"
        case "failed" | "cancelled":
            return f"the {deployment['kind']} of {tag} {'failed' if status == 'failed' else 'was cancelled'}"
    return f"{app} is going to {tag} ({status}, {deployment['id']})"
