"""norn notifications list|key"""

from __future__ import annotations

import argparse

from norn.cli.context import Context
from norn.cli.output import local_time, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


def add_notifications(parser: argparse.ArgumentParser) -> None:
    parser.description = "What receivers of webhooks were told of rollbacks and failures, and what has not arrived."
    parser.epilog = (
        "examples:\n"
        "  norn notifications list              what has not arrived comes first\n"
        "  norn notifications key -o text       the key by which receivers verify (Standard Webhooks)"
    )
    parser.add_argument("action", choices=("list", "key"))
    parser.add_argument("--limit", type=int, default=50, help="list: how many (default 50, at most 200)")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    if context.args.action == "key":
        document = context.client.get("/api/notifications/key")
        context.printer.result(document, lambda: str(document["key"]))
        return 0
    document = context.client.get(f"/api/notifications?limit={context.args.limit}")

    def text() -> str:
        rows = [row for notification in document["notifications"] for row in _rows(notification)]
        return table(["WHEN", "EVENT", "APP", "RECEIVER", "STATUS", "TRIED", "NEXT", "ERROR"], rows)

    context.printer.result(document, text)
    return 0


def _rows(notification: Mapping[str, Any]) -> Iterator[list[object]]:
    """A line for each receiver; one without where there is none."""
    about = [local_time(notification["at"]), notification["event"], notification["app"]]
    if notification["error"] or not notification["deliveries"]:
        yield [*about, "-", "unaddressed" if notification["error"] else "nobody", "-", "-", notification["error"]]
    for delivery in notification["deliveries"]:
        next_at = local_time(delivery["nextAt"]) if delivery["error"] else "-"
        yield [*about, delivery["receiver"], delivery["status"], delivery["attempts"], next_at, delivery["error"]]
