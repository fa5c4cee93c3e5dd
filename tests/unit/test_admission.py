"""Who has to wait for whom: at most one operation of an app acts, and a rollback waits for nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from norn.domain.operations import Accept, Answer, Operation, OperationKind, OperationStatus, Refuse, admit

DEPLOY, ROLLBACK = OperationKind.DEPLOY, OperationKind.ROLLBACK
RESTART, SNAPSHOT = OperationKind.RESTART, OperationKind.SNAPSHOT


def running(kind: OperationKind, *, committed: bool = False, cancelled: bool = False, seq: int = 1) -> Operation:
    at = datetime(2026, 11, 24, tzinfo=UTC)
    found = Operation(f"o{seq}", seq, "shop", kind, OperationStatus.RUNNING, {}, "ada", "", at, committed=committed)
    return replace(found, cancel={"by": "ada"}) if cancelled else found


@pytest.mark.parametrize("kind", list(OperationKind))
def test_where_nothing_is_at_work_everything_is_accepted(kind: OperationKind) -> None:
    assert admit(kind, []) == Accept()


@pytest.mark.parametrize(
    ("asked", "explicit", "at_work", "expected"),
    [
        (ROLLBACK, False, running(DEPLOY), "stops it"),
        (ROLLBACK, False, running(DEPLOY, committed=True), "stops it"),
        (ROLLBACK, True, running(DEPLOY), "stops it"),
        (ROLLBACK, False, running(RESTART), "stops it"),
        (ROLLBACK, False, running(SNAPSHOT), "stops it"),
        (ROLLBACK, False, running(ROLLBACK), "joins it"),
        (ROLLBACK, False, running(ROLLBACK, committed=True), "joins it"),
        (ROLLBACK, False, running(ROLLBACK, cancelled=True), "stops it"),
        (ROLLBACK, True, running(ROLLBACK), "stops it"),
        (ROLLBACK, True, running(ROLLBACK, committed=True), "stops it"),
        (DEPLOY, False, running(DEPLOY), "busy"),
        (DEPLOY, False, running(DEPLOY, committed=True), "stops it"),
        (DEPLOY, False, running(ROLLBACK), "busy"),
        (DEPLOY, False, running(ROLLBACK, committed=True), "busy"),
        (DEPLOY, False, running(SNAPSHOT), "busy"),
        (RESTART, False, running(DEPLOY), "busy"),
        (SNAPSHOT, False, running(RESTART), "busy"),
    ],
)
def test_the_rule_of_who_waits(asked: OperationKind, explicit: bool, at_work: Operation, expected: str) -> None:
    admission = admit(asked, [at_work], explicit=explicit)
    match expected:
        case "stops it":
            assert admission == Accept((at_work,))
        case "joins it":
            assert admission == Answer(at_work)
        case _:
            assert isinstance(admission, Refuse)
            assert admission.operation == at_work


def test_a_second_person_joins_the_rollback_that_waits_for_a_deploy_to_stop() -> None:
    waiting, stopping = running(ROLLBACK, seq=2), running(DEPLOY, seq=1)
    assert admit(ROLLBACK, [waiting, stopping]) == Answer(waiting)


# ---- what waits for an answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "asks"),
    [
        ({}, True),
        ({"confirmed": {"by": "ada"}}, False),
        ({"cancel": {"by": "ada"}}, False),
        ({"status": OperationStatus.SUCCEEDED}, False),
        ({"status": OperationStatus.FAILED}, False),
        ({"status": OperationStatus.CANCELLED}, False),
    ],
    ids=lambda value: ",".join(value) or "nothing" if isinstance(value, dict) else "",
)
def test_an_operation_asks_only_while_an_answer_would_change_something(since: dict[str, Any], asks: bool) -> None:
    asking = replace(running(OperationKind.RESTORE), asks={"about": "loss"}, **since)
    assert (asking.to_json()["asks"] is not None) == asks
