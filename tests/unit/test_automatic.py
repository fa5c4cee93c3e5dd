"""When a version that failed its bake is rolled back without anybody being asked."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.test_targets import deployment

from norn.domain.automatic import decide
from norn.domain.targets import NoTarget, Target
from norn.domain.verdict import Finding, Level, Verdict

GOOD = Target(deployment(1, "good"), "the newest known-good deployment", timedelta(days=3))
NOWHERE = NoTarget("no older deployment rolled out", ())
SAFE = Verdict(())
CAUTION = Verdict((Finding("rows_written", Level.CAUTION, "12 rows were written since."),))
UNSAFE = Verdict((Finding("column_dropped", Level.UNSAFE, "books.title was dropped."),))

RULES = [
    # enabled, healthy before, choice, verdict -> goes, because
    (True, True, GOOD, SAFE, True, "known-good"),
    (True, True, GOOD, CAUTION, True, "known-good"),
    (True, None, GOOD, SAFE, True, "known-good"),  # nobody knows: most likely it was
    (False, True, GOOD, SAFE, False, "rollback.auto is off"),
    (True, False, GOOD, SAFE, False, "not the version"),
    (True, True, NOWHERE, None, False, "no older deployment"),
    (True, True, GOOD, UNSAFE, False, "books.title was dropped"),
    (True, False, GOOD, UNSAFE, False, "not the version"),
]


@pytest.mark.parametrize(("enabled", "before", "choice", "verdict", "goes", "because"), RULES)
def test_it_goes_back_unless_it_may_not_or_would_not_help_or_is_not_enough(
    enabled: bool, before: bool | None, choice: Target | NoTarget, verdict: Verdict | None, goes: bool, because: str
) -> None:
    decision = decide("shop", enabled=enabled, healthy_before=before, choice=choice, verdict=verdict)
    assert (decision.target is not None, because in decision.why) == (goes, True), decision.why


def test_the_decision_says_where_to_and_what_the_verdict_is() -> None:
    said = decide("shop", enabled=True, healthy_before=True, choice=GOOD, verdict=CAUTION).to_json()
    assert (said["goes"], said["imageTag"], said["verdict"]["level"]) == (True, "shop:good", "caution")
