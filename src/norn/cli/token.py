"""norn token create|list|revoke"""

from __future__ import annotations

import argparse

from norn.cli.context import Context
from norn.cli.output import local_time, table
from norn.cli.transport import quote
from norn.errors import Invalid


def add_token(parser: argparse.ArgumentParser) -> None:
    parser.description = "Who has access, and to what."
    parser.epilog = (
        "examples:\n"
        "  norn token create on-call --role operator      may roll back, restart and cancel, and not deploy\n"
        "  norn token create ci --role deployer --app myapp --expires 90d\n"
        "  norn token list\n"
        "  norn token revoke ci                           lets nobody in from then on, on any server"
    )
    parser.add_argument("action", choices=("create", "list", "revoke"))
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--role", choices=("viewer", "operator", "deployer", "admin"), help="create: what it may do")
    parser.add_argument("--app", action="append", metavar="APP", help="create: for this app; again for more; else all")
    parser.add_argument("--expires", metavar="D", help="create: after 90d, 12h, …; else never")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    args = context.args
    if args.action == "list":
        return _list(context)
    if not args.name:
        raise Invalid(f"`norn token {args.action}` wants a NAME.", hint="`norn token list` lists them.")
    if args.action == "revoke":
        context.client.request("DELETE", f"/api/tokens/{quote(args.name)}")
        context.printer.result({"name": args.name, "revoked": True}, lambda: f"{args.name} lets nobody in any more")
        return 0
    if not args.role:
        raise Invalid("`norn token create` wants --role.", hint="viewer, operator, deployer or admin.")
    body = {"name": args.name, "role": args.role, "apps": args.app, "expires": args.expires}
    made = context.client.request("POST", "/api/tokens", {name: value for name, value in body.items() if value})
    context.printer.progress("This is shown once: keep it where its user keeps passwords.")
    context.printer.result(made, lambda: str(made["token"]))
    return 0


def _list(context: Context) -> int:
    document = context.client.get("/api/tokens")

    def text() -> str:
        rows = [
            [
                token["name"],
                token["role"],
                ", ".join(token["apps"]) if token["apps"] is not None else "all",
                "expired" if token["expired"] else local_time(token["expiresAt"]),
                local_time(token["lastUsedAt"]),
                token["createdBy"],
            ]
            for token in document["tokens"]
        ]
        return table(["NAME", "ROLE", "APPS", "EXPIRES", "LAST USED", "MADE BY"], rows)

    context.printer.result(document, text)
    return 0
