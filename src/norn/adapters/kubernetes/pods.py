"""What ReplicaSets and pods say, as the domain's values: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from norn.adapters.kubernetes.resources import Object, annotations_of, name_of, owner_of
from norn.adapters.kubernetes.workload import Workload, digest_of
from norn.domain.ports import Health
from norn.domain.rollout import ContainerState, PodState, RolloutState

_REVISION = "deployment.kubernetes.io/revision"


def newest_replica_set(workload: Workload, replica_sets: Iterable[Object]) -> Object | None:
    """The ReplicaSet of the present pod template: the one that has the Deployment's own revision and images."""
    keys = list(workload.containers)
    for replica_set in replica_sets:
        if annotations_of(replica_set).get(_REVISION) != workload.revision or not _owned(replica_set, workload):
            continue
        template = Workload(
            {"metadata": replica_set["metadata"], "spec": {"template": replica_set["spec"]["template"]}}
        )
        if template.images(keys) == workload.images(keys):
            return replica_set
    return None


def _owned(replica_set: Object, workload: Workload) -> bool:
    return any(owner.get("uid") == workload.uid for owner in replica_set["metadata"].get("ownerReferences") or ())


def pods_of(replica_set: Object | None, pods: Iterable[Object]) -> list[Object]:
    """Its pods, by name."""
    if replica_set is None:
        return []
    name = name_of(replica_set)
    return sorted((pod for pod in pods if owner_of(pod, "ReplicaSet") == name), key=name_of)


@dataclass(frozen=True, slots=True)
class Mark:
    """What stood there when the change was accepted; only what is different from it is news."""

    conditions: Mapping[str, str]
    """When each condition was last updated."""

    @classmethod
    def of(cls, workload: Workload) -> Mark:
        return cls({kind: str(condition.get("lastUpdateTime")) for kind, condition in _conditions(workload).items()})


def _conditions(workload: Workload) -> dict[str, Object]:
    status = workload.obj.get("status") or {}
    return {condition["type"]: condition for condition in status.get("conditions") or ()}


def rollout_state(workload: Workload, pods: Sequence[Object], mark: Mark) -> RolloutState:
    status = workload.obj.get("status") or {}
    news = {
        kind: condition
        for kind, condition in _conditions(workload).items()
        if mark.conditions.get(kind) != str(condition.get("lastUpdateTime"))
    }
    progressing, blocked = news.get("Progressing", {}), news.get("ReplicaFailure", {})
    return RolloutState(
        generation=workload.generation,
        observed_generation=int(status.get("observedGeneration", 0)),
        desired=workload.replicas,
        updated=int(status.get("updatedReplicas", 0)),
        total=int(status.get("replicas", 0)),
        available=int(status.get("availableReplicas", 0)),
        blocked=str(blocked.get("message", "")) if blocked.get("status") == "True" else "",
        overdue=str(progressing.get("message", "")) if progressing.get("reason") == "ProgressDeadlineExceeded" else "",
        pods=[pod_state(pod) for pod in pods],
    )


def pod_state(pod: Object) -> PodState:
    status = pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    init = [_container_state(found, init=True) for found in status.get("initContainerStatuses") or ()]
    containers = [_container_state(found, init=False) for found in status.get("containerStatuses") or ()]
    why = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
    return PodState(
        name=name_of(pod),
        ready=conditions.get("Ready", {}).get("status") == "True",
        going=pod["metadata"].get("deletionTimestamp") is not None,
        unschedulable=_unschedulable(scheduled) if scheduled.get("status") == "False" else "",
        failed=why or "it has failed" if status.get("phase") == "Failed" else "",
        containers=(*init, *containers),
    )


def _unschedulable(condition: Object) -> str:
    return ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))


def _container_state(found: Object, *, init: bool) -> ContainerState:
    state = found.get("state") or {}
    waiting, ended_now = state.get("waiting") or {}, state.get("terminated")
    ended = ended_now or (found.get("lastState") or {}).get("terminated")
    return ContainerState(
        name=found["name"],
        waiting=waiting.get("reason", ""),
        message=waiting.get("message", ""),
        restarts=int(found.get("restartCount", 0)),
        ended=_how(ended) if ended else "",
        ended_now=ended_now is not None,
        failed=ended_now is not None and (not init or ended_now.get("exitCode") != 0),
    )


def _how(ended: Object) -> str:
    signal = ended.get("signal")
    how = f"ended by signal {signal}" if signal else f"exit status {ended.get('exitCode')}"
    said = ", ".join(filter(None, (ended.get("reason"), ended.get("message"))))
    return f"{how} ({said})" if said else how


def running_digests(pods: Iterable[Object], name: str) -> set[str]:
    """The digests that the runtime says a container of these pods runs (`imageID`), as far as it says so.

    A node's runtime may name an image by its configuration instead of by its manifest: then there is nothing to say.
    """
    found = set()
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp") is not None:
            continue
        status = pod.get("status") or {}
        for container in (status.get("containerStatuses") or []) + (status.get("initContainerStatuses") or []):
            if container["name"] == name and (digest := digest_of(container.get("imageID", ""))):
                found.add(digest)
    return found


def template_of(pod: Object) -> Workload:
    """The pod's own template, to compare with a Deployment's."""
    return Workload({"metadata": pod["metadata"], "spec": {"template": {"spec": pod["spec"]}}})


def health_of(
    workload: Workload, pods: Iterable[Object], answers: Mapping[str, str] = {}, slowest_ms: float | None = None
) -> Health:
    """What the kubelets say of the pods of the present template, and what these say themselves.

    Args:
        answers: why it is not well, for each pod that was asked; empty where it is.
        slowest_ms: how long the slowest of them took to answer.
    """
    states = [state for state in map(pod_state, pods) if not state.going]
    ill = {state.name: f"{state.name}: {why}" for state in states if (why := answers.get(state.name))}
    reasons = [ill.get(state.name) or _why_not_ready(state) for state in states if not state.ready or state.name in ill]
    ready = sum(state.ready and state.name not in ill for state in states)
    if not reasons and ready < workload.replicas:
        reasons = [f"{ready} of {workload.replicas} pods are there"]
    return Health(
        wanted=workload.replicas,
        ready=ready,
        restarts=sum(container.restarts for state in states for container in state.containers),
        message=reasons[0] if reasons else "",
        response_ms=slowest_ms,
    )


def _why_not_ready(state: PodState) -> str:
    for container in state.containers:
        if container.waiting or container.failed:
            return f"{state.name}/{container.name}: {container.waiting or container.ended}"
    return f"{state.name}: {state.unschedulable or state.failed or 'not ready'}"
