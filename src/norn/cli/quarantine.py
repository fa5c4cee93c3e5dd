"""norn quarantine list|lift"""

from __future__ import annotations

import argparse

from norn.cli.context import Context
from norn.cli.output import local_time, table
from norn.cli.transport import quote
from norn.errors import Invalid


def add_quarantine(parser: argparse.ArgumentParser) -> None:
    parser.description = "Images that were rolled back from. They are not deployed again unless asked for with --force."
    parser.epilog = (
        "examples:\n"
        "  norn quarantine list myapp\n"
        "  norn quarantine lift myapp 3f2a91c    its commit can be deployed again; a new commit needs no lifting"
    )
    parser.add_argument("action", choices=("list", "lift"))
    parser.add_argument("app")
    parser.add_argument("version", nargs="?", metavar="VERSION", help="an image tag, or a prefix of its commit")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    args = context.args
    path = f"/api/apps/{quote(args.app)}/quarantine"
    if args.action == "list":
        document = context.client.get(path)
        rows = [(item["imageTag"], local_time(item["since"]), item["why"]) for item in document["quarantine"]]
        context.printer.result(document, lambda: table(("IMAGE", "SINCE", "WHY"), rows) if rows else "nothing")
        return 0
    if not args.version:
        raise Invalid("`norn quarantine lift` wants a VERSION.", hint=f"`norn quarantine list {args.app}` lists them.")
    lifted = context.client.request("POST", f"{path}/lift", {"imageTag": args.version})
    context.printer.result(lifted, lambda: f"{lifted['imageTag']} can be deployed again")
    return 0
