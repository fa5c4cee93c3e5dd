"""The objects that Norn makes for an app, from its template: no I/O."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from norn.adapters.kubernetes.client import MANAGER
from norn.adapters.kubernetes.patches import accepted, fenced
from norn.adapters.kubernetes.resources import Object, annotations_of
from norn.adapters.kubernetes.workload import BEGUN, MANAGED_BY, Note, reference_of
from norn.domain.ports import Release, Template, Turn

APP_LABEL = "app.kubernetes.io/name"
JOB_LABEL = "norn.dev/operation"
JOB_GRACE_S = 10
"""A migration that is cancelled gets this long to end by itself."""
_PROBE_S = 2
_LIVENESS_S = 10
_LIVENESS_FAILURES = 12


def labels(app: str) -> dict[str, str]:
    return {APP_LABEL: app, MANAGED_BY: "norn"}


def is_own(obj: Object, app: str) -> bool:
    """Whether Norn has made an object, and for this app."""
    return labels(app).items() <= (obj["metadata"].get("labels") or {}).items()


def deployment(release: Release, turn: Turn | None = None) -> Object:
    """The fields of a Kubernetes Deployment that Norn owns, for server-side apply.

    Without `replicas`: a server-side apply that leaves out what it once applied resets it, and one that keeps it
    takes it from the autoscaler.
    """
    app, template = release.app, release.template
    key = f"containers/{app}"
    reference = reference_of(release.image)
    note = Note(release.deployment_id, release.image.tag, release.image.digest, {key: reference})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": app,
            "labels": labels(app),
            "annotations": accepted(note, f"norn deploy of {release.image.tag}", turn),
        },
        "spec": {
            "selector": {"matchLabels": {APP_LABEL: app}},
            "template": {
                "metadata": {"labels": labels(app)},
                "spec": {
                    "containers": [
                        {"name": app, "image": reference} | _process(app, template) | _ports(template)
                        | probes(template)
                    ]
                },
            },
        },
    }  # fmt: skip


def as_seen(wanted: Object, before: Object | None) -> Object:
    """To be applied only to the object as it was looked at; where there was none, without replicas.

    One that was begun meanwhile says so, and so conflicts. The uid, since `resourceVersion` alone makes a new one where
    the one that was looked at is gone.
    """
    metadata, spec = wanted["metadata"], wanted["spec"]
    unbegun = {"annotations": metadata["annotations"] | {BEGUN: "no"}}
    if before is None:
        return wanted | {"metadata": metadata | unbegun, "spec": spec | {"replicas": 0}}
    seen = {name: before["metadata"][name] for name in ("uid", "resourceVersion")}
    if annotations_of(before).get(BEGUN) == "no":
        seen |= unbegun
    if _applied_replicas(before):
        spec = spec | {"replicas": before["spec"]["replicas"]}
    return wanted | {"metadata": metadata | seen, "spec": spec}


def _applied_replicas(obj: Object) -> bool:
    """Whether they are as they were applied: what is applied once and then left out falls back to 1."""
    applied = [entry for entry in obj["metadata"].get("managedFields") or ()
               if (entry.get("manager"), entry.get("operation")) == (MANAGER, "Apply")]  # fmt: skip
    return any("f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {}) for entry in applied)


def _process(app: str, template: Template) -> Object:
    """What web processes, workers and jobs of an app have in common."""
    port = {"PORT": str(template.port)} if template.role == "webserver" and template.port is not None else {}
    env = port | dict(template.env)
    return {
        "env": [{"name": name, "value": value} for name, value in env.items()],
        # Of two that have the same name the later one counts: an app's own DATABASE_URL comes before Norn's.
        "envFrom": [
            {"secretRef": {"name": own_secret(app), "optional": True}},
            {"secretRef": {"name": app_secret(app), "optional": True}},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "seccompProfile": {"type": "RuntimeDefault"}},
    }


def _ports(template: Template) -> Object:
    if template.role != "webserver" or template.port is None:
        return {}
    return {"ports": [{"name": "http", "containerPort": template.port, "protocol": "TCP"}]}


def probes(template: Template) -> Object:
    """Ready within two seconds of the first good answer; restarted only after two minutes without any.

    The start-up probe keeps the liveness probe off a slow start for as long as a rollout may take.
    """
    if template.role != "webserver" or template.port is None:
        return {}
    ask: Object = (
        {"httpGet": {"path": template.healthcheck, "port": template.port}}
        if template.healthcheck
        else {"tcpSocket": {"port": template.port}}
    )
    starts = max(int(template.rollout_timeout_s), 30)
    return {
        "startupProbe": ask | {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": starts},
        "readinessProbe": ask | {"periodSeconds": _PROBE_S, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": ask
        | {"periodSeconds": _LIVENESS_S, "timeoutSeconds": 5, "failureThreshold": _LIVENESS_FAILURES},
    }


def service(app: str, host: str, port: int, selector: Mapping[str, str]) -> Object:
    """What makes an app reachable under `hosts.internal` within the cluster, on the app's own port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": host, "labels": labels(app)},
        "spec": {
            "selector": dict(selector),
            "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def app_secret(app: str) -> str:
    """The Secret that `norn secrets set` fills."""
    return f"{app}-secrets"


def own_secret(app: str) -> str:
    """The Secret that Norn fills: DATABASE_URL."""
    return f"{app}-norn"


def secret(name: str, app: str, values: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": labels(app)},
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def job_name(name: str, operation_id: str) -> str:
    """One of each kind for an operation: whoever goes on with the operation finds it."""
    return f"norn-{name}-{operation_id}"


def job(
    release: Release,
    turn: Turn,
    name: str,
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    pod: Object | None = None,
    container: Object | None = None,
) -> Object:
    """A command in an image, once: it is not started again by itself, and nobody waits for a second try.

    `pod` is the `spec` of the app's present pod template, where there is one: its service account and pull secrets are
    the job's, too. `container` is the app's own in it, where its environment is not Norn's to write (adopted).
    """
    image = release.image
    container = container or _process(release.app, release.template)
    given = [entry for entry in container.get("env") or () if entry["name"] not in env]
    kept = {key: value for key, value in (pod or {}).items() if key in _POD_FIELDS}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(name, release.deployment_id),
            "labels": {MANAGED_BY: "norn", JOB_LABEL: release.deployment_id},
            "annotations": fenced(turn),
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 0,  # until it is begun
            "template": {
                "metadata": {"labels": {MANAGED_BY: "norn", JOB_LABEL: release.deployment_id}},
                "spec": kept
                | {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": JOB_GRACE_S,
                    "containers": [
                        {key: value for key, value in container.items() if key in _CONTAINER_FIELDS}
                        | {
                            "name": name,
                            "image": reference_of(image),
                            # `args` alone: an entry point of the image stays, as it does for the app's command.
                            "args": list(command),
                            "env": given + [{"name": key, "value": value} for key, value in env.items()],
                        }
                    ],
                },
            },
        },
    }


_POD_FIELDS = ("imagePullSecrets", "serviceAccountName", "securityContext", "volumes", "nodeSelector", "tolerations")
_CONTAINER_FIELDS = ("env", "envFrom", "securityContext", "volumeMounts", "resources", "workingDir")
