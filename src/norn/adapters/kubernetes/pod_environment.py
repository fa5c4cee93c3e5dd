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
    """What the app itself says of a variable; None where it is in a place that Norn may not read."""
    if name in spec.env:
        return spec.env[name]
    for container in workload.pod_template["spec"]["containers"] if workload is not None else ():
        for entry in container.get("env") or ():
            if entry["name"] == name:
                value: str | None = entry.get("value")
                return value
    if workload is not None and workload.adopted:
        return None  # its environment is somebody else's to write
    if name not in spec.secrets:
        return ELSEWHERE
    try:
        found = await cluster.get(Secret, manifests.app_secret(spec.app))
    except ClusterRefused:
        return None
    own = ((found or {}).get("data") or {}).get(name)
    return base64.b64decode(own).decode("utf-8", "replace") if own else None
