"""A model of the operations: random requests to two to four servers that fail in every way, and what must be true.

Each run is a `Scenario`, found by hypothesis from a seed. One that breaks an invariant is made small, and printed with
the command that replays it:

    NORN_MODEL_SCENARIO='{"servers": 2, …}' .venv/bin/python -m pytest tests/faults/test_model.py -k replay

`make test` makes 200 runs, `make faults` goes on from where it was stopped, up to 10,000 on the same code.
NORN_MODEL_MINUTES limits one call of it, NORN_MODEL_RUNS says how many there are to be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from tests.fixtures.model.laboratory import Laboratory
from tests.fixtures.model.progress import Progress
from tests.fixtures.model.scenarios import Scenario, scenarios
from tests.fixtures.postgres import serving

pytestmark = [
    pytest.mark.xdist_group("model"),  # one server for all of it
    # A coroutine of a process that was killed is thrown away where it stood, and psycopg's do not like that.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

RUNS_PER_SEED = 50
SEEDS = 4
"""Of `make test`: 200 runs."""
RUNS = int(os.environ.get("NORN_MODEL_RUNS", "10000"))
MINUTES = float(os.environ.get("NORN_MODEL_MINUTES", "inf"))
REPLAYS = 20


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    for server in serving(18):
        with Laboratory(server) as laboratory:
            yield laboratory


def make_runs(laboratory: Laboratory, number: int) -> None:
    """The runs of one seed."""

    @seed(number)
    @settings(
        max_examples=RUNS_PER_SEED,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(scenarios())
    def run(scenario: Scenario) -> None:
        laboratory.run(scenario)

    run()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(SEEDS))
def test_whatever_fails_operations_come_to_the_end_that_is_said(laboratory: Laboratory, number: int) -> None:
    make_runs(laboratory, number)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_far_more_runs(laboratory: Laboratory, pytestconfig: pytest.Config) -> None:
    """One seed after the other; those that have passed on this code are not tried again."""
    progress, until = Progress(pytestconfig), time.monotonic() + MINUTES * 60
    while progress.passed < RUNS and time.monotonic() < until:
        make_runs(laboratory, SEEDS + progress.passed // RUNS_PER_SEED)
        progress.add(RUNS_PER_SEED)


@pytest.mark.skipif("NORN_MODEL_SCENARIO" not in os.environ, reason="NORN_MODEL_SCENARIO is not set")
def test_replay(laboratory: Laboratory) -> None:
    """What stands in NORN_MODEL_SCENARIO, several times: the database and the processor have their own pace."""
    scenario = Scenario.from_json(os.environ["NORN_MODEL_SCENARIO"])
    for _ in range(REPLAYS):
        laboratory.run(scenario)
