"""Rolling back on a real cluster: the image alone, and making sure that it worked."""

from __future__ import annotations

import copy
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

from tests.fixtures.clusters import REGISTRY, ClusterApp, Namespace, pods_reach_us_at
from tests.fixtures.norn import NornServer, until

BREAKABLE = 'if os.environ.get("BREAK"): print("I am broken", flush=True); os._exit(3)'
SLOW_WHERE_BROKEN = 'if os.environ.get("BREAK"): time.sleep({})'
"""Of a version that begins at once when it is deployed, and late when it is gone back to: see `break_old_version`."""


def two_versions(server: NornServer, space: Namespace, name: str, *, first: str = "", **kind: str) -> ClusterApp:
    app = ClusterApp(server, space, name, **kind)
    app.deploy("one", extra=first)
    app.deploy("two")
    return app


def without_norns_own(deployment: dict[str, Any]) -> dict[str, Any]:
    """The object without what a rollback is to change, and what the cluster itself writes."""
    found = copy.deepcopy(deployment)
    del found["status"]
    for field in ("resourceVersion", "generation", "managedFields"):
        del found["metadata"][field]
    own = ("norn.dev/", "kubernetes.io/change-cause", "deployment.kubernetes.io/revision")
    annotations = found["metadata"]["annotations"]
    found["metadata"]["annotations"] = {name: text for name, text in annotations.items() if not name.startswith(own)}
    return found


def delete_from_registry(tag: str, digest: str) -> None:
    repository = tag.removeprefix(f"{REGISTRY}/").rpartition(":")[0]
    with urlopen(Request(f"http://{REGISTRY}/v2/{repository}/manifests/{digest}", method="DELETE")) as answer:
        assert answer.status == 202


def test_a_rollback_changes_the_image_and_nothing_else(server: NornServer, space: Namespace) -> None:
    two_versions(server, space, "exact", more="env: {COLOUR: blue}\n")
    sidecar = {"name": "sidecar", "image": space.images("exact")["exact"], "env": [{"name": "PORT", "value": "9090"}]}
    change = [{"op": "add", "path": "/spec/template/spec/containers/0", "value": sidecar}]
    space.kubectl("patch", "deployment/exact", "--type=json", f"--patch={json.dumps(change)}")
    space.kubectl("annotate", "deployment/exact", "example.com/owner=payments")
    space.kubectl("scale", "deployment/exact", "--replicas=2")
    space.kubectl("rollout", "status", "deployment/exact", "--timeout=150s")
    before = without_norns_own(space.deployment("exact"))
    back = server.norn("rollback", "exact")
    assert back.exit_status == 0, back.err
    after = without_norns_own(space.deployment("exact"))
    one = f"{REGISTRY}/exact@{back.json()['digest']}"
    assert after["spec"]["template"]["spec"]["containers"][1]["image"] == one
    after["spec"]["template"]["spec"]["containers"][1]["image"] = before["spec"]["template"]["spec"]["containers"][1][
        "image"
    ]
    assert after == before


def test_the_old_replica_set_is_used_again(server: NornServer, space: Namespace) -> None:
    two_versions(server, space, "reuse")
    sets = {found["metadata"]["name"] for found in space.all("replicasets", "app.kubernetes.io/name=reuse")}
    assert server.norn("rollback", "reuse").exit_status == 0
    assert {found["metadata"]["name"] for found in space.all("replicasets", "app.kubernetes.io/name=reuse")} == sets


def test_the_reply_and_the_object_say_who_went_from_where_to_where(server: NornServer, space: Namespace) -> None:
    app = two_versions(server, space, "told")
    back = server.norn("rollback", "told", "--reason", "checkout fails").json()
    assert (back["fromImageTag"], back["imageTag"], back["reason"]) == (
        server.history("told")[1]["imageTag"],
        server.history("told")[2]["imageTag"],
        "checkout fails",
    )
    annotations = space.deployment("told")["metadata"]["annotations"]
    assert annotations["norn.dev/deployment"] == back["id"]
    assert back["imageTag"] in annotations["kubernetes.io/change-cause"]
    assert app.answers() == {"one"}


def test_a_second_rollback_goes_no_further_than_there_is(server: NornServer, space: Namespace) -> None:
    two_versions(server, space, "bottom")
    assert server.norn("rollback", "bottom").exit_status == 0
    until(lambda: server.status("bottom")["operation"] is None, "the end of the bake")
    assert server.norn("rollback", "bottom").exit_status == 3


def test_an_image_changed_by_hand_is_seen_and_named(server: NornServer, space: Namespace) -> None:
    app = two_versions(server, space, "handmade")
    stranger = ClusterApp(server, space, "stranger").deploy("stranger")
    space.kubectl("set", "image", "deployment/handmade", f"handmade={stranger}")
    space.kubectl("rollout", "status", "deployment/handmade", "--timeout=150s")
    live = until(lambda: (found := server.status("handmade")["live"])["imageTag"] == stranger and found, "the change")
    assert live["deploymentId"] is None
    back = server.norn("rollback", "handmade")
    assert back.exit_status == 0, back.err
    assert "is in no deployment" in back.json()["target"]["why"]
    assert app.answers() == {"two"}


# ---- the image ---------------------------------------------------------------------------------------------------


def test_a_version_whose_image_has_gone_is_passed_over_and_refused_by_name(
    server: NornServer, space: Namespace
) -> None:
    app = ClusterApp(server, space, "pruned")
    app.deploy("one")
    gone = app.deploy("two")
    app.deploy("three")
    digest = next(found["digest"] for found in server.history("pruned") if found["imageTag"] == gone)
    delete_from_registry(gone, digest)
    asked = server.norn("rollback", "pruned", "--to", gone)
    assert asked.exit_status == 3
    assert "does not exist" in asked.err
    back = server.norn("rollback", "pruned")
    assert back.exit_status == 0, back.err
    (skipped,) = back.json()["target"]["skipped"]
    assert (skipped["imageTag"], skipped["why"]) == (gone, "its image no longer exists")
    assert app.answers() == {"one"}


# ---- states of the Deployment ------------------------------------------------------------------------------------


def test_paused_rollouts_are_refused_and_can_be_resumed_with_the_rollback(server: NornServer, space: Namespace) -> None:
    app = two_versions(server, space, "paused")
    space.kubectl("rollout", "pause", "deployment/paused")
    until(lambda: server.api("POST", "/api/apps/paused/rollback", {"dryRun": True}).status == 409, "the pause")
    refused = server.norn("rollback", "paused")
    assert refused.exit_status == 4
    assert "--resume" in refused.err
    assert app.answers() == {"two"}
    back = server.norn("rollback", "paused", "--resume")
    assert back.exit_status == 0, back.err
    assert app.answers() == {"one"}
    assert not space.deployment("paused")["spec"].get("paused")


def test_at_zero_replicas_the_image_is_changed_and_said_to_run_nowhere(server: NornServer, space: Namespace) -> None:
    two_versions(server, space, "resting")
    space.kubectl("scale", "deployment/resting", "--replicas=0")
    until(lambda: not space.pods("resting"), "no pods")
    back = server.norn("rollback", "resting")
    assert back.exit_status == 0, back.err
    assert "no_replicas" in {finding["code"] for finding in back.json()["verdict"]["findings"]}
    assert space.images("resting")["resting"].endswith(back.json()["digest"])


def test_a_deployment_that_another_tool_looks_after_is_a_caution(server: NornServer, space: Namespace) -> None:
    two_versions(server, space, "governed")
    space.kubectl("label", "deployment/governed", "argocd.argoproj.io/instance=governed")

    def findings() -> list[dict[str, Any]]:
        plan = server.api("POST", "/api/apps/governed/rollback", {"dryRun": True}).body
        return [finding for finding in plan["verdict"]["findings"] if finding["code"] == "managed_elsewhere"]

    (finding,) = until(findings, "the caution")
    assert (finding["level"], finding["tools"]) == ("caution", ["Argo CD"])


def test_a_worker_on_the_same_image_that_would_stay_on_it_is_a_caution(server: NornServer, space: Namespace) -> None:
    two_versions(server, space, "pair")
    image = space.images("pair")["pair"]
    space.kubectl("create", "deployment", "pair-worker", f"--image={image}")
    space.kubectl("scale", "deployment/pair-worker", "--replicas=0")

    def findings() -> list[dict[str, Any]]:
        plan = server.api("POST", "/api/apps/pair/rollback", {"dryRun": True}).body
        return [finding for finding in plan["verdict"]["findings"] if finding["code"] == "left_behind"]

    (finding,) = until(findings, "the caution")
    assert (finding["level"], finding["workloads"]) == ("caution", ["deployment/pair-worker"])


# ---- what goes wrong while it rolls out --------------------------------------------------------------------------


def break_old_version(space: Namespace, name: str) -> None:
    """A change of the surroundings that only the older version minds."""
    space.kubectl("set", "env", f"deployment/{name}", "BREAK=yes")
    space.kubectl("rollout", "status", f"deployment/{name}", "--timeout=150s")


def test_a_target_that_crashes_is_reported_with_its_last_words_and_put_back(
    server: NornServer, space: Namespace
) -> None:
    app = two_versions(server, space, "crashing", first=BREAKABLE)
    break_old_version(space, "crashing")
    failed = server.norn("rollback", "crashing")
    assert failed.exit_status == 1
    assert "exit status 3" in failed.err
    assert "I am broken" in failed.err
    assert failed.json()["error"]["reason"] == "crash"
    assert app.answers() == {"two"}
    assert server.status("crashing")["live"]["imageTag"] == server.history("crashing")[1]["imageTag"]
    quarantined = [found for found in server.history("crashing") if found["status"] == "rolled_back"]
    assert quarantined == []


def test_where_what_is_put_back_is_ill_too_the_reply_has_both_errors(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "both-ill")
    tags = [app.deploy(answer, extra=BREAKABLE) for answer in ("one", "two")]
    space.kubectl("set", "env", "deployment/both-ill", "BREAK=yes")
    failed = server.norn("rollback", "both-ill")
    error = failed.json()["error"]
    assert (failed.exit_status, error["reason"]) == (1, "crash")
    (put_back,) = error["undoErrors"]
    assert (put_back["step"], put_back["reason"], tags[1] in put_back["message"]) == ("switch", "crash", True)
    assert "not healthy either" in failed.err


def test_putting_back_leaves_alone_what_others_changed_meanwhile(server: NornServer, space: Namespace) -> None:
    slowly = 'if os.environ.get("BREAK") and not os.environ.get("LATER"): time.sleep(60)'
    two_versions(server, space, "considerate", first=f"{slowly}\n{BREAKABLE}", timeout="90s")
    two = space.images("considerate")["considerate"]
    break_old_version(space, "considerate")
    started = server.api("POST", "/api/apps/considerate/rollback", Prefer="wait=50")
    until(lambda: space.images("considerate")["considerate"] != two, "the patch")
    space.kubectl("set", "env", "deployment/considerate", "LATER=yes")  # and only so it comes to its crash in time
    assert server.ended(started.body["id"])["error"]["reason"] == "crash"
    assert space.images("considerate")["considerate"] == two
    (container,) = space.deployment("considerate")["spec"]["template"]["spec"]["containers"]
    assert {"name": "LATER", "value": "yes"} in container["env"]


@contextmanager
def gatekeeper(admits: Callable[[int], bool]) -> Iterator[str]:
    """Asked by each pod whether it may live: `admits` is told how many have asked so far."""
    lock, asked = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                asked[0] += 1
                status = 200 if admits(asked[0]) else 403
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    gate = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    thread = threading.Thread(target=gate.serve_forever)
    thread.start()
    try:
        yield f"http://{pods_reach_us_at()}:{gate.server_port}/"
    finally:
        gate.shutdown()
        thread.join()
        gate.server_close()


def test_where_some_of_the_target_is_available_it_stays_and_what_was_live_can_be_gone_to(
    server: NornServer, space: Namespace
) -> None:
    asks = (
        "import urllib.request\n"
        'if os.environ.get("GATE"):\n'
        "    try: urllib.request.urlopen(os.environ['GATE'])\n"
        "    except OSError: os._exit(4)\n"
    )
    app = two_versions(server, space, "partly", first=asks, more="replicas: 2\n")
    with gatekeeper(lambda asked: asked == 1) as gate:
        space.kubectl("set", "env", "deployment/partly", f"GATE={gate}")
        space.kubectl("rollout", "status", "deployment/partly", "--timeout=150s")
        failed = server.norn("rollback", "partly")
        assert failed.exit_status == 1
        error = failed.json()["error"]
        assert (error["reason"], error["cause"]) == ("partial", "crash")
        assert "one" in app.answers()
        assert space.images("partly")["partly"].endswith(failed.json()["digest"])
        two = next(found["imageTag"] for found in server.history("partly") if found["kind"] == "deploy")
        assert server.status("partly")["live"]["deploymentId"] == failed.json()["id"]
        again = server.norn("rollback", "partly", "--to", two)
        assert (again.exit_status, again.json()["fromDeploymentId"]) == (0, failed.json()["id"]), again.err
        assert app.answers() == {"two"}


def rolls_back_slowly(server: NornServer, space: Namespace, name: str) -> tuple[ClusterApp, str]:
    """An app whose rollback has been accepted, and has a minute to go; the rollback's id."""
    app = two_versions(server, space, name, first=SLOW_WHERE_BROKEN.format(60))
    break_old_version(space, name)
    started = server.api("POST", f"/api/apps/{name}/rollback", Prefer="wait=50")
    return app, started.body["id"]


def test_another_manager_that_changes_the_image_meanwhile_is_named(server: NornServer, space: Namespace) -> None:
    app, id_ = rolls_back_slowly(server, space, "contested")
    two = next(found["imageTag"] for found in server.history("contested") if found["kind"] == "deploy")
    space.kubectl("set", "image", "deployment/contested", f"contested={two}", "--field-manager=pipeline")
    operation = server.ended(id_)
    assert operation["error"]["reason"] == "superseded"
    assert "pipeline" in operation["error"]["message"]
    assert space.images("contested")["contested"] == two
    until(lambda: app.answers() == {"two"}, "the other's version")


def test_a_deployment_that_is_deleted_meanwhile_is_named(server: NornServer, space: Namespace) -> None:
    _, id_ = rolls_back_slowly(server, space, "removed")
    space.kubectl("delete", "deployment", "removed")
    operation = server.ended(id_)
    assert operation["error"]["reason"] == "deleted"


def test_a_pause_in_the_middle_is_named(server: NornServer, space: Namespace) -> None:
    _, id_ = rolls_back_slowly(server, space, "halted")
    space.kubectl("rollout", "pause", "deployment/halted")
    operation = server.ended(id_)
    assert operation["error"]["reason"] == "paused"


def test_an_autoscaler_that_scales_meanwhile_is_named_and_left_to_it(server: NornServer, space: Namespace) -> None:
    waits = (
        "import urllib.request\n"
        "while os.environ.get('GATE'):\n"
        "    try: urllib.request.urlopen(os.environ['GATE']); break\n"
        "    except OSError: time.sleep(0.5)\n"
    )
    app = two_versions(server, space, "elastic", first=waits, timeout="240s")
    scaled = threading.Event()

    def printed() -> str:
        return "".join(step["output"] for step in server.operation(id_)["steps"] if step["step"] == "rollout")

    with gatekeeper(lambda _: scaled.is_set()) as gate:
        space.kubectl("set", "env", "deployment/elastic", f"GATE={gate}")
        space.kubectl("rollout", "status", "deployment/elastic", "--timeout=150s")
        id_ = server.api("POST", "/api/apps/elastic/rollback").body["id"]
        until(lambda: "available" in printed(), "the watch of the rollout")
        space.kubectl("autoscale", "deployment/elastic", "--min=2", "--max=3", "--name=elastic-scaler")
        told = "HorizontalPodAutoscaler elastic-scaler has changed the replicas from 1 to 2"
        until(lambda: told in printed(), "a word on the scaling")
        scaled.set()
        operation = server.ended(id_, timeout_s=240)
    assert operation["status"] == "succeeded", operation["error"]
    assert space.deployment("elastic")["spec"]["replicas"] == 2
    assert app.answers() == {"one"}


def test_pods_that_no_node_takes_are_shown_at_once_and_fail_at_the_timeout(
    server: NornServer, space: Namespace
) -> None:
    app = two_versions(server, space, "homeless", timeout="45s")
    patch = {"spec": {"template": {"spec": {"nodeSelector": {"example.com/none": "such"}}}}}
    space.kubectl("patch", "deployment/homeless", f"--patch={json.dumps(patch)}")
    failed = server.norn("rollback", "homeless")
    assert failed.exit_status == 1
    assert failed.json()["error"]["reason"] == "unschedulable"
    assert "two" in app.answers()


def test_a_missing_secret_fails_at_once_with_its_name(server: NornServer, space: Namespace) -> None:
    two_versions(server, space, "keyless")
    patch = [
        {
            "op": "add",
            "path": "/spec/template/spec/containers/0/env/-",
            "value": {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keyless-vault", "key": "key"}}},
        }
    ]
    space.kubectl("patch", "deployment/keyless", "--type=json", f"--patch={json.dumps(patch)}")
    failed = server.norn("rollback", "keyless")
    assert failed.exit_status == 1
    assert failed.json()["error"]["reason"] == "config_error"
    assert "keyless-vault" in failed.err


def full(space: Namespace) -> bool:
    """Whether a pod more would be refused: a quota is in force only after its controller has counted once."""
    more = ["kubectl", "--namespace", space.name, "run", "more", "--image=none", "--dry-run=server"]
    return "exceeded quota" in subprocess.run(more, capture_output=True, text=True, check=False).stderr


def test_a_full_namespace_is_named_in_the_controllers_words(server: NornServer, space: Namespace) -> None:
    two_versions(server, space, "crowded", timeout="45s")
    space.kubectl("create", "quota", "crowded", "--hard=pods=1")
    try:
        until(lambda: full(space), "the quota to be in force")
        failed = server.norn("rollback", "crowded")
    finally:
        space.kubectl("delete", "quota", "crowded")
    assert failed.exit_status == 1
    assert failed.json()["error"]["reason"] == "quota"
    assert "exceeded quota" in failed.err


# ---- the template ------------------------------------------------------------------------------------------------


def test_with_template_the_whole_pod_template_comes_back(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "whole", more="env: {COLOUR: blue}\n")
    app.deploy("one")
    before = space.deployment("whole")["spec"]["template"]
    app.spec("env: {COLOUR: red}\n")
    app.deploy("two")
    back = server.norn("rollback", "whole", "--template")
    assert back.exit_status == 0, back.err
    assert space.deployment("whole")["spec"]["template"] == before


def test_a_paused_rollout_can_be_resumed_with_the_whole_template(server: NornServer, space: Namespace) -> None:
    app = two_versions(server, space, "asleep")
    space.kubectl("rollout", "pause", "deployment/asleep")
    until(lambda: server.api("POST", "/api/apps/asleep/rollback", {"dryRun": True}).status == 409, "the pause")
    assert server.norn("rollback", "asleep", "--template").exit_status == 4
    back = server.norn("rollback", "asleep", "--template", "--resume")
    assert back.exit_status == 0, back.err
    assert app.answers() == {"one"}
    assert not space.deployment("asleep")["spec"].get("paused")


def test_a_container_that_the_template_has_lost_points_to_the_template(server: NornServer, space: Namespace) -> None:
    two_versions(server, space, "renamed")
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "other"}]
    space.kubectl("patch", "deployment/renamed", "--type=json", f"--patch={json.dumps(patch)}")
    space.kubectl("rollout", "status", "deployment/renamed", "--timeout=150s")
    refused = server.norn("rollback", "renamed")
    assert (refused.exit_status, refused.json()["verdict"]["findings"][0]["code"]) == (4, "template_incompatible")
    assert "--template" in refused.err
    failed = server.norn("rollback", "renamed", "--force")
    assert failed.exit_status == 1
    assert "--template" in failed.err


def test_what_is_different_about_the_way_it_is_run_is_named(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "probed", more="env: {COLOUR: blue}\n")
    app.deploy("one")
    spec = app.path / "infraspec.yaml"
    spec.write_text(spec.read_text().replace("blue", "red").replace("healthcheck: /health", "healthcheck: /uid"))
    app.deploy("two")
    steps = server.operation(server.history("probed")[0]["id"])["steps"]
    foreseen = next(step["output"] for step in steps if step["step"] == "migrate")
    assert "unsafe template_incompatible" in foreseen, "before anything is switched"
    assert "env COLOUR, infraspec healthcheck changed" in foreseen
    findings = {each["code"]: each for each in server.norn("rollback", "probed").json()["verdict"]["findings"]}
    probes = [f"{kind}Probe of probed" for kind in ("liveness", "readiness", "startup")]
    assert findings["template_incompatible"]["different"] == probes
    assert "env COLOUR" in findings["configuration_changed"]["changed"]
    back = server.norn("rollback", "probed", "--template")
    assert back.exit_status == 0, back.err
