"""The server's log: one line an event, JSON unless somebody watches, and nothing in it that nobody is to see."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from norn.domain.scrubbing import NOTHING
from norn.operations.known import KnownSecrets

_PLAIN = (str, dict, list, tuple, int, float, type(None))
_known: KnownSecrets | None = None
_server: str | None = None
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_NEW_LINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def hide(known: KnownSecrets) -> None:
    """From now on these values are taken out of every line."""
    global _known
    _known = known


def speak_as(server_id: str | None) -> None:
    """From now on every line says which server it is of: several write to one place. None: no line does."""
    global _server
    _server = server_id


def _of_server(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _server is not None:
        event.setdefault("server", _server)
    return event


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _scrub(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    scrubber = _known.everything if _known is not None else NOTHING
    for name, value in event.items():
        event[name] = scrubber.json(value if isinstance(value, _PLAIN) else str(value))
    return event


def _on_one_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """On a terminal: what somebody else has written neither begins a line of its own nor moves the cursor."""
    for name, value in event.items():
        pattern = _CONTROL_BUT_NEW_LINE if name == "exception" else _CONTROL
        text = pattern.sub(_escaped, value if isinstance(value, str) else str(value))
        event[name] = text.replace("\n", "\n  | ")
    return event


class _Handed(logging.Handler):
    """What libraries log, the HTTP server's own lines among it, in the same form as the rest."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage(), by=record.name, exc_info=record.exc_info)


def configure_logging() -> None:
    """One JSON line an event on standard error, or readable text on a terminal."""
    terminal = sys.stderr.isatty()
    rendering: list[structlog.typing.Processor] = (
        [_on_one_line, structlog.dev.ConsoleRenderer()]
        if terminal
        else [_of_server, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _scrub,
            *rendering,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    logging.basicConfig(handlers=[_Handed()], level=logging.WARNING, force=True)
