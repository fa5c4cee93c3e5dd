"""Where a variable of an app's pods comes from, in the order in which Kubernetes lets one win over the other."""

from __future__ import annotations

import base64
from enum import Enum
from typing import Final, Literal

from norn.adapters.kubernetes import manifests
from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.resources import Secret
from norn.adapters.kubernetes.workload import Workload
from norn.domain.infraspec import Infraspec
from norn.errors import ClusterRefused


class _Elsewhere(Enum):
    ELSEWHERE = "elsewhere"


ELSEWHERE: Final = _Elsewhere.ELSEWHERE
"""It is not the app that brings the variable: it has what Norn gives it, if anything."""


async def given_to_pods(
    cluster: Cluster, workload: Workload | None, spec: Infraspec, name: str
) -> str | Literal[_Elsewhere.ELSEWHERE] | None:
    """What the app itself says of a variable; None where it is, or may be, in a place that Norn may not read."""
    if name in spec.env:
        return spec.env[name]
    for container in workload.pod_template["spec"]["containers"] if workload is not None else ():
        for entry in container.get("env") or ():
            if entry["name"] == name:
                value: str | None = entry.get("value")
                return value
    if workload is not None and workload.adopted:
        return None  # its environment is somebody else's to write
    # Pods get all of the Secret, whether `secrets` lists it or not.
    secret, listed = manifests.app_secret(spec.app), name in spec.secrets
    try:
        found = await cluster.get(Secret, secret)
    except ClusterRefused:
        return None if listed or await _may_be_in(cluster, secret, name) else ELSEWHERE
    data = (found or {}).get("data") or {}
    if name not in data:
        return None if listed else ELSEWHERE
    return base64.b64decode(data[name]).decode("utf-8", "replace") or None


async def _may_be_in(cluster: Cluster, secret: str, name: str) -> bool:
    """Whether a Secret that Norn may not read has that key; where it may not change it either, nobody knows."""
    try:
        return await cluster.has(Secret, secret, f"/data/{name}")
    except ClusterRefused:
        return True
