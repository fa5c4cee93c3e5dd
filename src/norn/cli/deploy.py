"""norn deploy"""

from __future__ import annotations

import argparse

from norn.cli.context import Context
from norn.cli.deployments import announce, outcome
from norn.cli.follow import follow
from norn.cli.transport import quote


def add_deploy(parser: argparse.ArgumentParser) -> None:
    parser.description = "Deploy a commit: build, test, snapshot, migrate, roll out, watch it through its bake time."
    parser.epilog = (
        "examples:\n"
        "  norn deploy myapp                 the work tree's HEAD (uncommitted changes are not deployed)\n"
        "  norn deploy myapp v1.4.2          a tag, a branch or a commit\n"
        "  norn deploy myapp 3f2a91c --force one that is in quarantine\n"
        "  norn deploy myapp --no-snapshot --reason 'hotfix, the dump takes an hour'"
    )
    parser.add_argument("app")
    parser.add_argument("ref", nargs="?", default="HEAD", help="a commit, branch or tag; default HEAD")
    parser.add_argument("--force", action="store_true", help="deploy an image in quarantine, and lift that")
    parser.add_argument("--no-snapshot", action="store_true", help="no snapshot before the migration; wants --reason")
    parser.add_argument("--reason", default="", help="why, for the history")
    parser.add_argument("--no-wait", action="store_true", help="return once it is accepted")
    parser.add_argument("--timeout", help="wait no longer than this (90s, 5m); it goes on, exit 6")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    args = context.args
    body = {"ref": args.ref, "force": args.force, "snapshot": not args.no_snapshot, "reason": args.reason}
    deployment = context.client.request("POST", f"/api/apps/{quote(args.app)}/deploy", body)
    announce(context, deployment)
    if not args.no_wait:
        follow(context, deployment["id"], lambda _: False, args.timeout)
        deployment = context.client.get(f"/api/deployments/{deployment['id']}")
    return outcome(context, deployment)
