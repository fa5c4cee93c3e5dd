"""What the cluster has to say about a pod that neither fails nor becomes ready."""

from __future__ import annotations

from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.resources import Event, Object
from norn.errors import ClusterRefused, RuntimeUnavailable

_OF_EVERY_POD = frozenset({"MissingClusterDNS", "DNSConfigForming"})
"""The kubelet says it again and again, and pods become ready all the same."""


async def last_warning(cluster: Cluster, pod: str) -> str:
    """The newest warning about a pod (`Unhealthy: Readiness probe failed: …`); empty where Norn may not look."""
    about = {"involvedObject.kind": "Pod", "involvedObject.name": pod, "type": "Warning"}
    try:
        events = await cluster.list(Event, fields=about)
    except (RuntimeUnavailable, ClusterRefused):
        return ""
    newest = max((event for event in events if event.get("reason") not in _OF_EVERY_POD), key=_when, default=None)
    return f"{newest.get('reason')}: {' '.join(str(newest.get('message')).split())}" if newest else ""


def _when(event: Object) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
