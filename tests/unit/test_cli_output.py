"""What the command line prints: nothing that somebody else has written moves the cursor or begins a row."""

from __future__ import annotations

import json

import pytest

from norn.cli.output import Printer, harmless, table
from norn.errors import NornError

HOSTILE = "GET /\x1b]0;gone\x07\n2026-11-25  root  rollback.request\x9b2J"


def test_a_cell_begins_no_row_and_moves_no_cursor() -> None:
    shown = table(["WHAT", "WHY"], [[HOSTILE, "x"]])
    assert len(shown.splitlines()) == 2
    assert shown.isprintable() or not set(shown) & set("\x1b\x07\x9b")


def test_lines_and_tabs_stay() -> None:
    assert harmless("one\n\ttwo é") == "one\n\ttwo é"


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    Printer("json", quiet=False).result({"subject": HOSTILE}, lambda: "")
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"subject": HOSTILE}
    assert "\x9b" not in printed


def test_an_error_moves_no_cursor_either(capsys: pytest.CaptureFixture[str]) -> None:
    Printer("text", quiet=False).explain(NornError(HOSTILE, hint=HOSTILE))
    assert not set(capsys.readouterr().err) & set("\x1b\x07\x9b")
