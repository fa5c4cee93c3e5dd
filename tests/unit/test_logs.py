"""The server's log: one line an event, whatever others have written, and no secret in any."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from norn.bootstrap import logs
from norn.domain.scrubbing import MARK
from norn.operations.known import KnownSecrets

INJECTED = 'shop"}\r\n{"event": "signed in"}\x1b[2J\x85\u2028\x00end'


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(params=[False, True], ids=["JSON", "terminal"])
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """Standard error; a terminal or not."""
    stream = Stream(terminal=request.param)
    monkeypatch.setattr(sys, "stderr", stream)
    before = logging.getLogger().handlers[:], logging.getLogger().level
    logs.configure_logging()
    logs.hide(KnownSecrets(["correct-horse"]))
    yield stream
    logs.hide(KnownSecrets())
    logging.getLogger().handlers[:], level = before
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def test_what_somebody_has_written_begins_no_line_and_moves_no_cursor(stream: Stream) -> None:
    structlog.get_logger().warning("refused", app=INJECTED, facts={"reason": [INJECTED]})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert len(text.splitlines()) == 1
    for control in ("\r", "\x1b[2J", "\x85", "\u2028", "\x00"):
        assert control not in text


def test_secrets_are_in_no_line_wherever_they_stand(stream: Stream) -> None:
    log = structlog.get_logger()
    try:
        raise ValueError("it wanted correct-horse")
    except ValueError:
        log.exception("defect", facts={"deep": ["correct-horse"]}, error=OSError("correct-horse"))
    log.info("clone", url="https://ada:geheim@example.com/x.git")
    text = stream.getvalue()
    assert "correct-horse" not in text
    assert "geheim" not in text
    assert MARK in text or json.dumps(MARK)[1:-1] in text


def test_what_an_exception_says_begins_no_line_either(stream: Stream) -> None:
    try:
        raise ValueError(INJECTED)
    except ValueError:
        structlog.get_logger().exception("defect")
    first, *others = stream.getvalue().splitlines()
    assert "defect" in first
    assert [line for line in others[1:] if not line.startswith("  | ")] == []  # behind "Traceback …"


def test_what_libraries_log_goes_the_same_way(stream: Stream) -> None:
    logging.getLogger("asyncio").error("lost: %s", f"correct-horse{INJECTED}")
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert "lost: " in text
    assert "correct-horse" not in text


def test_lines_are_json_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(terminal=False)
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure_logging()
    structlog.get_logger().info("started", app=INJECTED)
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["app"]) == ("started", "info", INJECTED)


def test_each_line_for_programs_says_of_which_server_it_is(stream: Stream) -> None:
    logs.speak_as("server-1")
    try:
        structlog.get_logger().info("request")
        structlog.get_logger().info("claimed", server="server-2")
    finally:
        logs.speak_as(None)
    lines = stream.getvalue().splitlines()
    if stream.isatty():
        assert "server-1" not in lines[0]
    else:
        assert [json.loads(line)["server"] for line in lines] == ["server-1", "server-2"]
