"""norn apps, norn status"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from norn.cli.context import Context
from norn.cli.output import ago, local_time, table
from norn.cli.transport import quote
from norn.cli.verdicts import findings

Document = Mapping[str, Any]


def add_apps(parser: argparse.ArgumentParser) -> None:
    parser.description = "The apps under NORN_APPS_DIR."
    parser.epilog = "examples:\n  norn apps\n  norn apps -o json"
    parser.set_defaults(run=run_apps)


def add_status(parser: argparse.ArgumentParser) -> None:
    parser.description = "What is live, healthy, being done; could it be rolled back now, and to what."
    parser.epilog = "examples:\n  norn status\n  norn status myapp"
    parser.add_argument("app", nargs="?")
    parser.set_defaults(run=run_status)


def run_apps(context: Context) -> int:
    document = context.client.get("/api/apps")
    context.printer.result(document, lambda: _table(document["apps"]))
    return 0


def run_status(context: Context) -> int:
    if context.args.app is None:
        return run_apps(context)
    document = context.client.get(f"/api/apps/{quote(context.args.app)}")
    context.printer.result(document, lambda: _status(document))
    return 0


def _health(health: Document | None) -> str:
    if health is None:
        return "-"
    return "healthy" if health["healthy"] else f"{health['ready']} of {health['wanted']} ready"


def _doing(operation: Document | None) -> str:
    if operation is None:
        return "-"
    return f"{operation['kind']} {operation['id']}" + (f" ({operation['step']})" if operation["step"] else "")


def _table(apps: list[Document]) -> str:
    if not apps:
        return "no app: put a directory with an infraspec.yaml under NORN_APPS_DIR"
    rows = []
    for app in apps:
        live = app["live"] or {}
        note = app["problem"] or _doing(app["operation"])
        rows.append([app["name"], live.get("imageTag"), ago(live.get("since")), _health(app["health"]), note])
    return table(["APP", "LIVE", "SINCE", "HEALTH", "DOING"], rows)


def _status(app: Document) -> str:
    live, rollback = app["live"], app["rollback"]
    lines = [f"app       {app['name']} ({app['role'] or 'its infraspec cannot be read'})"]
    if app["problem"]:
        lines.append(f"problem   {app['problem']}")
    if live is None:
        lines.append("live      nothing")
    else:
        lines.append(f"live      {live['imageTag']}  {live['commitSubject'] or ''}".rstrip())
        lines.append(f"since     {local_time(live['since'])} ({ago(live['since'])})")
        known = live["deploymentId"] or "in no deployment: changed by hand?"
        lines.append(f"from      {known}")
    health = app["health"]
    lines.append(f"health    {_health(health)}" + (f": {health['message']}" if health and health["message"] else ""))
    lately = app["lately"]
    if lately["failed"]:
        last = f"{local_time(lately['last']['at'])}: {lately['last']['message']}"
        lines.append(f"lately    {lately['failed']} of {lately['checks']} checks failed in the last hour; {last}")
    lines.append(f"doing     {_doing(app['operation'])}")
    if rollback["possible"]:
        target = rollback["target"]
        verdict = rollback["verdict"]
        lines.append(f"rollback  could be rolled back to {target['imageTag']}: {verdict['level']}")
        lines += [f"        {line}" for line in findings(verdict, harmless=False)]
    else:
        lines.append(f"rollback  not possible: {rollback['why']}")
    return "\n".join(lines)
