"""Several apps at once: threads, exit statuses, and the verdict on all of them."""

from __future__ import annotations

import argparse
import threading
from typing import Any

import pytest

from norn.cli.context import Context
from norn.cli.group_plan import OUTCOMES, Planned, exit_of, verdict_on_all
from norn.cli.side_by_side import AT_MOST, contexts, side_by_side
from norn.errors import Busy, NothingToRollBackTo


def planned(app: str, level: str, *, unchanged: bool = False, optional: bool = False) -> Planned:
    findings = [{"code": f"of_{app}", "level": level, "message": "…", "ways": []}]
    plan: dict[str, Any] = {"unchanged": unchanged, "verdict": {"level": level, "findings": findings}}
    return Planned(app, plan, None, optional=optional)


def test_what_comes_out_has_the_order_of_what_went_in() -> None:
    assert side_by_side(lambda number: number * 2, range(100)) == [number * 2 for number in range(100)]


def test_as_many_as_may_be_are_at_work_at_once_and_no_more() -> None:
    together = threading.Barrier(AT_MOST)
    most, at_work, lock = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal most, at_work
        with lock:
            at_work += 1
            most = max(most, at_work)
        together.wait(30)
        with lock:
            at_work -= 1

    side_by_side(work, range(AT_MOST * 3))
    assert most == AT_MOST


def test_a_defect_in_one_stops_none_of_the_others_and_is_not_swallowed() -> None:
    done = []

    def work(number: int) -> None:
        if number == 0:
            raise KeyError("a defect")
        done.append(number)

    with pytest.raises(KeyError, match="a defect"):
        side_by_side(work, range(40))
    assert sorted(done) == list(range(1, 40))


def test_lines_of_progress_begin_with_the_apps_name(capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(output="text", quiet=False, url="http://127.0.0.1:9", token="t", ca=None)
    for context in contexts(Context(args), ["shop", "payments"]).values():
        context.printer.progress("── switch")
    assert capsys.readouterr().err == "shop      ── switch\npayments  ── switch\n"


@pytest.mark.parametrize(
    ("statuses", "exit_status"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 3], 3),
        ([3, 2], 2),
        ([2, 5], 5),
        ([5, 4], 4),
        ([4, 8], 8),
        ([8, 6], 6),
        ([6, 7], 7),
        ([7, 1, 0], 1),
    ],
)
def test_the_exit_status_is_the_most_serious_one(statuses: list[int], exit_status: int) -> None:
    assert exit_of(statuses) == exit_status


def test_every_exit_status_but_0_has_its_place() -> None:
    assert sorted(OUTCOMES) == list(range(1, 9))


def test_the_verdict_is_the_worst_and_its_findings_come_first() -> None:
    verdict = verdict_on_all([planned("a", "safe"), planned("b", "unsafe"), planned("c", "caution")])
    assert verdict["level"] == "unsafe"
    assert [finding["app"] for finding in verdict["findings"]] == ["b", "c", "a"]


def test_what_stays_as_it_is_has_no_part_in_the_verdict() -> None:
    assert verdict_on_all([planned("a", "unsafe", unchanged=True)]) == {"level": None, "findings": []}


def test_who_has_nothing_to_go_back_to_is_a_failure_only_where_asked_for_by_name() -> None:
    problem = NothingToRollBackTo("There is nothing.")
    assert [Planned("a", None, problem, optional=optional).exit for optional in (False, True)] == [3, 0]


def test_who_is_busy_is_a_failure_among_all_of_them_too() -> None:
    busy = Planned("a", None, Busy("It is."), optional=True)
    assert (busy.exit, busy.outcome) == (5, "busy")
