"""Status, logs, restart, adopting, and rolling back without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from tests.fixtures.clusters import BASE_IMAGE, REGISTRY, ClusterApp, Namespace
from tests.fixtures.norn import NornServer, served, until

FOREIGN = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, annotations: {{example.com/owner: payments}}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app.kubernetes.io/name: {name}}}}}
  template:
    metadata: {{labels: {{app.kubernetes.io/name: {name}}}}}
    spec:
      initContainers:
        - {{name: prepare, image: "{image}", args: [python3, -c, "print('ready')"]}}
      containers:
        - {{name: sidecar, image: "{base}", args: [sleep, "10000"]}}
        - name: {name}
          image: "{image}"
          env: [{{name: PORT, value: "8080"}}, {{name: KIND, value: found}}]
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"""


def foreign(app: ClusterApp, space: Namespace, image: str) -> None:
    """A Deployment as somebody else would have made it, with a sidecar and an init container."""
    text = FOREIGN.format(name=app.name, image=image, base=f"{REGISTRY}/python:3.11")
    space.kubectl("apply", "-f", "-", stdin=text)
    space.kubectl("rollout", "status", f"deployment/{app.name}", "--timeout=150s")


# ---- looking -----------------------------------------------------------------------------------------------------


def test_status_says_why_a_pod_is_not_ready(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "sickly", more="replicas: 2\n")
    app.deploy("one")
    assert server.status("sickly")["health"] | {"message": ""} == {
        "healthy": True, "wanted": 2, "ready": 2, "restarts": 0, "message": "",
    }  # fmt: skip
    pod = space.pods("sickly")[0]["metadata"]["name"]
    space.kubectl("exec", pod, "--", "touch", "/tmp/sick")
    health = until(lambda: (found := server.status("sickly")["health"])["ready"] == 1 and found, "the sick pod")
    assert pod in health["message"]


def test_logs_name_the_pod_and_follow_a_rollout(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "wordy")
    app.deploy("one")
    (pod,) = space.pods("wordy")
    assert f"{pod['metadata']['name']} serving one" in server.norn("logs", "wordy").out
    with server.running("logs", "wordy", "-f") as lines:
        assert next(lines).endswith("serving one\n")
        app.deploy("two")
        assert any(line.endswith("serving two\n") for line in lines)


def test_a_restart_is_of_the_image_that_somebody_has_set_by_hand(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "mended")
    app.deploy("one")
    by_hand = ClusterApp(server, space, "mender").deploy("by hand")
    space.kubectl("set", "image", "deployment/mended", f"mended={by_hand}")
    space.kubectl("rollout", "status", "deployment/mended", "--timeout=150s")
    restarted = server.norn("restart", "mended")
    assert restarted.exit_status == 0, restarted.err
    live = server.status("mended")["live"]
    assert (live["imageTag"], live["deploymentId"]) == (by_hand, None)
    assert app.answers() == {"by hand"}


def test_a_restart_replaces_each_pod_and_is_no_version(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "fresh")
    app.deploy("one")
    before, live = {pod["metadata"]["name"] for pod in space.pods("fresh")}, server.status("fresh")["live"]
    restarted = server.norn("restart", "fresh")
    assert restarted.exit_status == 0, restarted.err
    after = {pod["metadata"]["name"] for pod in space.pods("fresh")}
    assert not before & after
    assert server.status("fresh")["live"] == live
    app.deploy("two")
    back = server.norn("rollback", "fresh")
    assert back.exit_status == 0, back.err
    assert app.answers() == {"one"}


# ---- adopting ----------------------------------------------------------------------------------------------------


def test_adopting_changes_nothing_that_runs_and_begins_the_history(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "found")
    image = ClusterApp(server, space, "origin").deploy("as found")
    foreign(app, space, image)
    before, pods = space.deployment("found"), [pod["metadata"]["name"] for pod in space.pods("found")]
    adopted = server.norn("adopt", "found")
    assert adopted.exit_status == 0, adopted.err
    assert space.deployment("found")["spec"] == before["spec"]
    assert [pod["metadata"]["name"] for pod in space.pods("found")] == pods
    (only,) = server.history("found")
    assert (only["kind"], only["status"], only["imageTag"]) == ("adopt", "deployed", image)
    assert server.norn("adopt", "found").exit_status == 4


def test_of_an_adopted_deployment_only_the_image_is_changed_in_each_container_that_ran_it(
    server: NornServer, space: Namespace
) -> None:
    app = ClusterApp(server, space, "taken", more="env: {KIND: ignored}\nreplicas: 3\n")
    image = ClusterApp(server, space, "taken-origin").deploy("as found")
    foreign(app, space, image)
    before = space.deployment("taken")["spec"]
    app.deploy("ours")
    deployed = space.images("taken")
    assert deployed["taken"] == deployed["prepare"] != image
    assert deployed["sidecar"] == f"{REGISTRY}/python:3.11"
    assert [found["kind"] for found in server.history("taken")] == ["deploy", "adopt"]
    back = server.norn("rollback", "taken")
    assert back.exit_status == 0, back.err
    assert space.deployment("taken")["spec"] == before


# ---- without a server --------------------------------------------------------------------------------------------


def test_without_a_server_a_kubeconfig_is_enough_and_the_next_server_writes_it_down(space: Namespace) -> None:
    with served(**space.settings()) as server:
        app = ClusterApp(server, space, "alone")
        one, two = app.deploy("one"), app.deploy("two")
        server.stop()
        outside = {name: value for name, value in server.environment.items() if name not in ("NORN_HOME", "NORN_URL")}
        argv = [sys.executable, "-m", "norn", "rollback", "alone", "--direct", "--reason", "night"]
        done = subprocess.run(argv, env=outside, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
        reply = json.loads(done.stdout)
        assert (reply["imageTag"], reply["fromImageTag"]) == (one, two)
        assert app.answers() == {"one"}
        again = subprocess.run(argv, env=outside, capture_output=True, text=True, check=False, timeout=240)
        assert again.returncode == 3, again.stderr
        server.start()
        (entry,) = until(lambda: [d for d in server.history("alone") if d["id"] == reply["id"]], "the entry")
        assert (entry["kind"], entry["reason"]) == ("rollback", "night")
        assert server.ended(reply["id"])["status"] == "succeeded"
        live = server.status("alone")["live"]
        assert (live["imageTag"], live["deploymentId"]) == (one, reply["id"])
        replaced = next(found for found in server.history("alone") if found["imageTag"] == two)
        assert replaced["status"] == "rolled_back"
        until(lambda: "norn.dev/direct" not in space.deployment("alone")["metadata"]["annotations"], "the note's end")


def test_of_two_rollbacks_without_a_server_both_are_in_the_history(space: Namespace) -> None:
    with served(**space.settings()) as server:
        app = ClusterApp(server, space, "twice")
        app.deploy("one")
        app.deploy("two")
        two = space.images("twice")["twice"]
        server.stop()
        first = server.norn("rollback", "twice", "--direct").json()["id"]
        space.kubectl("set", "image", "deployment/twice", f"twice={two}")
        second = server.norn("rollback", "twice", "--direct").json()["id"]
        server.start()
        until(lambda: {first, second} <= {found["id"] for found in server.history("twice")}, "both entries")
        assert server.ended(second)["status"] == "succeeded"
        assert server.ended(first)["status"] in ("failed", "cancelled")
        assert app.answers() == {"one"}


def test_without_a_server_a_change_that_has_not_rolled_out_is_undone(space: Namespace) -> None:
    with served(**space.settings()) as server:
        app = ClusterApp(server, space, "halfway")
        app.deploy("one")
        app.commit("two", extra="time.sleep(1000)")
        started = server.api("POST", "/api/apps/halfway/deploy", {})
        until(lambda: server.operation(started.body["id"])["accepted"], "the change")
        server.kill()
        back = server.norn("rollback", "halfway", "--direct")
        assert back.exit_status == 0, back.err
        assert app.answers() == {"one"}
        server.start()
        assert server.ended(started.body["id"])["status"] in ("failed", "cancelled")
        assert server.ended(back.json()["id"])["status"] == "succeeded"
        assert app.answers() == {"one"}


# ---- no cluster --------------------------------------------------------------------------------------------------


def test_without_a_cluster_the_server_serves_and_says_why_it_can_do_nothing(space: Namespace) -> None:
    config = yaml.safe_load(space.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    nowhere = space.directory / "nowhere"
    nowhere.write_text(yaml.safe_dump(config))
    with served(**space.settings() | {"KUBECONFIG": str(nowhere)}) as server:
        app = ClusterApp(server, space, "stranded")
        app.commit("one")
        refused = server.norn("deploy", "stranded")
        assert refused.exit_status == 7
        assert "API server does not answer" in refused.err
        assert server.api("POST", "/api/apps/stranded/rollback").status == 503
        assert server.api("GET", "/api/deployments").status == 200
        assert "does not answer" in server.status("stranded")["problem"]
        assert server.api("GET", "/api/health").body["parts"]["cluster"]["ok"] is False


# ---- the demo ----------------------------------------------------------------------------------------------------


def test_the_demo_comes_back_on_the_cluster_too(space: Namespace) -> None:
    settings = {name: value for name, value in space.settings().items() if name not in ("NORN_RUNTIME", "KUBECONFIG")}
    argv = [sys.executable, "-m", "norn", "demo", "--runtime", "kubernetes", "--base-image", BASE_IMAGE]
    with tempfile.TemporaryDirectory(prefix="norn-test-") as directory:
        Path(directory).chmod(0o755)
        environment = os.environ | settings | {"TMPDIR": directory}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "The good version answers again, with the data of then." in done.stdout
        assert list(Path(directory).iterdir()) == []
    assert space.get("deployment", "guestbook") is None
