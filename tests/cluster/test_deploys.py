"""Deploying to a real cluster: what is made, what is left alone, and how it fails."""

from __future__ import annotations

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from secrets import token_hex

import pytest
from tests.fixtures.clusters import BASE_IMAGE, REGISTRY, ROOT, ClusterApp, Namespace, get
from tests.fixtures.norn import PATIENCE_S, NornServer, until

from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.manifests import own_secret, secret
from norn.adapters.kubernetes.resources import Secret
from norn.adapters.kubernetes.secrets import KubernetesSecrets
from norn.errors import ClusterRefused


def test_the_first_deploy_makes_what_the_infraspec_declares(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(
        server, space, "first", more="replicas: 2\nenv: {COLOUR: blue}\nhosts: {internal: first-web}\n", timeout="90s"
    )
    app.deploy("one")
    made = space.deployment("first")
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert made["spec"]["replicas"] == 2
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert container["startupProbe"]["failureThreshold"] == 90
    assert container["livenessProbe"]["httpGet"]["port"] == 8080
    assert {"name": "COLOUR", "value": "blue"} in container["env"]
    assert [found["secretRef"]["name"] for found in container["envFrom"]] == ["first-norn", "first-secrets"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    service = space.get("service", "first-web")
    assert service is not None
    assert get(service["spec"]["clusterIP"], 8080) == "one"
    assert app.answers() == {"one"}
    assert space.all("ingress") == []


def test_the_digest_runs_and_the_tag_is_what_people_see(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "digests")
    tag = app.deploy("one")
    live = server.status("digests")["live"]
    assert live["imageTag"] == tag
    assert space.images("digests")["digests"] == f"{tag.rpartition(':')[0]}@{live['digest']}"
    (pod,) = space.pods("digests")
    assert pod["status"]["containerStatuses"][0]["imageID"].endswith(live["digest"])


def test_norns_notes_are_on_the_object_and_not_in_the_pod_template(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "notes")
    tag = app.deploy("one")
    made = space.deployment("notes")
    assert made["metadata"]["annotations"]["norn.dev/image"] == tag
    assert made["metadata"]["annotations"]["norn.dev/deployment"] == server.status("notes")["live"]["deploymentId"]
    assert "annotations" not in made["spec"]["template"]["metadata"]


def test_an_old_image_never_runs_under_a_new_command(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "commands")
    app.deploy("one")
    spec = app.path / "infraspec.yaml"
    spec.write_text(spec.read_text().replace("server.py", "renamed.py"))
    app.commit("two")
    (app.path / "server.py").rename(app.path / "renamed.py")
    app.git("add", "-A")
    app.git("commit", "-q", "-m", "renamed")
    server.deploy("commands")
    assert app.answers() == {"two"}
    assert server.norn("rollback", "commands").exit_status == 0
    assert app.answers() == {"one"}
    (container,) = space.deployment("commands")["spec"]["template"]["spec"]["containers"]
    assert "command" not in container
    assert "args" not in container


def test_a_later_deploy_leaves_alone_what_others_have_added(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "shared", more="env: {COLOUR: blue}\n")
    app.deploy("one")
    space.kubectl("scale", "deployment/shared", "--replicas=2")
    space.kubectl("set", "env", "deployment/shared", "ADDED=by-hand")
    space.kubectl("rollout", "status", "deployment/shared", "--timeout=150s")
    app.spec("replicas: 1\nenv: {COLOUR: red}\n")
    app.deploy("two")
    made = space.deployment("shared")
    env = {found["name"]: found["value"] for found in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert (made["spec"]["replicas"], env["ADDED"], env["COLOUR"]) == (2, "by-hand", "red")


def test_what_others_have_set_otherwise_is_named_and_not_overwritten(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "disputed", more="env: {COLOUR: blue}\n")
    app.deploy("one")
    space.kubectl("set", "env", "deployment/disputed", "COLOUR=green", "--field-manager=colleague")
    space.kubectl("rollout", "status", "deployment/disputed", "--timeout=150s")
    app.commit("two")
    refused = server.norn("deploy", "disputed")
    assert refused.exit_status == 4, refused.err
    assert "COLOUR" in refused.err
    assert "colleague" in refused.err
    forced = server.norn("deploy", "disputed", "--force")
    assert forced.exit_status == 0, forced.err
    (container,) = space.deployment("disputed")["spec"]["template"]["spec"]["containers"]
    assert {"name": "COLOUR", "value": "blue"} in container["env"]


def test_a_deploy_after_a_rollback_does_not_conflict_with_norn_itself(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "again")
    app.deploy("one")
    app.deploy("two")
    assert server.norn("rollback", "again").exit_status == 0
    app.deploy("three")
    assert app.answers() == {"three"}


def test_secrets_reach_the_pods_and_are_listed_only_where_norn_may_read_them(
    server: NornServer, space: Namespace
) -> None:
    app = ClusterApp(server, space, "discreet", more="secrets: [SMTP_KEY]\n")
    assert server.norn("secrets", "set", "discreet", "SMTP_KEY", stdin="s3cr\u00e9t").exit_status == 0
    assert server.norn("secrets", "set", "discreet", "OTHER", stdin="x").exit_status == 0
    app.deploy("one")
    (pod,) = space.pods("discreet")
    assert "SMTP_KEY=s3cr\u00e9t" in get(pod["status"]["podIP"], 8080, "/env")
    refused = server.norn("secrets", "list", "discreet")
    assert refused.exit_status == 8
    assert "norn-read-secrets" in refused.err
    space.kubectl(
        "patch", "role", "norn-read-secrets", "--type=json",
        '--patch=[{"op": "add", "path": "/rules/0/resourceNames/-", "value": "discreet-secrets"}]',
    )  # fmt: skip
    until(lambda: server.norn("secrets", "list", "discreet").exit_status == 0, "the right to read")
    assert server.norn("secrets", "list", "discreet").json()["secrets"] == ["OTHER", "SMTP_KEY"]
    assert server.norn("secrets", "unset", "discreet", "OTHER").exit_status == 0
    assert server.norn("secrets", "unset", "discreet", "OTHER").exit_status == 3


async def test_patching_may_be_narrowed_to_the_secrets_of_named_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Namespace()
    try:
        narrow.create()
        rules = (ROOT / "deploy/kubernetes/rbac.yaml").read_text().replace("# resourceNames: [", "resourceNames: [")
        narrow.kubectl("apply", "-f", "-", stdin=rules.replace("namespace: default", f"namespace: {narrow.name}"))
        with monkeypatch.context() as patched:
            patched.setenv("KUBECONFIG", str(narrow.kubeconfig))
            cluster = Cluster(narrow.name)
            values = KubernetesSecrets(cluster)

            async def set_until_it_is_refused() -> None:  # the API server has to hear of the narrower role first
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        await values.set("other", "SMTP_KEY", "x")

            with pytest.raises(ClusterRefused, match="other-secrets"):
                await set_until_it_is_refused()
            await values.set("myapp", "SMTP_KEY", "x")
            await cluster.apply(Secret, secret(own_secret("myapp"), "myapp", {"DATABASE_URL": "x"}), force=True)
            await cluster.close()
    finally:
        narrow.remove()


def test_a_worker_has_neither_port_nor_probes(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "toiler")
    text = "app: toiler\nrole: worker\ncommand: python3 -u work.py\nrollback: {bake: 0s}\n"
    (app.path / "infraspec.yaml").write_text(text)
    app.commit("one", files={"work.py": "import time\nprint('at work', flush=True)\ntime.sleep(10_000)\n"})
    server.deploy("toiler")
    (container,) = space.deployment("toiler")["spec"]["template"]["spec"]["containers"]
    assert not {"ports", "readinessProbe", "livenessProbe", "startupProbe"} & set(container)
    until(lambda: "at work" in server.norn("logs", "toiler").out, "its first word")  # it is ready before it has said it


# ---- failing -----------------------------------------------------------------------------------------------------


def test_a_first_deploy_that_does_not_come_up_leaves_nothing(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "stillborn")
    app.commit("one", extra='print("no such thing", flush=True); os._exit(3)')
    failed = server.norn("deploy", "stillborn")
    assert failed.exit_status == 1
    assert "exit status 3" in failed.err
    assert "no such thing" in failed.err
    until(lambda: space.get("deployment", "stillborn") is None, "the end of the Deployment")
    assert server.status("stillborn")["live"] is None


def test_a_failed_deploy_puts_back_the_whole_template_that_was_live(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "careful", more="env: {COLOUR: blue}\n")
    app.deploy("one")
    before = space.deployment("careful")["spec"]["template"]
    app.spec("env: {COLOUR: red}\n")
    app.commit("two", extra="os._exit(3)")
    assert server.norn("deploy", "careful").exit_status == 1
    assert space.deployment("careful")["spec"]["template"] == before
    assert app.answers() == {"one"}
    assert len(space.all("replicasets", "app.kubernetes.io/name=careful")) == 2


def test_without_a_dockerfile_the_build_fails_and_says_what_to_add(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "bare")
    (app.path / "Dockerfile").unlink()
    app.commit("one")
    failed = server.norn("deploy", "bare")
    assert failed.exit_status == 1
    assert "Dockerfile" in failed.err


def test_a_build_that_fails_shows_the_builders_words(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "broken")
    (app.path / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN echo far too early && exit 7\n")
    app.commit("one")
    failed = server.norn("deploy", "broken")
    assert failed.exit_status == 1
    assert "far too early" in failed.err


def test_tests_run_in_the_image_before_anything_is_live(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, "tested", more="build: {test: python3 check.py}\n")
    app.deploy("one", files={"check.py": "print('all is well')\n"})
    step = next(step for step in server.operation(server.history("tested")[0]["id"])["steps"] if step["step"] == "test")
    assert "all is well" in step["output"]
    app.commit("two", files={"check.py": "raise SystemExit('not today')\n"})
    failed = server.norn("deploy", "tested")
    assert failed.exit_status == 1
    assert "not today" in failed.err
    assert app.answers() == {"one"}


def stored(label: str) -> list[str]:
    """The ids of the images in the builder's own store that have a label."""
    argv = ["buildah", "images", "--quiet", "--no-trunc", "--filter", f"label={label}"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.cluster_alone  # builds of others keep images from being removed
def test_apps_are_built_beside_each_other_and_leave_no_more_than_their_newest_layers(
    server: NornServer, space: Namespace
) -> None:
    apps = [ClusterApp(server, space, f"beside-{number}") for number in range(3)]

    def deploy_twice(app: ClusterApp) -> None:
        app.deploy("one")
        app.deploy("two")

    with ThreadPoolExecutor(len(apps)) as pool:
        list(pool.map(deploy_twice, apps))
    for app in apps:
        app.deploy("three")
        assert len(stored(f"norn.dev/app={app.name}")) == 1


def test_retention_deletes_from_the_registry_only_what_is_not_kept(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, f"thrifty-{token_hex(3)}", more="artifacts: {retain: 1}\n")
    digests = [digest_of(app, answer) for answer in ("one", "two", "three")]
    assert [in_registry(app.name, digest) for digest in digests] == [False, True, True], "live, and the way back to it"


def test_retention_leaves_a_repository_alone_in_which_others_have_tags(server: NornServer, space: Namespace) -> None:
    app = ClusterApp(server, space, f"neighbour-{token_hex(3)}", more="artifacts: {retain: 1}\n")
    digests = [digest_of(app, answer) for answer in ("one", "two")]
    tag_as(app.name, digests[0], "theirs")
    digests.append(digest_of(app, "three"))
    assert all(in_registry(app.name, digest) for digest in digests)
    last = server.operation(server.history(app.name)[0]["id"])["steps"][-1]["output"]
    assert "tags that are not this installation's (theirs)" in last


def digest_of(app: ClusterApp, answer: str) -> str:
    app.deploy(answer)
    digest: str = app.server.history(app.name)[0]["digest"]
    return digest


def in_registry(repository: str, digest: str) -> bool:
    status, _, _ = ask_registry("HEAD", f"{repository}/manifests/{digest}")
    return status == 200


def tag_as(repository: str, digest: str, tag: str) -> None:
    _, kind, manifest = ask_registry("GET", f"{repository}/manifests/{digest}")
    assert ask_registry("PUT", f"{repository}/manifests/{tag}", manifest, kind)[0] == 201


def ask_registry(method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, str, bytes]:
    """Status, kind of manifest, and the manifest itself."""
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    headers = {"Accept": accept} | ({"Content-Type": kind} if kind else {})
    with closing(HTTPConnection(REGISTRY, timeout=10)) as connection:
        connection.request(method, f"/v2/{path}", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
