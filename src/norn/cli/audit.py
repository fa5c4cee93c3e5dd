"""norn audit"""

from __future__ import annotations

import argparse
import json
import sys

from norn.cli.context import Context
from norn.cli.output import local_time, table
from norn.cli.transport import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def add_audit(parser: argparse.ArgumentParser) -> None:
    parser.description = "Who did what, from where and why, and what was refused; newest first."
    parser.epilog = (
        "examples:\n  norn audit\n  norn audit --app myapp --limit 200 -o json\n"
        "  norn audit --jsonl > audit.jsonl      all of it, the oldest first"
    )
    parser.add_argument("--app", help="of this app alone")
    parser.add_argument("--limit", type=int, default=50, help="how many (default 50, at most 200)")
    parser.add_argument("--cursor", help="where the page before ended")
    parser.add_argument("--jsonl", action="store_true", help="all of it as JSON lines, the oldest first")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    args = context.args
    of_app = f"app={quote(args.app)}" if args.app else ""
    if args.jsonl:
        return _export(context, f"/api/audit?{of_app}")
    cursor = f"&cursor={quote(args.cursor)}" if args.cursor else ""
    document = context.client.get(f"/api/audit?limit={args.limit}&{of_app}{cursor}")

    def text() -> str:
        more = f"\nmore: --cursor {document['cursor']}" if document["cursor"] else ""
        header = ["WHEN", "WHO", "FROM", "WHAT", "APP", "ON", "OUTCOME", "CHANGE", "WHY"]
        return table(header, [_row(entry) for entry in document["entries"]]) + more

    context.printer.result(document, text)
    return 0


def _row(entry: Mapping[str, Any]) -> list[object]:
    who = entry["actor"] + (f" ({entry['token']})" if entry["token"] not in ("", entry["actor"]) else "")
    return [
        local_time(entry["at"]),
        who,
        entry["address"] or "-",
        entry["action"],
        entry["app"] or "-",
        entry["subject"] or "-",
        entry["outcome"],
        _change(entry["before"] or {}, entry["after"] or {}),
        " ".join(entry["reason"].split()),
    ]


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """`myapp:1 → myapp:2`; else what it says, as `name=value`."""
    if "imageTag" in after or "imageTag" in before:
        return f"{before.get('imageTag', '-')} → {after.get('imageTag', '-')}"
    said = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in after.items()]
    return " ".join(" ".join(said).split())[:80] or "-"


def _export(context: Context, path: str) -> int:
    answer = context.client.open("GET", path, headers={"Accept": "application/x-ndjson"})
    if answer.status >= 400:
        answer.json()
    for chunk in answer.chunks():
        sys.stdout.buffer.write(chunk)
    return 0
