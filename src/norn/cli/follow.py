"""Follows an operation: its steps and their output on standard error, until it is done or the time is over."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from norn.cli.context import Context
from norn.cli.transport import Client, quote
from norn.errors import ServerUnreachable, SettingInvalid, StillRunning

_RETRIES = 60
_RETRY_S = 1.0
_SILENCE_S = 30.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Document = dict[str, Any]


class Event(dict[str, Any]):
    """The data of a server-sent event; `type` and `id` beside it."""

    type = ""
    id = ""


def events(
    client: Client, query: str, last_id: str = "", timeout_s: float = _SILENCE_S, *, idle: bool = False
) -> Iterator[Event]:
    """Server-sent events of one connection. The server sends something every few seconds; silence is a lost one.

    With `idle` that is an event without a type, for who has something else to do while nothing happens.
    """
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    answer = client.open("GET", f"/api/events?{query}", headers=headers, timeout_s=timeout_s)
    if answer.status != 200:
        answer.json()
    event, buffer = Event(), b""
    for chunk in answer.chunks():
        *lines, buffer = (buffer + chunk).split(b"\n")
        for raw in lines:
            field, _, value = raw.decode("utf-8", "replace").partition(": ")
            if field == "id":
                event.id = value
            elif field == "event":
                event.type = value
            elif field == "data":
                event.update(json.loads(value))
            elif not raw and (event.type or idle):
                yield event
                event = Event()


def seconds(text: str) -> float:
    """A duration like `90s`, `5m` or `1h` (a bare number is seconds)."""
    number = text.rstrip("mhs")
    unit = text[len(number) :] or "s"
    try:
        return float(number) * _UNITS[unit]
    except (ValueError, KeyError) as error:
        raise SettingInvalid(f"{text!r} is not a duration.", hint="For example 90s, 5m or 1h.") from error


def follow(
    context: Context,
    operation_id: str,
    until: Callable[[Mapping[str, Any]], bool],
    timeout: str | None = None,
    *,
    since: float | None = None,
) -> Document:
    """Show an operation's progress until `until` holds for it or it has ended; the operation as it then is.

    The time counts from `since`, a moment of the monotonic clock, or from now. Goes on through a server that is
    restarted. Raises StillRunning when the time is over.
    """
    begun = time.monotonic() if since is None else since
    deadline = begun + seconds(timeout) if timeout else None
    last_id, lost = "", 0
    while True:
        try:
            silence_s = _SILENCE_S if deadline is None else min(_SILENCE_S, max(deadline - time.monotonic(), 0.01))
            for event in events(context.client, f"operation={quote(operation_id)}", last_id, silence_s, idle=True):
                lost, last_id = 0, event.id or last_id
                _show(context, event)
                if deadline is not None and time.monotonic() > deadline:
                    break
                if _worth_a_look(event):
                    operation = _look(context, operation_id)
                    if _over(operation) or until(operation):
                        return operation
        except ServerUnreachable:
            if deadline is None or time.monotonic() < deadline:
                lost += 1
                if lost == 1:
                    context.printer.progress("the server does not answer; waiting for it", "yellow")
                if lost > _RETRIES:
                    raise
                time.sleep(_RETRY_S)
        if deadline is not None and time.monotonic() > deadline:
            raise StillRunning(
                f"Still running after {timeout}; it goes on.",
                hint=f"`norn watch {operation_id}` follows it, `norn cancel {operation_id}` stops it.",
                operationId=operation_id,
            )


def _look(context: Context, operation_id: str) -> Document:
    found: Document = context.client.get(f"/api/operations/{quote(operation_id)}")
    return found


def _over(operation: Mapping[str, Any]) -> bool:
    return operation["status"] not in ("queued", "running")


def _worth_a_look(event: Event) -> bool:
    return event.type == "operation" and ("committed" in event or "status" in event or "asks" in event)


def _show(context: Context, event: Event) -> None:
    printer = context.printer
    if event.type == "step" and event["status"] == "running":
        printer.progress(f"── {event['step']}", "bold")
    elif event.type == "step" and event["status"] in ("failed", "undone"):
        printer.progress(f"── {event['step']}: {event['status']}", "yellow")
    elif event.type == "output":
        for line in event["text"].splitlines():
            printer.progress(f"   {line}", "dim")
