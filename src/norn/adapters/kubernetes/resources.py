"""The kinds of objects that Norn touches, as plain JSON: what Norn does not know in them stays as it is."""

from __future__ import annotations

from typing import Any

from lightkube.generic_resource import GenericNamespacedResource, create_namespaced_resource

Object = dict[str, Any]
"""A Kubernetes object as JSON."""
Kind = type[GenericNamespacedResource]

Deployment = create_namespaced_resource("apps", "v1", "Deployment", "deployments")
ReplicaSet = create_namespaced_resource("apps", "v1", "ReplicaSet", "replicasets")
StatefulSet = create_namespaced_resource("apps", "v1", "StatefulSet", "statefulsets")
DaemonSet = create_namespaced_resource("apps", "v1", "DaemonSet", "daemonsets")
CronJob = create_namespaced_resource("batch", "v1", "CronJob", "cronjobs")
CronJobBefore121 = create_namespaced_resource("batch", "v1beta1", "CronJob", "cronjobs")
"""Of Kubernetes before 1.21."""
Pod = create_namespaced_resource("", "v1", "Pod", "pods")
Service = create_namespaced_resource("", "v1", "Service", "services")
ConfigMap = create_namespaced_resource("", "v1", "ConfigMap", "configmaps")
Secret = create_namespaced_resource("", "v1", "Secret", "secrets")
Job = create_namespaced_resource("batch", "v1", "Job", "jobs")
Event = create_namespaced_resource("", "v1", "Event", "events")
Autoscaler = create_namespaced_resource("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")


def name_of(obj: Object) -> str:
    name: str = obj["metadata"]["name"]
    return name


def annotations_of(obj: Object) -> dict[str, str]:
    found: dict[str, str] = obj["metadata"].get("annotations") or {}
    return found


def owner_of(obj: Object, kind: str) -> str | None:
    """The name of the controller of that kind that made the object."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("kind") == kind and owner.get("controller"):
            name: str = owner["name"]
            return name
    return None


def resource_version(obj: Object) -> int:
    """Grows with each change of any object (KEP-5504 makes official what was always so); 0 where it is no number."""
    version = obj["metadata"].get("resourceVersion", "")
    return int(version) if version.isdecimal() else 0
