"""norn snapshots list|create|verify|restore|undo, norn prune"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from norn.cli.confirming import follow_and_answer, make_sure_somebody_answers, see_rollback_with_data
from norn.cli.context import Context
from norn.cli.follow import follow
from norn.cli.operations import ended
from norn.cli.output import ago, local_time, table
from norn.cli.transport import quote
from norn.errors import EXIT_DONE, EXIT_REFUSED, Invalid

_WITH_NAME = ("restore",)


def add_snapshots(parser: argparse.ArgumentParser) -> None:
    parser.description = "Snapshots of an app's database: plain files of pg_dump's custom format."
    parser.epilog = (
        "examples:\n"
        "  norn snapshots list myapp\n"
        "  norn snapshots create myapp --keep --reason 'before the big import'\n"
        "  norn snapshots verify myapp                    a test restore of the newest one; NAME names another\n"
        "  norn snapshots restore myapp NAME              beside the live database, checked, then swapped\n"
        "  norn snapshots restore myapp NAME --into look  into a new database; the live one stays\n"
        "  norn snapshots undo myapp                      take the last restore back\n"
        "  pg_restore -d NEW_DATABASE FILE                by hand, into an empty one; docs/data.md says with what"
    )
    parser.add_argument("action", choices=("list", "create", "verify", "restore", "undo"))
    parser.add_argument("app")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the snapshot, as in the list")
    parser.add_argument("--reason", default="", help="why, for the list")
    parser.add_argument("--keep", action="store_true", help="create: retention leaves it alone")
    parser.add_argument("--into", metavar="DATABASE", help="restore: into a new database; the live one stays")
    parser.add_argument(
        "--affects", metavar="APP", action="append", default=[], help="another app on the database goes back with it"
    )
    parser.add_argument("--yes", action="store_true", help="restore, undo: yes to what would be lost, without asking")
    parser.add_argument("--timeout", help="wait no longer than this (90s, 5m); it goes on, exit 6")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    args = context.args
    if (args.name is not None) != (args.action in _WITH_NAME) and args.action != "verify":
        raise Invalid(
            f"`norn snapshots {args.action}` takes {'a NAME' if args.action in _WITH_NAME else 'no NAME'}.",
            hint=f"`norn snapshots list {args.app}` has the names.",
        )
    path = f"/api/apps/{quote(args.app)}/snapshots"
    match args.action:
        case "list":
            return _list(context, path)
        case "create":
            body = {"reason": args.reason, "keep": args.keep}
            operation = context.client.request("POST", path, body)
            return ended(context, follow(context, operation["id"], lambda _: False, args.timeout))
        case "verify":
            operation = context.client.request("POST", f"{path}/{quote(args.name or 'newest')}/verify")
            return ended(context, follow(context, operation["id"], lambda _: False, args.timeout))
        case "restore":
            more = {"into": args.into} if args.into else {}
            return _ask_and_follow(context, f"{path}/{quote(args.name)}/restore", more)
        case _:
            return _ask_and_follow(context, f"{path}/undo", {})


def _ask_and_follow(context: Context, path: str, more: Mapping[str, Any]) -> int:
    """Request it, show what it asks, pass on the answer, and follow it to its end."""
    args = context.args
    if not args.into:
        make_sure_somebody_answers(context)
    body = {"affects": args.affects, "confirm": args.yes, "reason": args.reason} | dict(more)
    requested = context.client.request("POST", path, body)
    if requested["kind"] == "rollback":  # the code went back with the data, and comes forward with it
        return see_rollback_with_data(context, requested["id"])
    operation, agreed = follow_and_answer(context, requested["id"], lambda _: False)
    status = ended(context, operation)
    return status if agreed else EXIT_REFUSED


def add_prune(parser: argparse.ArgumentParser) -> None:
    parser.description = "Apply retention now: what goes, what stays, and why."
    parser.epilog = "examples:\n  norn prune myapp --dry-run\n  norn prune myapp"
    parser.add_argument("app")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument("--timeout", help="wait no longer than this (90s, 5m); it goes on, exit 6")
    parser.set_defaults(run=run_prune)


def run_prune(context: Context) -> int:
    args = context.args
    reply = context.client.request("POST", f"/api/apps/{quote(args.app)}/prune", {"dryRun": args.dry_run})
    if not args.dry_run:
        operation = follow(context, reply["id"], lambda _: False, args.timeout)
        if operation["status"] != "succeeded":
            return ended(context, operation)
        reply = operation["result"]

    def text() -> str:
        rows = [
            ["stays" if fate["stays"] else "goes", fate["kind"], fate["name"], fate["why"]] for fate in reply["fates"]
        ]
        return "\n".join([table(["", "WHAT", "NAME", "WHY"], rows), *reply.get("problems", ())])

    context.printer.result(reply, text)
    return EXIT_DONE


def _list(context: Context, path: str) -> int:
    document = context.client.get(path)

    def text() -> str:
        rows = [
            [
                snapshot["name"] if snapshot["exists"] else f"{snapshot['name']} (its file is gone)",
                f"{snapshot['sizeBytes']:,}",
                local_time(snapshot["takenAt"]),
                ago(snapshot["takenAt"]),
                ago(snapshot["verifiedAt"]) if snapshot["verifiedAt"] else "never",
                snapshot["reason"] + (" (kept)" if snapshot["kept"] else ""),
            ]
            for snapshot in document["snapshots"]
        ]
        return table(["NAME", "BYTES", "TAKEN", "AGE", "VERIFIED", "WHY"], rows)

    context.printer.result(document, text)
    return EXIT_DONE
