"""How the pods are doing: by the kubelets' word, and by their own, asked through the API server's pod proxy.

Pods cannot be reached from everywhere, and a readiness probe tells of trouble late, or, where there is none, never.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.pods import health_of, pod_state
from norn.adapters.kubernetes.resources import Object, name_of
from norn.adapters.kubernetes.workload import Workload, main_container
from norn.domain.ports import Health

TIMEOUT_S = 2.0
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """The health check of an app, as its pod template has it (`httpGet`)."""

    scheme: str
    port: int
    path: str
    timeout_s: float


def http_probe_of(workload: Workload) -> HttpProbe | None:
    """What the kubelet asks of the app's own container by HTTP; None where it asks otherwise, or nothing."""
    key = next((key for key in workload.managed if key.startswith("containers/")), None) or main_container(workload)
    named = (key or "").partition("/")[2]
    pod = workload.pod_template["spec"]
    container: Object = next((found for found in pod.get("containers") or () if found["name"] == named), {})
    for probe in _PROBES:
        asks: Object = (container.get(probe) or {}).get("httpGet") or {}
        port = _port(container, asks.get("port")) if asks else None
        path = str(asks.get("path") or "/")
        if port is None or asks.get("httpHeaders") or {".", ".."} & set(path.partition("?")[0].split("/")):
            continue  # what cannot be asked just as the kubelet asks it, and nothing else, is left to the kubelet
        waits_s = max(TIMEOUT_S, float((container.get(probe) or {}).get("timeoutSeconds") or 0))
        return HttpProbe(str(asks.get("scheme") or "HTTP").lower(), port, path, waits_s)
    return None


def _port(container: Mapping[str, Any], port: object) -> int | None:
    """A container's port by number or by name."""
    if isinstance(port, int):
        return port
    named = (found for found in container.get("ports") or () if found.get("name") == port)
    return next((int(found["containerPort"]) for found in named), None)


async def ask_pods(cluster: Cluster, workload: Workload, pods: Sequence[Object], reached: set[str]) -> Health:
    """Each pod that the kubelet calls ready is asked itself, in parallel. Raises RuntimeUnavailable.

    Args:
        reached: apps of which a pod has answered before; one that does is added. There are clusters whose API server
            cannot reach pods: until one has answered, silence says nothing of the app, and the kubelet's word counts.
    """
    probe = http_probe_of(workload)
    ready = [name_of(pod) for pod in pods if (state := pod_state(pod)).ready and not state.going]
    if probe is None or not ready:
        return health_of(workload, pods)
    answers = await asyncio.gather(*(_ask(cluster, name, probe) for name in ready))
    if any(isinstance(answer, int) for answer, _ in answers):
        reached.add(workload.name)
    if workload.name not in reached:
        return health_of(workload, pods)
    slowest_ms = max(took_ms for _, took_ms in answers)
    reasons = {name: _why_ill(probe, answer) for name, (answer, _) in zip(ready, answers, strict=True)}
    return health_of(workload, pods, reasons, slowest_ms)


async def _ask(cluster: Cluster, pod: str, probe: HttpProbe) -> tuple[int | str | None, float]:
    """As `Cluster.ask_pod`, and the milliseconds that it took."""
    began = time.perf_counter()
    answer = await cluster.ask_pod(pod, probe.scheme, probe.port, probe.path, probe.timeout_s)
    return answer, (time.perf_counter() - began) * 1000


def _why_ill(probe: HttpProbe, answer: int | str | None) -> str:
    """Empty where the pod is well (2xx or 3xx), or may not be asked."""
    if answer is None or (isinstance(answer, int) and 200 <= answer < 400):
        return ""
    return f"health check {probe.path}: {f'status {answer}' if isinstance(answer, int) else answer}"
