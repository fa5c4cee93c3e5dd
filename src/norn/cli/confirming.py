"""Follows an operation that asks: shows what, passes the answer on, and goes on following."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from norn.cli.context import Context
from norn.cli.deployments import outcome
from norn.cli.follow import follow
from norn.cli.transport import quote
from norn.errors import EXIT_REFUSED, Invalid


def make_sure_somebody_answers(context: Context) -> None:
    """Raises Invalid where the operation would wait for an answer that nobody here can give."""
    if not context.args.yes and not context.printer.interactive:
        raise Invalid(
            "This asks before it goes on, and there is no terminal to ask at.",
            hint="--yes says yes to what would be lost; `norn confirm ID` says so later, by HTTP too.",
        )


def follow_and_answer(
    context: Context, operation_id: str, until: Callable[[Mapping[str, Any]], bool]
) -> tuple[dict[str, Any], bool]:
    """The operation as it is when `until` holds or it has ended, and whether all that it asked was answered by yes."""
    url = f"/api/operations/{quote(operation_id)}"
    while True:
        operation = follow(
            context, operation_id, lambda found: bool(found.get("asks")) or until(found), context.args.timeout
        )
        asks = operation.get("asks")
        if not asks:
            return operation, True
        if not _confirmed(asks):
            context.client.request("POST", f"{url}/cancel", {"reason": "not confirmed"})
            return follow(context, operation_id, lambda _: False, context.args.timeout), False
        context.client.request("POST", f"{url}/confirm")


def see_rollback_with_data(context: Context, operation_id: str, *, unchanged: bool = False) -> int:
    """Follow one through its question to the moment from which it stays; the exit status."""
    operation, agreed = follow_and_answer(context, operation_id, lambda found: bool(found["committed"]))
    deployment = context.client.get(f"/api/deployments/{quote(operation_id)}")
    status = outcome(context, deployment | {"unchanged": unchanged, "result": operation.get("result")})
    return status if agreed else EXIT_REFUSED


def _confirmed(asks: Mapping[str, Any]) -> bool:
    if asks["about"] == "loss":
        lost = asks["message"] or "nothing that was written since is lost"
        down = f"The app is down for about {asks['expectedDowntimeS']:g} s.\n" if "expectedDowntimeS" in asks else ""
        print(f"What would be lost:\n{lost}\n{down}Swap the databases? [y/N] ", end="", file=sys.stderr, flush=True)
    else:
        print(f"{asks['message']} Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
