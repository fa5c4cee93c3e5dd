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


def test_a_refused_rollback_says_why_that_target_and_what_was_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    target = {
        "imageTag": "shop:1",
        "why": "the newest known-good deployment before the live shop:3",
        "skipped": [{"imageTag": "shop:2", "why": "it was rolled back"}],
    }
    verdict = {"level": "unsafe", "findings": [{"level": "unsafe", "message": "The column city is gone.", "ways": []}]}
    error = NornError("Going back to shop:1 is not enough.", target=target, verdict=verdict)
    Printer("text", quiet=False).explain(error)
    assert capsys.readouterr().err.splitlines() == [
        "error: Going back to shop:1 is not enough.",
        "  why: the newest known-good deployment before the live shop:3",
        "  passed over shop:2: it was rolled back",
        "  unsafe: The column city is gone.",
    ]
