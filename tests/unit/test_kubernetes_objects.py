"""What a Kubernetes Deployment says, and the patches that change it."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.fixtures.turns import turn

from norn.adapters.kubernetes.direct import plan_direct, read_direct, with_direct, without_direct
from norn.adapters.kubernetes.manifests import job
from norn.adapters.kubernetes.patches import image_patch, made_live
from norn.adapters.kubernetes.pods import Mark, pod_state, rollout_state, running_digests
from norn.adapters.kubernetes.preconditions import images_for, refuse_unseen
from norn.adapters.kubernetes.workload import (
    Note,
    Workload,
    digest_of,
    live_of,
    main_container,
    reference_of,
    repository_of,
    sharing,
)
from norn.domain.images import Image
from norn.domain.ports import Direct, Release, Switch, Template
from norn.domain.workloads import findings
from norn.errors import NothingToRollBackTo, RolloutFailed, Stale

ONE, TWO = "r/web@sha256:" + "1" * 64, "r/web@sha256:" + "2" * 64
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def note(reference: str, deployment_id: str, *keys: str) -> Note:
    return Note(deployment_id, f"r/web:{deployment_id}", digest_of(reference), dict.fromkeys(keys or KEYS, reference))


KEYS = ("initContainers/migrate", "containers/web")


def deployment(
    image: str, *, change: Note | None = None, live: Note | None = None, **annotations: str
) -> dict[str, Any]:
    if change is not None:
        annotations |= {"norn.dev/deployment": change.deployment_id, "norn.dev/change": change.to_text()}
    if live is not None:
        annotations |= {name: text or "" for name, text in made_live(live, NOW).items()}
    return {
        "metadata": {
            "name": "web", "uid": "u", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": annotations,
        },
        "spec": {
            "replicas": 2,
            "template": {"spec": {
                "initContainers": [{"name": "migrate", "image": image}],
                "containers": [{"name": "proxy", "image": "mesh:1"}, {"name": "web", "image": image}],
            }},
        },
    }  # fmt: skip


def applied(document: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """RFC 6902, as far as Norn uses it; a test that does not hold is an AssertionError, one for null is for nothing."""
    found = copy.deepcopy(document)
    for operation in operations:
        *path, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        parent: Any = found
        for part in path:
            parent = parent[int(part) if isinstance(parent, list) else part]
        if operation["op"] == "test":
            assert (parent.get(last) if isinstance(parent, dict) else parent[last]) == operation["value"]
        elif operation["op"] == "remove":
            del parent[last]
        else:
            parent[last] = operation["value"]
    return found


# ---- what is live ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obj", "deployment_id", "digest"),
    [
        pytest.param(deployment(ONE), None, digest_of(ONE), id="somebody else's"),
        pytest.param(deployment(ONE, change=note(ONE, "a")), "nothing", "", id="nothing has rolled out yet"),
        pytest.param(deployment(ONE, change=note(ONE, "a"), live=note(ONE, "a")), "a", digest_of(ONE), id="rolled out"),
        pytest.param(
            deployment(TWO, change=note(TWO, "b"), live=note(ONE, "a")), "a", digest_of(ONE), id="rolling out"
        ),
        pytest.param(
            deployment("r/web:hand", change=note(ONE, "a"), live=note(ONE, "a")), None, "sha256:9", id="changed by hand"
        ),
    ],
)
def test_what_is_live(obj: dict[str, Any], deployment_id: str | None, digest: str) -> None:
    live = live_of(Workload(obj), "sha256:9")
    if deployment_id == "nothing":
        assert live is None
    else:
        assert live is not None
        assert (live.deployment_id, live.digest) == (deployment_id, digest)


def seen(digest: str, tag: str) -> Switch:
    return Switch("web", "c", Image("r/web:c", "sha256:c", ""), None, digest, tag)


def test_a_tag_that_somebody_has_set_since_is_not_what_was_seen() -> None:
    by_hand = Workload(deployment("r/web:hotfix", change=note(ONE, "a"), live=note(ONE, "a")))
    with pytest.raises(Stale, match="r/web:hotfix is live"):
        refuse_unseen(seen(digest_of(ONE), "r/web:a"), by_hand)


@pytest.mark.parametrize("runs", ["sha256:9", ""])
def test_a_tag_that_was_seen_is_what_was_seen_whatever_ran_for_it(runs: str) -> None:
    by_hand = Workload(deployment("r/web:hotfix", change=note(ONE, "a"), live=note(ONE, "a")))
    refuse_unseen(seen(runs, "r/web:hotfix"), by_hand)


def test_a_tag_that_was_adopted_is_the_digest_that_was_noted_for_it() -> None:
    noted = Note("a", "r/web:1", "sha256:9", dict.fromkeys(KEYS, "r/web:1"))
    adopted = Workload(deployment("r/web:1", change=noted, live=noted))
    refuse_unseen(seen("sha256:9", "r/web:1"), adopted)
    with pytest.raises(Stale):
        refuse_unseen(seen("sha256:8", "r/web:1"), adopted)


def test_what_was_accepted_and_has_not_rolled_out_is_told_beside_what_is_live() -> None:
    half = Workload(deployment(TWO, change=note(TWO, "b"), live=note(ONE, "a")))
    live = live_of(half, "")
    assert live is not None
    assert live.coming is not None
    assert (live.deployment_id, live.coming.deployment_id, live.coming.digest) == ("a", "b", digest_of(TWO))


def test_a_change_that_has_not_rolled_out_may_be_what_was_seen() -> None:
    half = Workload(deployment(TWO, change=note(TWO, "b"), live=note(ONE, "a")))
    refuse_unseen(seen(digest_of(TWO), "r/web:b"), half)
    with pytest.raises(Stale):
        refuse_unseen(seen("sha256:8", "r/web:8"), half)


def test_what_is_live_is_told_by_the_container_and_not_by_an_init_container_before_it() -> None:
    obj = deployment(ONE, change=note(ONE, "a"), live=note(ONE, "a"))
    obj["spec"]["template"]["spec"]["containers"][1]["image"] = TWO
    live = live_of(Workload(obj), "")
    assert live is not None
    assert live.digest == digest_of(TWO)


def test_a_note_that_nobody_can_read_is_none() -> None:
    for text in (None, "", "{", "[]", '{"deployment": 1}', '{"containers": []}'):
        assert Note.from_text(text) is None


# ---- patches -----------------------------------------------------------------------------------------------------


def test_the_patch_changes_the_images_of_the_named_containers_and_norns_annotations_alone() -> None:
    before = deployment(TWO, change=note(TWO, "b"), live=note(TWO, "b"), other="kept")
    images = dict.fromkeys(KEYS, ONE)
    after = applied(before, image_patch(Workload(before), images, note(ONE, "c"), "why", turn(fence=8), resume=False))
    wanted = copy.deepcopy(before)
    pod = wanted["spec"]["template"]["spec"]
    pod["initContainers"][0]["image"] = pod["containers"][1]["image"] = ONE
    own = {f"norn.dev/{name}" for name in ("deployment", "change", "image", "fence")} | {"kubernetes.io/change-cause"}
    assert after["spec"] == wanted["spec"]
    changed = {name for name, text in after["metadata"]["annotations"].items()
               if before["metadata"]["annotations"].get(name) != text}  # fmt: skip
    assert changed == own


@pytest.mark.parametrize("meanwhile", ["the image", "the position", "another change by Norn", "a later turn"])
def test_the_patch_fails_where_something_changed_meanwhile(meanwhile: str) -> None:
    before = deployment(TWO, change=note(TWO, "b"), live=note(TWO, "b"))
    before["metadata"]["annotations"]["norn.dev/fence"] = "7"
    operations = image_patch(
        Workload(before), dict.fromkeys(KEYS, ONE), note(ONE, "c"), "why", turn(fence=8), resume=False
    )
    if meanwhile == "the image":
        before["spec"]["template"]["spec"]["containers"][1]["image"] = "r/web:hand"
    elif meanwhile == "the position":
        before["spec"]["template"]["spec"]["containers"].reverse()
    elif meanwhile == "a later turn":
        before["metadata"]["annotations"]["norn.dev/fence"] = "9"
    else:
        before["metadata"]["annotations"]["norn.dev/deployment"] = "z"
    with pytest.raises(AssertionError):
        applied(before, operations)


def test_resuming_is_part_of_the_same_patch() -> None:
    before = deployment(TWO, change=note(TWO, "b"), live=note(TWO, "b"))
    before["spec"]["paused"] = True
    operations = image_patch(
        Workload(before), dict.fromkeys(KEYS, ONE), note(ONE, "c"), "why", turn(fence=8), resume=True
    )
    assert "paused" not in applied(before, operations)["spec"]


def test_a_target_without_a_record_gets_the_containers_that_are_norns_now() -> None:
    workload = Workload(deployment(TWO, change=note(TWO, "b")))
    image = Image("r/web:a", digest_of(ONE), "")
    assert images_for(workload, Switch("web", "c", image)) == dict.fromkeys(KEYS, ONE)


def test_a_recorded_container_that_is_gone_points_to_the_template() -> None:
    workload = Workload(deployment(TWO, change=note(TWO, "b")))
    switch = Switch("web", "c", Image("r/web:a", digest_of(ONE), ""), {"containers": {"containers/old": ONE}})
    with pytest.raises(RolloutFailed, match="containers/old"):
        images_for(workload, switch)


# ---- adopting ----------------------------------------------------------------------------------------------------


def test_the_app_is_the_container_of_its_name_with_all_that_run_the_same_image() -> None:
    workload = Workload(deployment(ONE))
    main = main_container(workload)
    assert main == "containers/web"
    assert sharing(workload, main) == dict.fromkeys(KEYS, ONE)


def test_several_containers_of_other_names_are_for_a_person_to_choose_from() -> None:
    obj = deployment(ONE)
    obj["metadata"]["name"] = "shop"
    assert main_container(Workload(obj)) is None
    assert main_container(Workload(obj), "web") == "containers/web"
    assert main_container(Workload(obj), "migrate") is None


# ---- without a server --------------------------------------------------------------------------------------------


def test_a_change_that_has_not_rolled_out_is_undone_first() -> None:
    plan = plan_direct(Workload(deployment(TWO, change=note(TWO, "b"), live=note(ONE, "a"))))
    assert (plan.target.deployment_id, plan.undoes) == ("a", True)


def test_else_it_goes_to_the_way_back_that_is_noted() -> None:
    noted = {"norn.dev/way-back": note(ONE, "a").to_text()}
    plan = plan_direct(Workload(deployment(TWO, change=note(TWO, "b"), live=note(TWO, "b"), **noted)))
    assert (plan.target.deployment_id, plan.undoes) == ("a", False)


def test_without_a_note_there_is_nothing_to_go_back_to() -> None:
    with pytest.raises(NothingToRollBackTo):
        plan_direct(Workload(deployment(TWO, change=note(TWO, "b"), live=note(TWO, "b"))))


# ---- jobs --------------------------------------------------------------------------------------------------------


def migration(pod: dict[str, Any] | None = None, container: dict[str, Any] | None = None) -> dict[str, Any]:
    template = Template("worker", 1, None, None, {"COLOUR": "blue"}, (), 300.0)
    release = Release("web", "c", Image("r/web:a", digest_of(ONE), ""), template)
    return job(release, turn(), "migrate", ["migrate", "up"], {"NORN_TO": "a"}, pod=pod, container=container)


def test_a_job_is_tried_once() -> None:
    spec = migration()["spec"]
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")


def test_a_job_runs_the_command_in_the_image_of_the_release_by_its_digest() -> None:
    (container,) = migration()["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["args"], "command" in container) == (ONE, ["migrate", "up"], False)
    assert {entry["name"]: entry["value"] for entry in container["env"]} == {"COLOUR": "blue", "NORN_TO": "a"}


def test_a_job_pulls_and_runs_as_the_pods_of_the_app_do_and_takes_over_nothing_else() -> None:
    kept = {
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccountName": "web",
        "securityContext": {"runAsUser": 1000},
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "shop", "operator": "Exists"}],
    }
    own = {"restartPolicy", "terminationGracePeriodSeconds", "containers"}
    pod = migration(kept | {"restartPolicy": "Always", "initContainers": [{"name": "wait"}]})["spec"]["template"][
        "spec"
    ]
    assert {name: value for name, value in pod.items() if name not in own} == kept


def test_a_job_of_an_adopted_app_has_the_environment_of_its_container_and_not_its_probes() -> None:
    given = {
        "name": "web",
        "image": TWO,
        "command": ["serve"],
        "env": [{"name": "COLOUR", "value": "red"}, {"name": "NORN_TO", "value": "another"}],
        "envFrom": [{"secretRef": {"name": "vault"}}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "readinessProbe": {"tcpSocket": {"port": 80}},
    }
    (container,) = migration(container=given)["spec"]["template"]["spec"]["containers"]
    assert container == {
        "name": "migrate",
        "image": ONE,
        "args": ["migrate", "up"],
        "env": [{"name": "COLOUR", "value": "red"}, {"name": "NORN_TO", "value": "a"}],
        "envFrom": given["envFrom"],
        "volumeMounts": given["volumeMounts"],
    }


def test_a_job_has_no_other_labels_than_those_by_which_it_is_found() -> None:
    found = migration()
    labels = {"app.kubernetes.io/managed-by": "norn", "norn.dev/operation": "c"}
    assert (found["metadata"]["name"], found["metadata"]["labels"]) == ("norn-migrate-c", labels)
    assert found["spec"]["template"]["metadata"]["labels"] == labels  # no Service sends it requests


def made(deployment_id: str) -> Direct:
    image = Image(f"r/web:{deployment_id}", "sha256:" + "1" * 64, "")
    return Direct(deployment_id, "root@host", "night", image, "a", "b", "r/web:b")


def noted(text: str) -> dict[str, Any]:
    return {"norn.dev/direct": text}


def after(*deployment_ids: str) -> dict[str, Any]:
    """What stands there after these rollbacks without a server, one after the other."""
    obj = deployment(ONE)
    for deployment_id in deployment_ids:
        text = with_direct(Workload(obj), made(deployment_id))
        obj = deployment(ONE, change=note(ONE, deployment_id), **noted(text or ""))
    return obj


def test_of_several_rollbacks_without_a_server_none_is_lost() -> None:
    obj = after("x", "y")
    assert read_direct(Workload(obj)) == made("x")
    obj = applied(obj, without_direct(Workload(obj), "x"))
    assert read_direct(Workload(obj)) == made("y")
    obj = applied(obj, without_direct(Workload(obj), "y"))
    assert "norn.dev/direct" not in obj["metadata"]["annotations"]


def test_one_that_is_made_while_another_is_taken_in_is_kept() -> None:
    seen = without_direct(Workload(after("x")), "x")
    with pytest.raises(AssertionError):
        applied(after("x", "y"), seen)


def test_the_note_of_an_earlier_norn_is_read_and_kept() -> None:
    old = {"id": "x", "by": "root@host", "reason": "night", "target": "a", "from": "b", "fromImageTag": "r/web:b"}
    workload = Workload(deployment(ONE, change=note(ONE, "x"), **noted(json.dumps(old))))
    assert read_direct(workload) == made("x")
    text = with_direct(workload, made("y"))
    obj = deployment(ONE, change=note(ONE, "y"), **noted(text or ""))
    assert read_direct(Workload(obj)) == made("x")


def test_of_many_rollbacks_without_a_server_the_last_are_kept() -> None:
    assert read_direct(Workload(after(*map(str, range(12))))) == made("2")


@pytest.mark.parametrize("text", ["", "[]", "no JSON", "[{}]", '{"id": "x"}', "7"])
def test_notes_that_say_nothing_are_none(text: str) -> None:
    workload = Workload(deployment(ONE, change=note(ONE, "x"), **noted(text)))
    assert read_direct(workload) is None


def test_after_another_change_a_rollback_without_a_server_is_not_taken_in() -> None:
    obj = after("x")
    obj["metadata"]["annotations"]["norn.dev/change"] = note(ONE, "later").to_text()
    assert read_direct(Workload(obj)) is None


# ---- references and pods -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "repository"),
    [
        ("r:5000/team/web:abc", "r:5000/team/web"),
        ("r:5000/web@sha256:1", "r:5000/web"),
        ("r:5000/web", "r:5000/web"),
        ("nginx:1.25", "nginx"),
        ("nginx", "nginx"),
    ],
)
def test_the_repository_of_a_reference(tag: str, repository: str) -> None:
    assert repository_of(tag) == repository


def test_what_runs_is_the_digest() -> None:
    assert reference_of(Image("r:5000/web:abc", "sha256:1", "")) == "r:5000/web@sha256:1"


def test_conditions_from_before_the_change_are_no_news() -> None:
    obj = deployment(ONE, change=note(ONE, "a"))
    failed = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}
    obj["status"] = {"conditions": [failed | {"lastUpdateTime": "2026-01-01T00:00:00Z"}]}
    workload = Workload(obj)
    assert rollout_state(workload, [], Mark.of(workload)).overdue == ""
    assert rollout_state(workload, [], Mark({})).overdue == "late"


def test_a_crashed_container_tells_its_exit_status() -> None:
    terminated = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    status = {"containerStatuses": [
        {"name": "web", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
         "lastState": terminated}
    ]}  # fmt: skip
    (container,) = pod_state({"metadata": {"name": "p"}, "status": status}).containers
    assert (container.waiting, container.ended) == ("CrashLoopBackOff", "exit status 137 (OOMKilled)")


def test_only_manifest_digests_of_pods_that_stay_count() -> None:
    def pod(image_id: str, **metadata: str) -> dict[str, Any]:
        return {"metadata": metadata, "status": {"containerStatuses": [{"name": "web", "imageID": image_id}]}}

    pods = [pod(ONE), pod("sha256:config"), pod(TWO, deletionTimestamp="now")]
    assert running_digests(pods, "web") == {digest_of(ONE)}


@pytest.mark.parametrize(
    ("how", "codes"),
    [
        ({"managers": ["norn", "kubectl"]}, []),
        ({"managers": ["argocd-controller"]}, ["managed_elsewhere"]),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, ["managed_elsewhere"]),
        ({"replicas": 0}, ["no_replicas"]),
        ({"left_behind": ["deployment/web-worker"]}, ["left_behind"]),
        ({"forbidden": ["cronjob"]}, ["not_checked"]),
        ({"unseen": ["daemonset", "statefulset"]}, ["not_checked"]),
    ],
)
def test_cautions_about_how_it_runs(how: dict[str, Any], codes: list[str]) -> None:
    usual: dict[str, Any] = {"managers": ["norn"], "labels": {}, "replicas": 2}
    assert [found.code for found in findings("web", **usual | how)] == codes


def test_of_many_that_are_left_behind_the_first_are_named() -> None:
    (found,) = findings("web", managers=[], labels={}, replicas=1, left_behind=[f"w{n}" for n in range(8)])
    assert "w0, w1, w2, w3, w4 and 3 more" in found.message
    assert len(found.facts["workloads"]) == 8
