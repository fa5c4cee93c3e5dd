"""Pods asked for their health through the API server: when their word counts, and when the kubelet's."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.health import HttpProbe, ask_pods, http_probe_of
from norn.adapters.kubernetes.workload import Workload
from norn.domain.ports import Health


def workload(**container: Any) -> Workload:
    template = {"spec": {"containers": [{"name": "shop", "image": "shop:1", **container}]}}
    return Workload({"metadata": {"name": "shop", "annotations": {}}, "spec": {"replicas": 1, "template": template}})


def asks(path: str = "/health", **more: Any) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": 8080} | more}


POD = {
    "metadata": {"name": "shop-1", "ownerReferences": []},
    "spec": {},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}


class Answering:
    """A cluster whose pods answer so."""

    def __init__(self, *answers: int | str | None) -> None:
        self._answers = iter(answers)

    async def ask_pod(self, *_: object) -> int | str | None:
        return next(self._answers)


def healths(*answers: int | str | None) -> list[Health]:
    """How it is, each time that it is asked."""
    cluster, reached = cast("Cluster", Answering(*answers)), set[str]()
    of = workload(readinessProbe=asks())
    return [asyncio.run(ask_pods(cluster, of, [POD], reached)) for _ in answers]


PROBES = [
    ({"readinessProbe": asks()}, HttpProbe("http", 8080, "/health", 2.0)),
    ({"livenessProbe": asks("/alive", scheme="HTTPS")}, HttpProbe("https", 8080, "/alive", 2.0)),
    ({"readinessProbe": asks() | {"timeoutSeconds": 10}}, HttpProbe("http", 8080, "/health", 10.0)),
    ({"readinessProbe": {"tcpSocket": {"port": 8080}}}, None),
    ({"readinessProbe": asks(httpHeaders=[{"name": "Host", "value": "shop"}])}, None),
    ({"readinessProbe": asks("/../../../../namespaces")}, None),
    ({"readinessProbe": asks(port="web"), "ports": [{"name": "web", "containerPort": 9}]},
     HttpProbe("http", 9, "/health", 2.0)),
    ({"readinessProbe": asks(port="web")}, None),
    ({}, None),
]  # fmt: skip


@pytest.mark.parametrize(("container", "probe"), PROBES)
def test_it_is_asked_just_as_the_kubelet_asks_it_or_not_at_all(
    container: dict[str, Any], probe: HttpProbe | None
) -> None:
    assert http_probe_of(workload(**container)) == probe


def test_a_pod_that_answers_with_an_error_is_ill() -> None:
    (found,) = healths(503)
    assert (found.healthy, found.message) == (False, "shop-1: health check /health: status 503")


def test_a_pod_that_nobody_can_reach_is_as_well_as_the_kubelet_says() -> None:
    assert [found.healthy for found in healths("error trying to reach service", "no answer within 2 s")] == [True, True]


def test_silence_after_an_answer_is_illness() -> None:
    assert [found.healthy for found in healths(200, "no answer within 2 s")] == [True, False]


def test_where_norn_may_not_ask_the_kubelets_word_counts() -> None:
    assert [found.healthy for found in healths(None, None)] == [True, True]
