"""How far a rollout is: complete, going on, or failed for certain, judged from what the cluster says.

Complete is what `kubectl rollout status` calls so (the controller has seen the change; as many updated, total and
available replicas as wanted), see the Kubernetes documentation, "Complete Deployment". Failed is decided long before
the progress deadline: by the pods of the new ReplicaSet alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_AT_ONCE = {
    "InvalidImageName": "invalid_image_name",
    "ErrImageNeverPull": "image_not_found",
    "CreateContainerConfigError": "config_error",
}
"""Reasons of a waiting container that no time mends."""
_PASSING = ("failed to sync", "timed out", "timeout")
"""Words of a config error that is the kubelet's own trouble in asking the API server: it asks again."""
_PULLING = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable")
_NOT_THERE = (
    "not found", "manifest unknown", "does not exist", "name unknown", "no matching manifest", "no match for platform",
)  # fmt: skip
"""The last two: not for a node of this kind."""
_CRASHING = ("CrashLoopBackOff", "RunContainerError", "CreateContainerError", "StartError")
FAILURES = 2
"""A container may fail once to be pulled or to run: a registry hiccups, a database is not up yet."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    name: str
    waiting: str = ""
    """The reason for which it waits, in Kubernetes' words; empty where it does not."""
    message: str = ""
    restarts: int = 0
    ended: str = ""
    """How it ended now or the last time (`exit status 3 (Error)`); empty where it did not."""
    ended_now: bool = False
    """It has ended, and has not been started again yet."""
    failed: bool = False
    """`ended_now` is a failure: another exit status than 0, or of a container that is not to end at all."""


@dataclass(frozen=True, slots=True)
class PodState:
    name: str
    ready: bool = False
    going: bool = False
    """It is being deleted."""
    unschedulable: str = ""
    """Why no node takes it; empty where one did."""
    failed: str = ""
    """Why the pod as a whole has ended (evicted, …)."""
    containers: tuple[ContainerState, ...] = ()
    """Init containers first."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """A Kubernetes Deployment and the pods of its newest ReplicaSet. Only what is newer than the change counts."""

    generation: int
    observed_generation: int
    desired: int
    updated: int
    total: int
    available: int
    blocked: str = ""
    """Why pods cannot be made at all (a quota, an admission webhook), in the controller's words."""
    overdue: str = ""
    """That the controller has given up hope (progressDeadlineSeconds), since the change."""
    pods: Sequence[PodState] = ()


class Phase(StrEnum):
    GOING_ON = "going on"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Progress:
    phase: Phase
    summary: str
    """`2 of 4 updated, 1 available`"""
    trouble: str = ""
    """What stands in the way, in the words of the cluster."""
    reason: str = ""
    """A stable word for the trouble: image_not_found, crash, unschedulable, …"""
    pod: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often each container was seen to fail to be pulled; crashes the cluster counts itself."""

    pulls: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failing: frozenset[tuple[str, str]] = frozenset()
    """Those that had just failed at the last look (and do not merely wait for the next attempt)."""

    def after(self, pods: Sequence[PodState]) -> Attempts:
        """With what is seen now: a failure counts once for each time that it newly appears."""
        pulls, failing = dict(self.pulls), set[tuple[str, str]]()
        for pod in pods:
            for container in pod.containers:
                key = (pod.name, container.name)
                if container.waiting == "ErrImagePull":
                    failing.add(key)
                    if key not in self.failing:
                        pulls[key] = pulls.get(key, 0) + 1
                elif container.waiting in _PULLING:
                    pulls.setdefault(key, 1)
        return Attempts(pulls, frozenset(failing))


def judge(state: RolloutState, attempts: Attempts) -> Progress:
    """How far it is. `attempts` includes this look."""
    summary = f"{state.updated} of {state.desired} updated, {state.available} available"
    if state.observed_generation < state.generation:
        return Progress(Phase.GOING_ON, summary, "the cluster has not taken the change up yet", "not_observed")
    if state.updated == state.total == state.available == state.desired:
        return Progress(Phase.COMPLETE, summary)
    waiting: Progress | None = None
    for pod in state.pods:
        if pod.going:
            continue
        found = _trouble_of(pod, attempts, summary)
        if found is not None and found.phase is Phase.FAILED:
            return found
        waiting = waiting or found
    if state.overdue:
        trouble, reason = (waiting.trouble, waiting.reason) if waiting else (state.overdue, "overdue")
        return Progress(Phase.FAILED, summary, trouble, reason)
    if waiting is None and state.blocked:
        waiting = Progress(Phase.GOING_ON, summary, state.blocked, "quota")
    return waiting or Progress(Phase.GOING_ON, summary)


def is_behind(state: RolloutState) -> bool:
    """Whether the pods are from before what the Deployment's own status tells: it knows of more, or of more ready ones.

    It counts the available ones of all ReplicaSets: those of the new one are known once there is no other.
    """
    if state.observed_generation < state.generation:
        return False
    there = [pod for pod in state.pods if not pod.going]
    available = state.available if state.updated == state.total else 0
    return len(there) < state.updated or sum(pod.ready for pod in there) < available


def _trouble_of(pod: PodState, attempts: Attempts, summary: str) -> Progress | None:
    if pod.failed:
        return Progress(Phase.GOING_ON, summary, f"{pod.name}: {pod.failed}", "pod_failed", pod.name)
    if pod.unschedulable:
        return Progress(Phase.GOING_ON, summary, f"{pod.name}: {pod.unschedulable}", "unschedulable", pod.name)
    for container in pod.containers:
        words = ": ".join(filter(None, (f"{pod.name}/{container.name}", container.waiting, container.message)))

        def at(phase: Phase, reason: str, words: str = words, name: str = container.name) -> Progress:
            return Progress(phase, summary, words, reason, pod.name, name)

        if container.waiting in _AT_ONCE:
            passing = any(sign in container.message.lower() for sign in _PASSING)
            return at(Phase.GOING_ON if passing else Phase.FAILED, _AT_ONCE[container.waiting])
        if container.waiting in _PULLING:
            if any(sign in container.message.lower() for sign in _NOT_THERE):
                return at(Phase.FAILED, "image_not_found")
            often = attempts.pulls.get((pod.name, container.name), 0) >= FAILURES
            return at(Phase.FAILED if often else Phase.GOING_ON, "image_not_pulled")
        if container.failed or container.waiting in _CRASHING:
            ended = container.ended or container.message
            words = ": ".join(filter(None, (f"{pod.name}/{container.name}", container.waiting, ended)))
            often = container.restarts + 1 >= FAILURES
            return at(Phase.FAILED if often else Phase.GOING_ON, "crash", words)
    return None
