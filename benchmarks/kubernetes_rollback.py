"""A rollback on a real cluster against `kubectl rollout undo`, in one run. Wants KUBECONFIG, kubectl and a registry."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from tests.fixtures.clusters import REGISTRY, ClusterApp, Namespace, namespace
from tests.fixtures.norn import NornServer, served, until
from tests.fixtures.own_database import database

from benchmarks.installed import compile_modules
from benchmarks.report import show

ROUNDS = 24
REQUESTS = 24
WHOLE_ROUNDS = 4
APPS = 100
REACH_COMMAND, REACH_PATCH_MS, REACH_MANY, REACH_VERDICT_S = 0.8, 15.0, 0.5, 5.0
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
NORN = str(Path(sys.executable).with_name("norn"))
MANY = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app.kubernetes.io/name: {name}}}}}
  template:
    metadata: {{labels: {{app.kubernetes.io/name: {name}}}}}
    spec: {{containers: [{{name: {name}, image: "{image}"}}]}}
---
"""


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def run(argv: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(argv, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, (argv, done.stderr.decode())


def idle(server: NornServer, app: str) -> None:
    until(lambda: server.status(app)["operation"] is None, "the end of the operation")
    time.sleep(0.5)


def known(server: NornServer, app: str, tag: str) -> None:
    """The verdict on going to a version is up to date, as `norn status` and the page keep that on the target."""
    assert server.api("POST", f"/api/apps/{app}/rollback", {"imageTag": tag, "dryRun": True}).status == 200


def sent_and_reply(server: NornServer, app: str, tag: str) -> tuple[datetime, Any]:
    """When a request for a rollback was sent on an open connection, and the answer."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json", "Prefer": "wait=5"}
    connection.request("GET", "/api/health")
    connection.getresponse().read()
    body = json.dumps({"imageTag": tag})
    at = datetime.now().astimezone()
    connection.request("POST", f"/api/apps/{app}/rollback", body, headers)
    reply = json.load(connection.getresponse())
    connection.close()
    return at, reply


class ApiServer:
    """The API server, asked by a program that does nothing else: what a patch takes at the least."""

    def __init__(self, space: Namespace) -> None:
        config = yaml.safe_load(space.kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        trusted = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._path = f"/apis/apps/v1/namespaces/{space.name}/deployments/"
        self._headers = {
            "Authorization": f"Bearer {config['users'][0]['user']['token']}",
            "Content-Type": "application/json-patch+json",
        }
        host = cluster["server"].removeprefix("https://")
        self._connection = HTTPSConnection(host, context=ssl.create_default_context(cadata=trusted))

    def patch(self, app: str) -> float:
        """Seconds for one annotation."""
        operations = [{"op": "add", "path": "/metadata/annotations/bench", "value": str(time.time())}]
        began = time.perf_counter()
        self._connection.request("PATCH", self._path + app, json.dumps(operations), self._headers)
        reply = self._connection.getresponse()
        assert reply.status == 200, reply.read()
        reply.read()
        return time.perf_counter() - began


def undo(space: Namespace, app: str) -> list[str]:
    return ["kubectl", "--namespace", space.name, "rollout", "undo", f"deployment/{app}"]


def patch_times(server: NornServer) -> dict[str, datetime]:
    """When each operation's patch was accepted, from the server's log."""
    found = {}
    for line in server.log.read_text().splitlines():
        if '"patch_accepted"' in line:
            event = json.loads(line)
            found[event["operation"]] = datetime.fromisoformat(event["timestamp"])
    return found


def the_command(server: NornServer, space: Namespace) -> None:
    """The command, on an app of one replica."""
    compile_modules()
    app = ClusterApp(server, space, "single")
    tags = [app.deploy("one"), app.deploy("two")]
    commands, undos = [], []
    for number in range(ROUNDS):
        argv = [NORN, "rollback", "single", "--to", tags[number % 2], "--no-wait"]
        known(server, "single", tags[number % 2])
        commands.append(timed(lambda argv=argv: run(argv, server.environment)))  # type: ignore[misc]
        idle(server, "single")
        undos.append(timed(lambda: run(undo(space, "single"))))
        run(["kubectl", "--namespace", space.name, "rollout", "status", "deployment/single"])
        server.norn("rollback", "single", "--to", tags[number % 2])
        idle(server, "single")
    ratio = median(commands) / median(undos)
    show(
        "rollback_command",
        {
            "nornMs": round(median(commands) * 1e3, 1),
            "kubectlMs": round(median(undos) * 1e3, 1),
            "ratio": round(ratio, 2),
        },
        reach=f"at most {REACH_COMMAND} times kubectl rollout undo",
        reached=ratio <= REACH_COMMAND,
    )


def the_request(server: NornServer, space: Namespace) -> None:
    """The server's part of it. Nothing else is at work: a process that starts takes the caches of both processors."""
    app = ClusterApp(server, space, "warm")
    tags = [app.deploy("one"), app.deploy("two")]
    bare, sent = [], {}
    api_server = ApiServer(space)
    api_server.patch("warm")
    for number in range(REQUESTS):
        known(server, "warm", tags[number % 2])
        at, reply = sent_and_reply(server, "warm", tags[number % 2])
        sent[reply["id"]] = at
        idle(server, "warm")
        bare.append(api_server.patch("warm") * 1e3)
    patched = patch_times(server)
    waits = [(patched[id_] - at).total_seconds() * 1e3 for id_, at in sent.items()]
    show(
        "request_to_patch",
        {
            "medianMs": round(median(waits), 1),
            "minMs": round(min(waits), 1),
            "maxMs": round(max(waits), 1),
            "barePatchMs": round(median(bare), 1),
            "timesABarePatch": round(median(waits) / median(bare), 1),
        },
        reach=f"at most {REACH_PATCH_MS:g} ms at the median",
        reached=median(waits) <= REACH_PATCH_MS,
    )


def whole_rollout(server: NornServer, space: Namespace) -> None:
    """From the command to every one of four replicas serving the old image."""
    app = ClusterApp(server, space, "whole", more="replicas: 4\n")
    tags = [app.deploy("one"), app.deploy("two")]
    norn, kubectl = [], []
    for number in range(WHOLE_ROUNDS):
        argv = [NORN, "rollback", "whole", "--to", tags[number % 2]]
        norn.append(timed(lambda argv=argv: run(argv, server.environment)))  # type: ignore[misc]
        idle(server, "whole")
        time.sleep(3)

        def both() -> None:
            run(undo(space, "whole"))
            run(["kubectl", "--namespace", space.name, "rollout", "status", "deployment/whole"])

        kubectl.append(timed(both))
        time.sleep(3)
        server.norn("rollback", "whole", "--to", tags[number % 2])
        idle(server, "whole")
        time.sleep(3)
    ratio = median(norn) / median(kubectl)
    show(
        "command_to_all_replicas",
        {"nornS": round(median(norn), 2), "kubectlS": round(median(kubectl), 2), "ratio": round(ratio, 2)},
        reach="not slower than kubectl rollout undo and rollout status",
        reached=ratio <= 1.05,
    )


def many_at_once(server: NornServer, space: Namespace) -> None:
    """A hundred apps, without replicas: what is measured is the way of the change."""
    app = ClusterApp(server, space, "model")
    app.deploy("one")
    one = space.images("model")["model"]
    app.deploy("two")
    two = space.images("model")["model"]
    names = [f"many-{number:03}" for number in range(APPS)]
    space.kubectl("apply", "-f", "-", stdin="".join(MANY.format(name=name, image=one) for name in names))
    for name in names:
        (server.apps_dir / name).mkdir()
        text = f"app: {name}\nrole: worker\ncommand: python3 work.py\nrollback: {{bake: 0s}}\n"
        (server.apps_dir / name / "infraspec.yaml").write_text(text)
    for name in names:
        reply = server.api("POST", f"/api/apps/{name}/adopt")
        assert reply.status == 202, reply.body
    for name in names:
        idle_now = until(lambda name=name: server.status(name)["operation"] is None, "adoption")  # type: ignore[misc]
        assert idle_now
        space.kubectl("set", "image", f"deployment/{name}", f"{name}={two}")
    settled(space)

    def ask(name: str) -> dict[str, Any]:
        """Until the API server has accepted the patch, which is where kubectl's command ends, too."""
        reply = server.api("POST", f"/api/apps/{name}/rollback", Prefer="wait=60")
        assert reply.status == 202, reply.body
        body: dict[str, Any] = reply.body
        return body

    began = time.perf_counter()
    with ThreadPoolExecutor(APPS) as pool:
        asked = list(pool.map(ask, names))
    took = time.perf_counter() - began
    assert all(accepted["accepted"] for accepted in asked)
    for accepted in asked:
        until(lambda accepted=accepted: server.operation(accepted["id"])["committed"], "the rollout", 120)  # type: ignore[misc]
    until_all = time.perf_counter() - began
    images = {found["metadata"]["name"]: found["spec"]["template"]["spec"]["containers"][0]["image"]
              for found in space.all("deployments") if found["metadata"]["name"] in names}  # fmt: skip
    done = sum(image == one for image in images.values())
    settled(space)
    with ThreadPoolExecutor(8) as pool:
        theirs = timed(lambda: list(pool.map(lambda name: run(undo(space, name)), names)))
    ratio = took / theirs
    show(
        "a_hundred_at_once",
        {
            "done": done,
            "untilAllRolledOutS": round(until_all, 2),
            "nornS": round(took, 2),
            "kubectlS": round(theirs, 2),
            "ratio": round(ratio, 2),
        },
        reach=f"all of {APPS}, at most {REACH_MANY} times kubectl rollout undo 8 at a time",
        reached=done == APPS and ratio <= REACH_MANY,
    )


def settled(space: Namespace) -> None:
    """The controller, which makes so many requests a second and no more, has seen every change."""

    def look() -> bool:
        found = space.all("deployments")
        return all(one["status"].get("observedGeneration") == one["metadata"]["generation"] for one in found)

    until(look, "the controller", 180)


def crash_loop(server: NornServer, space: Namespace) -> None:
    """From the kubelet's first report of a crash to the verdict."""
    app = ClusterApp(server, space, "crashing")
    app.deploy("one", extra='if os.environ.get("BREAK"): os._exit(3)')
    app.deploy("two")
    space.kubectl("set", "env", "deployment/crashing", "BREAK=yes")
    space.kubectl("rollout", "status", "deployment/crashing")
    verdict_after("crash_to_verdict", app, "terminated")


def bad_image(server: NornServer, space: Namespace) -> None:
    """The same of an image that the registry knows, and that no node can pull."""
    app = ClusterApp(server, space, "unpullable")
    app.deploy("one")
    app.deploy("two")
    good = server.history("unpullable")[-1]["digest"]
    bad = with_a_lost_layer(f"{REGISTRY}/unpullable", good)
    with database(server) as connection:
        connection.execute(
            "UPDATE deployments SET digest = %(bad)s, workload = replace(workload::text, %(good)s, %(bad)s)::jsonb "
            "WHERE digest = %(good)s",
            {"bad": bad, "good": good},
        )
    verdict_after("bad_image_to_verdict", app, "ErrImagePull")


def with_a_lost_layer(image: str, digest: str) -> str:
    """An image as that one, of which the registry has lost a layer since it was pushed; its digest."""
    host, repository = image.split("/", 1)
    connection = HTTPConnection(host, timeout=10)

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[HTTPResponse, bytes]:
        connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status < 300, (method, path, answer.status, content)
        return answer, content

    def push(blob: bytes) -> str:
        hashed = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        place = ask("POST", f"/v2/{repository}/blobs/uploads/")[0].headers["Location"].removeprefix(f"http://{host}")
        ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={hashed}", blob)
        return hashed

    answer, text = ask("GET", f"/v2/{repository}/manifests/{digest}", Accept=", ".join(_MANIFESTS))
    manifest, kind = json.loads(text), answer.headers["Content-Type"]
    config = json.loads(ask("GET", f"/v2/{repository}/blobs/{manifest['config']['digest']}")[1])
    layer = os.urandom(64)
    lost = push(layer)
    config["rootfs"]["diff_ids"].append(lost)  # else the node knows the image by its configuration
    changed = json.dumps(config).encode()
    manifest["config"] |= {"digest": push(changed), "size": len(changed)}
    manifest["layers"].append(manifest["layers"][-1] | {"digest": lost, "size": len(layer)})
    body = json.dumps(manifest).encode()
    bad = f"sha256:{hashlib.sha256(body).hexdigest()}"
    ask("PUT", f"/v2/{repository}/manifests/{bad}", body, Content_Type=kind)
    ask("DELETE", f"/v2/{repository}/blobs/{lost}")
    return bad


def verdict_after(name: str, app: ClusterApp, reports: str) -> None:
    """Roll back, and measure from the kubelet's first report of a container with that word in it to the verdict."""
    with reported(app, reports) as seen:
        reply = app.server.api("POST", f"/api/apps/{app.name}/rollback", Prefer="wait=5").body
        until(lambda: app.server.operation(reply["id"])["error"], "the verdict", timeout_s=60)
        judged = time.perf_counter()
        until(lambda: seen, "the kubelet's report")
    took = max(judged - seen[0], 0.0)
    show(
        name,
        {"seconds": round(took, 2)},
        reach=f"at most {REACH_VERDICT_S:g} s after the kubelet's first report",
        reached=took <= REACH_VERDICT_S,
    )


@contextmanager
def reported(app: ClusterApp, word: str) -> Iterator[list[float]]:
    """When the word was in what is said of the app's containers, by `time.perf_counter`."""
    states = "{.status.containerStatuses[*].state}{.status.containerStatuses[*].lastState}{'\\n'}"
    narrowed = ["--namespace", app.space.name, "get", "pods", "--selector", f"app.kubernetes.io/name={app.name}"]
    seen: list[float] = []
    with subprocess.Popen(
        ["kubectl", *narrowed, "--watch", "--output", f"jsonpath={states}"], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        lines = watching.stdout
        lines.readline()  # what runs now: from here on nothing is missed

        def read() -> None:
            seen.extend(time.perf_counter() for line in lines if word in line)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(read)
            try:
                yield seen
            finally:
                watching.terminate()


def main() -> None:
    if not os.environ.get("KUBECONFIG") or shutil.which("kubectl") is None:
        print("kubernetes_rollback: left out, KUBECONFIG names no cluster")
        return
    with namespace() as space, served(**space.settings()) as server:
        for part in (the_command, the_request, whole_rollout, many_at_once, crash_loop, bad_image):
            part(server, space)


if __name__ == "__main__":
    main()
