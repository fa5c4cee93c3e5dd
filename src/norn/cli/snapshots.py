"""norn snapshots list|create"""

from __future__ import annotations

import argparse

from norn.cli.context import Context
from norn.cli.follow import follow
from norn.cli.operations import ended
from norn.cli.output import ago, local_time, table
from norn.cli.transport import quote


def add_snapshots(parser: argparse.ArgumentParser) -> None:
    parser.description = "Snapshots of an app's database: plain files of pg_dump's custom format."
    parser.epilog = (
        "examples:\n"
        "  norn snapshots list myapp\n"
        "  norn snapshots create myapp --reason 'before the big import'\n"
        "  pg_restore -d DATABASE FILE       brings one back by hand"
    )
    parser.add_argument("action", choices=("list", "create"))
    parser.add_argument("app")
    parser.add_argument("--reason", default="", help="why, for the list")
    parser.add_argument("--timeout", help="wait no longer than this (90s, 5m); it goes on, exit 6")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    path = f"/api/apps/{quote(context.args.app)}/snapshots"
    if context.args.action == "create":
        operation = context.client.request("POST", path, {"reason": context.args.reason})
        return ended(context, follow(context, operation["id"], lambda _: False, context.args.timeout))
    document = context.client.get(path)

    def text() -> str:
        rows = [
            [
                snapshot["name"] if snapshot["exists"] else f"{snapshot['name']} (its file is gone)",
                f"{snapshot['sizeBytes']:,}",
                local_time(snapshot["takenAt"]),
                ago(snapshot["takenAt"]),
                snapshot["reason"],
            ]
            for snapshot in document["snapshots"]
        ]
        return table(["NAME", "BYTES", "TAKEN", "AGE", "WHY"], rows)

    context.printer.result(document, text)
    return 0
