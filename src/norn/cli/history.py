"""norn history, norn artifacts"""

from __future__ import annotations

import argparse

from norn.cli.context import Context
from norn.cli.output import local_time, table
from norn.cli.transport import quote


def add_history(parser: argparse.ArgumentParser) -> None:
    parser.description = "The deployments of an app, newest first."
    parser.epilog = "examples:\n  norn history myapp\n  norn history myapp --limit 200 -o json"
    parser.add_argument("app")
    parser.add_argument("--limit", type=int, default=20, help="how many (default 20, at most 200)")
    parser.add_argument("--cursor", help="where the page before ended")
    parser.set_defaults(run=run_history)


def add_artifacts(parser: argparse.ArgumentParser) -> None:
    parser.description = "The images of an app that are kept, newest first."
    parser.epilog = "examples:\n  norn artifacts myapp"
    parser.add_argument("app")
    parser.set_defaults(run=run_artifacts)


def run_history(context: Context) -> int:
    args = context.args
    context.client.get(f"/api/apps/{quote(args.app)}")  # an app that does not exist is an error, not an empty history
    cursor = f"&cursor={quote(args.cursor)}" if args.cursor else ""
    document = context.client.get(f"/api/deployments?app={quote(args.app)}&limit={args.limit}{cursor}")

    def text() -> str:
        rows = [
            [
                local_time(deployment["requestedAt"]),
                deployment["id"],
                deployment["kind"],
                deployment["imageTag"],
                deployment["status"] + (" (live)" if deployment["liveFrom"] and not deployment["liveUntil"] else ""),
                deployment["requestedBy"],
                deployment["reason"] or deployment["commitSubject"],
            ]
            for deployment in document["deployments"]
        ]
        more = f"\nmore: --cursor {document['cursor']}" if document["cursor"] else ""
        return table(["WHEN", "ID", "KIND", "IMAGE", "STATUS", "BY", "WHY"], rows) + more

    context.printer.result(document, text)
    return 0


def run_artifacts(context: Context) -> int:
    document = context.client.get(f"/api/apps/{quote(context.args.app)}/artifacts")

    def text() -> str:
        rows = [
            [
                artifact["imageTag"],
                local_time(artifact["deployedAt"]),
                artifact["status"],
                "live" if artifact["live"] else "target" if artifact["target"] else "",
                artifact["digest"][:19],
            ]
            for artifact in document["artifacts"]
        ]
        return table(["IMAGE", "DEPLOYED", "STATUS", "", "DIGEST"], rows)

    context.printer.result(document, text)
    return 0
