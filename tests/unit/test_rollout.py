"""How far a rollout is, from what the cluster says of it."""

from __future__ import annotations

import pytest

from norn.domain.rollout import Attempts, ContainerState, Phase, PodState, RolloutState, is_behind, judge

PULL = ContainerState("web", waiting="ErrImagePull", message="connection refused")
BACK_OFF = ContainerState("web", waiting="ImagePullBackOff", message="Back-off pulling image")
CRASHED_ONCE = ContainerState("web", ended="exit status 3", ended_now=True, failed=True)
LOOPING = ContainerState("web", waiting="CrashLoopBackOff", restarts=1, ended="exit status 3")


def state(*pods: PodState, **more: int | str) -> RolloutState:
    values: dict[str, int | str] = {
        "generation": 2, "observed_generation": 2, "desired": 2, "updated": 2, "total": 3, "available": 1,
    }  # fmt: skip
    return RolloutState(**(values | more), pods=pods)  # type: ignore[arg-type]


def pod(*containers: ContainerState, **more: bool | str) -> PodState:
    return PodState("web-1", containers=containers, **more)  # type: ignore[arg-type]


def test_complete_is_all_updated_none_left_over_all_available() -> None:
    assert judge(state(total=2, available=2), Attempts()).phase is Phase.COMPLETE


@pytest.mark.parametrize(
    "short",
    [{"observed_generation": 1}, {"updated": 1}, {"total": 3}, {"available": 1}],
    ids=lambda found: next(iter(found)),
)
def test_each_condition_of_success_counts(short: dict[str, int]) -> None:
    assert judge(state(**({"total": 2, "available": 2} | short)), Attempts()).phase is Phase.GOING_ON


def test_at_no_replicas_it_is_complete_once_it_was_seen() -> None:
    assert judge(state(desired=0, updated=0, total=0, available=0), Attempts()).phase is Phase.COMPLETE


@pytest.mark.parametrize(
    ("container", "phase", "reason"),
    [
        (ContainerState("web", waiting="InvalidImageName"), Phase.FAILED, "invalid_image_name"),
        (ContainerState("web", waiting="CreateContainerConfigError", message='secret "x" not found'), Phase.FAILED,
         "config_error"),
        (ContainerState("web", waiting="CreateContainerConfigError", message="failed to sync secret cache: timed out"),
         Phase.GOING_ON, "config_error"),
        (ContainerState("web", waiting="ErrImagePull", message="manifest unknown: not found"), Phase.FAILED,
         "image_not_found"),
        (ContainerState("web", waiting="ErrImagePull", message="no matching manifest for linux/amd64"), Phase.FAILED,
         "image_not_found"),
        (PULL, Phase.GOING_ON, "image_not_pulled"),
        (CRASHED_ONCE, Phase.GOING_ON, "crash"),
        (LOOPING, Phase.FAILED, "crash"),
        (ContainerState("web", restarts=5), Phase.GOING_ON, ""),
        (ContainerState("web", waiting="ContainerCreating"), Phase.GOING_ON, ""),
        (ContainerState("prepare", ended="exit status 0 (Completed)", ended_now=True), Phase.GOING_ON, ""),
    ],
)  # fmt: skip
def test_what_a_container_says(container: ContainerState, phase: Phase, reason: str) -> None:
    found = judge(state(pod(container)), Attempts().after([pod(container)]))
    assert (found.phase, found.reason) == (phase, reason)


def test_a_registry_that_fails_twice_has_failed() -> None:
    attempts = Attempts()
    for seen in (PULL, PULL, BACK_OFF):
        attempts = attempts.after([pod(seen)])
        assert judge(state(pod(seen)), attempts).phase is Phase.GOING_ON
    attempts = attempts.after([pod(PULL)])
    assert judge(state(pod(PULL)), attempts).phase is Phase.FAILED


def test_an_attempt_that_was_missed_counts_when_its_back_off_is_seen() -> None:
    attempts = Attempts().after([pod(BACK_OFF)]).after([pod(PULL)])
    assert judge(state(pod(PULL)), attempts).phase is Phase.FAILED


def test_a_pod_that_no_node_takes_is_shown_and_waited_for() -> None:
    found = judge(state(pod(unschedulable="0/1 nodes are available")), Attempts())
    assert (found.phase, found.reason) == (Phase.GOING_ON, "unschedulable")
    assert "0/1 nodes" in found.trouble


def test_pods_on_their_way_out_say_nothing() -> None:
    assert judge(state(pod(LOOPING, going=True)), Attempts()).phase is Phase.GOING_ON


def test_the_controllers_despair_counts_with_the_pods_own_words() -> None:
    found = judge(state(pod(unschedulable="no room"), overdue="timed out progressing"), Attempts())
    assert (found.phase, found.reason, "no room" in found.trouble) == (Phase.FAILED, "unschedulable", True)


def test_pods_that_cannot_be_made_are_shown() -> None:
    found = judge(state(blocked="exceeded quota"), Attempts())
    assert (found.phase, found.reason) == (Phase.GOING_ON, "quota")


@pytest.mark.parametrize(
    ("ready", "more", "behind"),
    [
        ([], {}, True),
        ([False], {}, True),
        ([False, False], {}, False),  # the available one may be an old one
        ([True, False], {"total": 2, "available": 2}, True),
        ([True, True], {"total": 2, "available": 2}, False),
        ([], {"observed_generation": 1}, False),
        ([], {"desired": 0, "updated": 0, "total": 0, "available": 0}, False),
    ],
)
def test_pods_are_behind_where_the_deployment_knows_of_more(
    ready: list[bool], more: dict[str, int], behind: bool
) -> None:
    assert is_behind(state(*(pod(ready=one) for one in ready), **more)) is behind
