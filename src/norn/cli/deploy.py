"""norn deploy, norn adopt"""

from __future__ import annotations

import argparse
from typing import Any

from norn.cli.context import Context
from norn.cli.deployments import announce, outcome
from norn.cli.follow import follow
from norn.cli.transport import Problem, quote


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
    parser.add_argument("--force", action="store_true", help="also an image in quarantine; set what others have set")
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
        _see_it_rolled_back(context, deployment)
    return outcome(context, deployment)


def _see_it_rolled_back(context: Context, deployment: dict[str, Any]) -> None:
    """Where the server goes back by itself: until what it goes back to is live."""
    automatic = (deployment.get("error") or {}).get("automatic") or {}
    if automatic.get("deploymentId") and _is_there(context, automatic["deploymentId"]):
        context.printer.progress(f"{deployment['error']['message']} Going back to {automatic['imageTag']}", "yellow")
        follow(context, automatic["deploymentId"], lambda operation: operation["committed"], context.args.timeout)
        back = context.client.get(f"/api/deployments/{automatic['deploymentId']}")
        ended = "has gone back" if back["status"] not in ("failed", "cancelled") else "could not go back"
        hint = f"Norn {ended} to {back['imageTag']} by itself: `norn watch {back['id']}`."
        deployment["error"] = deployment["error"] | {"hint": hint}


def _is_there(context: Context, operation_id: str) -> bool:
    """Not where somebody has asked for something else in that very moment."""
    try:
        context.client.get(f"/api/operations/{quote(operation_id)}")
    except Problem as problem:
        if problem.status != 404:
            raise
        return False
    return True


def add_adopt(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Take over a Kubernetes Deployment of the app's name that somebody else has made. Nothing that runs is "
        "changed; its live image is the first version in the history, and from then on only its image is changed."
    )
    parser.epilog = "examples:\n  norn adopt myapp\n  norn adopt myapp --container web"
    parser.add_argument("app")
    parser.add_argument("--container", metavar="NAME", help="which container is the app, where there are several")
    parser.add_argument("--no-wait", action="store_true", help="return once it is accepted")
    parser.add_argument("--timeout", help="wait no longer than this (90s, 5m); it goes on, exit 6")
    parser.set_defaults(run=run_adopt)


def run_adopt(context: Context) -> int:
    args = context.args
    body = {"container": args.container} if args.container else {}
    deployment = context.client.request("POST", f"/api/apps/{quote(args.app)}/adopt", body)
    announce(context, deployment)
    if not args.no_wait:
        follow(context, deployment["id"], lambda _: False, args.timeout)
        deployment = context.client.get(f"/api/deployments/{deployment['id']}")
    return outcome(context, deployment)
