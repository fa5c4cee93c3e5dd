"""norn restart, logs, confirm, cancel, watch"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from norn.cli.context import Context
from norn.cli.follow import Event, events, follow
from norn.cli.output import local_time
from norn.cli.transport import Problem, quote
from norn.errors import EXIT_DONE, EXIT_FAILED, EXIT_STILL_RUNNING, ServerUnreachable

_ID_LENGTH = 26
_RECONNECTS = 60


def add_restart(parser: argparse.ArgumentParser) -> None:
    parser.description = "Replace all processes of an app by new ones of the same image; no request is lost."
    parser.epilog = "examples:\n  norn restart myapp"
    parser.add_argument("app")
    parser.add_argument("--timeout", help="wait no longer than this (90s, 5m); it goes on, exit 6")
    parser.set_defaults(run=run_restart)


def add_logs(parser: argparse.ArgumentParser) -> None:
    parser.description = "What the live processes of an app print."
    parser.epilog = "examples:\n  norn logs myapp\n  norn logs myapp -f --tail 20"
    parser.add_argument("app")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as more comes")
    parser.add_argument("--tail", type=int, default=200, help="how many lines at first (default 200)")
    parser.set_defaults(run=run_logs)


def add_cancel(parser: argparse.ArgumentParser) -> None:
    parser.description = "Stop an operation; what it did is undone."
    parser.epilog = "examples:\n  norn cancel 01jdp3zqk2x7m4n8v5t6w9y0ab --reason 'wrong branch'"
    parser.add_argument("id")
    parser.add_argument("--reason", default="", help="why, for the history")
    parser.add_argument("--timeout", default="60s", help="wait no longer than this for its end (default 60s)")
    parser.set_defaults(run=run_cancel)


def add_confirm(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say yes to what an operation asks (what a restore would lose, say), so that it goes on."
    parser.epilog = "examples:\n  norn confirm 01jdp3zqk2x7m4n8v5t6w9y0ab"
    parser.add_argument("id")
    parser.add_argument("--timeout", help="wait no longer than this (90s, 5m); it goes on, exit 6")
    parser.set_defaults(run=run_confirm)


def add_watch(parser: argparse.ArgumentParser) -> None:
    parser.description = "Follow events: of everything, of an app, or of one operation to its end."
    parser.epilog = "examples:\n  norn watch\n  norn watch myapp\n  norn watch 01jdp3zqk2x7m4n8v5t6w9y0ab"
    parser.add_argument("what", nargs="?", metavar="APP|ID")
    parser.set_defaults(run=run_watch)


def run_restart(context: Context) -> int:
    operation = context.client.request("POST", f"/api/apps/{quote(context.args.app)}/restart")
    return ended(context, follow(context, operation["id"], lambda _: False, context.args.timeout))


def run_logs(context: Context) -> int:
    query = f"follow={'true' if context.args.follow else 'false'}&tail={context.args.tail}"
    timeout_s = 86_400.0 if context.args.follow else 120.0
    path = f"/api/apps/{quote(context.args.app)}/logs?{query}"
    answer = context.client.open("GET", path, timeout_s=timeout_s)
    if answer.status != 200:
        answer.json()
    for chunk in answer.chunks():
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return EXIT_DONE


def run_confirm(context: Context) -> int:
    context.client.request("POST", f"/api/operations/{quote(context.args.id)}/confirm")
    return ended(context, follow(context, context.args.id, lambda _: False, context.args.timeout))


def run_cancel(context: Context) -> int:
    path = f"/api/operations/{quote(context.args.id)}"
    context.client.request("POST", f"{path}/cancel", {"reason": context.args.reason})
    follow(context, context.args.id, lambda _: False, context.args.timeout)
    operation = context.client.get(path)
    context.printer.result(operation, lambda: f"{operation['kind']} {operation['id']}: {operation['status']}")
    return EXIT_DONE if operation["status"] == "cancelled" else EXIT_FAILED


def run_watch(context: Context) -> int:
    what = context.args.what
    if what and len(what) == _ID_LENGTH and what.isalnum():
        try:
            context.client.get(f"/api/operations/{quote(what)}")
        except Problem as problem:
            if problem.status != 404:
                raise
        else:
            return ended(context, follow(context, what, lambda _: False))
    if what:
        context.client.get(f"/api/apps/{quote(what)}")
    return _watch_all(context, f"app={quote(what)}" if what else "")


def _watch_all(context: Context, query: str) -> int:
    last_id, lost = "", 0
    while lost <= _RECONNECTS:
        try:
            for event in events(context.client, query, last_id):
                last_id, lost = event.id, 0
                _print_event(context, event)
        except ServerUnreachable as error:
            if not last_id and lost == 0:
                raise
            context.printer.progress(f"{error.message} Trying again.", "yellow")
        lost += 1
        time.sleep(1)
    return EXIT_STILL_RUNNING


def _print_event(context: Context, event: Event) -> None:
    if context.printer.format == "text":
        facts = " ".join(f"{k}={v}" for k, v in event.items() if k not in ("app", "at", "text", "operationId"))
        text = "".join(f"\n   {line}" for line in str(event.get("text", "")).splitlines())
        print(f"{local_time(event['at'])}  {event['app']}  {event.type}  {facts}{text}", flush=True)
    else:
        print(json.dumps({"id": event.id, "type": event.type} | event), flush=True)


def ended(context: Context, operation: Mapping[str, Any]) -> int:
    """Print how an operation ended; the exit status that goes with it."""
    context.printer.result(operation, lambda: f"{operation['kind']} of {operation['app']}: {operation['status']}")
    error = operation.get("error")
    if error:
        print(f"error: {error['message']}", file=sys.stderr)
        if error.get("hint"):
            print(f"hint: {error['hint']}", file=sys.stderr)
    return EXIT_DONE if operation["status"] == "succeeded" else EXIT_FAILED
