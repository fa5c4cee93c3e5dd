"""Numbers: what is documented exists and the other way round, labels are bounded, a database that is away is said."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from norn.domain.operations import Operation, OperationKind, OperationStatus
from norn.domain.standing import SnapshotAge, Standing, trigger_of
from norn.errors import DatabaseUnavailable
from norn.http import metrics as http_metrics
from norn.http.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
STANDING = Standing(2, 1, 3, 1, 4, 5, 6, 7, [SnapshotAge("shop", 60.0, 3_600.0), SnapshotAge("pay", 5.0, None)])


def operation(by: str = "ada", **params: Any) -> Operation:
    return Operation(
        id="1", seq=1, app="shop", kind=OperationKind.ROLLBACK, status=OperationStatus.RUNNING, params=params,
        requested_by=by, reason="", requested_at=datetime.now(UTC), started_at=None, finished_at=None, error=None,
        result=None, cancel=None, accepted=False, committed=False, asks=None, confirmed=None, claims=1, steps=(),
    )  # fmt: skip


class Database:
    def __init__(self) -> None:
        self.asked = 0
        self.away = False

    async def read(self) -> Standing:
        self.asked += 1
        if self.away:
            raise DatabaseUnavailable("away")
        return STANDING


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def metrics(database: Database) -> Metrics:
    metrics = Metrics()
    metrics.read_standing = database.read
    return metrics


async def values(metrics: Metrics) -> dict[str, float]:
    """Each sample by its name with its labels."""
    text = (await metrics.text())[0].decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {f"{one.name}{sorted(one.labels.values())}": one.value for one in samples}


async def names(metrics: Metrics) -> set[str]:
    found = set()
    for family in metrics.registry.collect():
        found.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return {name for name in found if name.startswith("norn_")}


async def test_every_metric_is_documented_and_every_documented_one_exists(metrics: Metrics) -> None:
    await metrics.text()
    documented = set(re.findall(r"^\| `(norn_[a-z_]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert await names(metrics) == documented


async def test_labels_are_documented(metrics: Metrics) -> None:
    metrics.request("GET", "/api/apps", 200, 0.1)
    metrics.operation(operation(), OperationStatus.SUCCEEDED, 1.0)
    metrics.recovered(operation(), 1.0)
    await metrics.text()
    rows = dict(re.findall(r"^\| `(norn_[a-z_]+)` \|([^|]*)\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name.startswith("norn_") and not sample.name.endswith("_created"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                assert set(sample.labels) - {"le"} == set(re.findall(r"`(\w+)`", rows[name])), name


@pytest.mark.parametrize(
    ("by", "params", "trigger"),
    [
        ("ada", {}, "person"),
        ("norn", {"automatic": True}, "automatic"),
        ("norn", {}, "automatic"),
        ("ada", {"direct": True}, "direct"),
    ],
)
async def test_operations_are_counted_by_who_began_them_and_how_they_ended(
    metrics: Metrics, by: str, params: dict[str, Any], trigger: str
) -> None:
    metrics.operation(operation(by, **params), OperationStatus.FAILED, 1.0)
    assert trigger_of(operation(by, **params)) == trigger
    assert (await values(metrics))[f"norn_operations_total{sorted(['rollback', trigger, 'failed'])}"] == 1


async def test_a_method_that_somebody_makes_up_makes_no_new_label(metrics: Metrics) -> None:
    for number in range(100):
        metrics.request(f"X{number}", "other", 405, 0.0)
    assert (await values(metrics))[f"norn_http_requests_total{sorted(['other', 'other', '405'])}"] == 100


async def test_what_the_database_says_is_there(metrics: Metrics) -> None:
    found = await values(metrics)
    assert (found["norn_leases['held']"], found["norn_leases['stale']"]) == (3, 1)
    assert (found["norn_servers['alive']"], found["norn_servers['dead']"]) == (2, 1)
    assert (found["norn_snapshot_age_seconds['shop']"], found["norn_snapshot_age_seconds['pay']"]) == (60, 5)
    assert "norn_snapshot_verified_age_seconds['pay']" not in found
    assert found["norn_database_up[]"] == 1


async def test_a_database_that_is_away_is_said_and_all_else_is_there(metrics: Metrics, database: Database) -> None:
    database.away = True
    metrics.request("GET", "/api/apps", 200, 0.1)
    found = await values(metrics)
    assert found["norn_database_up[]"] == 0
    assert "norn_leases['held']" not in found
    assert found[f"norn_http_requests_total{sorted(['GET', '/api/apps', '200'])}"] == 1


async def test_many_who_scrape_ask_the_database_once(
    metrics: Metrics, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_metrics, "time", SimpleNamespace(monotonic=lambda: 1_000.0))  # no time passes
    for _ in range(20):
        await metrics.text()
    assert database.asked == 1
