"""What an app's pods are told when they start, and what of their template has to fit the image."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.manifests import app_secret, own_secret
from norn.adapters.kubernetes.resources import ConfigMap, Secret
from norn.adapters.kubernetes.workload import Workload
from norn.domain.configuration import NOTED, UNREAD
from norn.domain.ports import Template
from norn.errors import ClusterRefused

Object = dict[str, Any]
_KINDS = ("containers", "initContainers")
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")
_PROBE_TARGETS = ("httpGet", "tcpSocket", "exec", "grpc")
_IN_PARTS = (*_KINDS, "volumes")
_ELSEWHERE = ("env", "envFrom", "image", "imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy")


def shape_of(recorded: Mapping[str, Any]) -> dict[str, str]:
    """The containers that run the app's images, their ports, what their probes ask, and their commands.

    Sidecars that somebody else has put beside them are none of the image's business.

    Args:
        recorded: what the runtime has noted of a version.
    """
    found = {}
    pod = (recorded.get("podTemplate") or {}).get("spec") or {}
    for kind in _KINDS:
        for container in pod.get(kind) or ():
            name = container["name"]
            if f"{kind}/{name}" not in recorded["containers"]:
                continue
            found[f"{'container' if kind == 'containers' else 'init container'} {name}"] = "there"
            ports = sorted(int(port["containerPort"]) for port in container.get("ports") or ())
            found |= {f"port of {name}": json.dumps(ports)} if ports else {}
            for part in ("command", "args"):
                if container.get(part):
                    found[f"{part} of {name}"] = json.dumps(container[part])
            for probe in _PROBES:
                asks = {key: value for key, value in (container.get(probe) or {}).items() if key in _PROBE_TARGETS}
                if asks:
                    found[f"{probe} of {name}"] = json.dumps(asks, sort_keys=True)
    return found


def declared_shape(template: Template | None) -> dict[str, str]:
    """The same as an infraspec declares it, to be compared with its like."""
    if template is None:
        return {}
    declared = {"role": template.role, "port": template.port, "healthcheck": template.healthcheck}
    return {name: str(value) for name, value in declared.items() if value is not None}


async def texts_of(cluster: Cluster, workload: Workload) -> dict[str, str]:
    """Variables, the ConfigMaps and Secrets that they come from where Norn may read them, and the rest of the template.

    Of the Secret with Norn's DATABASE_URL only that it is there. What may not be read is named as such: what
    `norn secrets set` fills as something that Norn has noted elsewhere.
    """
    found: dict[str, str] = {}
    maps: set[str] = set()
    secrets: set[str] = set()
    pod = workload.pod_template["spec"]
    for kind in _KINDS:
        for container in pod.get(kind) or ():
            for entry in container.get("env") or ():
                name = f"env {entry['name']}"
                name = name if name not in found else f"env {container['name']}/{entry['name']}"
                found[name] = json.dumps(entry.get("value", entry.get("valueFrom")), sort_keys=True)
                source = entry.get("valueFrom") or {}
                maps |= {source["configMapKeyRef"]["name"]} if "configMapKeyRef" in source else set()
                secrets |= {source["secretKeyRef"]["name"]} if "secretKeyRef" in source else set()
            if container.get("envFrom"):
                found[f"variables of {container['name']}"] = json.dumps(container["envFrom"], sort_keys=True)
            for entry in container.get("envFrom") or ():
                maps |= {entry["configMapRef"]["name"]} if "configMapRef" in entry else set()
                secrets |= {entry["secretRef"]["name"]} if "secretRef" in entry else set()
            rest = {key: value for key, value in container.items() if key not in _ELSEWHERE}
            found[f"template of {container['name']}"] = json.dumps(rest, sort_keys=True)
    for volume in pod.get("volumes") or ():
        maps |= {volume["configMap"]["name"]} if "configMap" in volume else set()
        secrets |= {volume["secret"]["secretName"]} if "secret" in volume else set()
    found["pod"] = json.dumps({key: value for key, value in pod.items() if key not in _IN_PARTS}, sort_keys=True)
    found["volumes"] = json.dumps(pod.get("volumes") or [], sort_keys=True)
    noted = app_secret(workload.name)
    read = _read(cluster, sorted(maps), sorted(secrets - {own_secret(workload.name)}), noted)
    return found | {name: value async for name, value in read}


async def _read(cluster: Cluster, maps: list[str], secrets: list[str], noted: str) -> AsyncIterator[tuple[str, str]]:
    for kind, label, names in ((ConfigMap, "config map", maps), (Secret, "secret", secrets)):
        for name in names:
            try:
                obj = await cluster.get(kind, name)
            except ClusterRefused:  # reading it is optional (deploy/kubernetes/rbac.yaml)
                yield f"{NOTED if kind is Secret and name == noted else UNREAD}{label} {name}", ""
                continue
            data = {**((obj or {}).get("data") or {}), **((obj or {}).get("binaryData") or {})}
            for key, value in data.items():
                yield f"{label} {name}/{key}", _decoded(value) if kind is Secret else value


def _decoded(value: str) -> str:
    return base64.b64decode(value).decode("utf-8", "replace")
