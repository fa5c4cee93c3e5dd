"""What else in the namespace runs an app's image, against the real API server and with Norn's own role."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.cluster.test_watching import made, no_environment
from tests.fixtures.clusters import BASE_IMAGE, ROOT, ClusterApp, Namespace, namespace
from tests.fixtures.norn import PATIENCE_S, NornServer

from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.runtime import KubernetesRuntime
from norn.domain.verdict import Finding

LABELS = {"example.com/beside": "yes"}


def pod(image: str, restart: str = "Always") -> dict[str, Any]:
    container = {"name": "beside", "image": image, "command": ["sleep", "infinity"]}
    return {"metadata": {"labels": LABELS}, "spec": {"restartPolicy": restart, "containers": [container]}}


def kinds(image: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Version and spec of one of each kind; none of them starts a pod."""
    called = {"selector": {"matchLabels": LABELS}, "template": pod(image)}
    nowhere = pod(image)
    nowhere["spec"]["nodeSelector"] = {"example.com/no-such-node": "yes"}
    job = {"spec": {"template": pod(image, "Never")}}
    return {
        "StatefulSet": ("apps/v1", called | {"replicas": 0, "serviceName": "none"}),
        "DaemonSet": ("apps/v1", called | {"template": nowhere}),
        "CronJob": ("batch/v1beta1", {"schedule": "0 3 1 1 *", "jobTemplate": job}),
    }


def make(space: Namespace, kind: str, image: str) -> None:
    version, spec = kinds(image)[kind]
    obj = {"apiVersion": version, "kind": kind, "metadata": {"name": "beside"}, "spec": spec}
    space.kubectl("apply", "-f", "-", stdin=json.dumps(obj))


async def findings(space: Namespace, app: str) -> list[Finding]:
    """What Norn says with the rights of its role."""
    with pytest.MonkeyPatch.context() as as_norn:
        as_norn.setenv("KUBECONFIG", str(space.kubeconfig))
        cluster = Cluster(space.name)
        assert cluster.client is not None
    try:
        found = await KubernetesRuntime(cluster, no_environment).findings(app)
    finally:
        await cluster.close()
    return [finding for finding in found if finding.code in ("left_behind", "not_checked")]


@pytest.mark.parametrize("by", ["digest", "tag"])
@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "CronJob"])
def test_what_runs_the_same_image_is_named_whatever_its_kind(
    server: NornServer, space: Namespace, kind: str, by: str
) -> None:
    app = ClusterApp(server, space, f"{kind.lower()}-by-{by}")
    tag = app.deploy("one")
    make(space, kind, tag if by == "tag" else space.images(app.name)[app.name])
    try:
        (found,) = asyncio.run(findings(space, app.name))
        assert found.facts["workloads"] == [f"{kind.lower()}/beside"]
        make(space, kind, BASE_IMAGE)
        assert asyncio.run(findings(space, app.name)) == []
    finally:
        space.kubectl("delete", kind, "beside")


async def test_what_norn_may_not_list_is_said_to_be_not_looked_at() -> None:
    rules = (ROOT / "deploy/kubernetes/rbac.yaml").read_text()
    assert "resources: [cronjobs]" in rules
    with namespace() as space:
        narrower = rules.replace("[cronjobs]", "[jobs]").replace("namespace: default", f"namespace: {space.name}")
        await asyncio.to_thread(space.kubectl, "apply", "-f", "-", stdin=narrower)
        await asyncio.to_thread(made, space, "unlisted")
        async with asyncio.timeout(PATIENCE_S):  # the API server has to hear of the narrower role first
            while not (found := await findings(space, "unlisted")):
                await asyncio.sleep(0.1)
    assert [finding.message for finding in found] == [
        "What else runs its image was not checked: Norn may not list cronjobs."
    ]
