"""The copy of the namespace, and the watch of a rollout, where the API server is silent, late or refuses."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from tests.fixtures.turns import turn

from norn.adapters.kubernetes import client, jobs, rollouts
from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.jobs import JobRun
from norn.adapters.kubernetes.others import Others
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import (
    DaemonSet,
    Deployment,
    Job,
    Kind,
    Object,
    Pod,
    ReplicaSet,
    StatefulSet,
    name_of,
)
from norn.adapters.kubernetes.rollouts import RolloutWatch
from norn.adapters.kubernetes.runtime import KubernetesRuntime
from norn.adapters.kubernetes.workload import Note, Workload
from norn.errors import ClusterRefused, NornError, RuntimeUnavailable

IMAGE = "r/web@sha256:" + "1" * 64
NOTE = Note("change", "r/web:1", "sha256:" + "1" * 64, {"containers/web": IMAGE})
TEMPLATE = {"spec": {"containers": [{"name": "web", "image": IMAGE}]}}
REVISION = {"deployment.kubernetes.io/revision": "1"}
COMPLETE = {
    "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
}  # fmt: skip
FORBIDDEN = ClusterRefused("RBAC: not yet", clusterStatus=403)
AWAY = RuntimeUnavailable("The Kubernetes API server does not answer.")


def deployment(version: int = 1, **status: int) -> Object:
    notes = {"norn.dev/deployment": "change", "norn.dev/change": NOTE.to_text()} | REVISION
    return {
        "metadata": {
            "name": "web", "uid": "u", "generation": 1, "resourceVersion": str(version), "annotations": notes,
        },
        "spec": {"replicas": 1, "template": TEMPLATE, "selector": {"matchLabels": {"app": "web"}}},
        "status": COMPLETE | status,
    }  # fmt: skip


def owned(name: str, kind: str, owner: str, version: int = 1, **more: Any) -> Object:
    owners = [{"kind": kind, "name": owner, "controller": True, "uid": "u"}]
    metadata = {"name": name, "resourceVersion": str(version), "ownerReferences": owners, "annotations": REVISION}
    return {"metadata": metadata} | more


REPLICA_SET = owned(
    "web-1", "Deployment", "web", spec={"template": TEMPLATE}, status={"replicas": 1, "availableReplicas": 1}
)
POD = owned("web-1-a", "ReplicaSet", "web-1", status={"conditions": [{"type": "Ready", "status": "True"}]})


class Listed:
    """What lightkube's `list` gives back."""

    resourceVersion = "9"  # noqa: N815

    def __init__(self, objects: Sequence[Object], meanwhile: Callable[[], None]) -> None:
        self._objects = objects
        self._meanwhile = meanwhile

    async def __aiter__(self) -> AsyncIterator[Object]:
        self._meanwhile()
        for obj in self._objects:
            yield obj


class FakeCluster(Cluster):
    """An API server that has these objects, and says what `answers` has first."""

    def __init__(self, *answers: NornError) -> None:
        super().__init__("default")
        self.objects: dict[Kind, list[Object]] = {Deployment: [deployment()], ReplicaSet: [REPLICA_SET], Pod: [POD]}
        self.answers: Iterator[NornError] = iter(answers)
        self.meanwhile: Callable[[], None] = lambda: None
        self.lists = 0

    def _refuse(self) -> None:
        if (error := next(self.answers, None)) is not None:
            raise error

    async def get(self, kind: Kind, name: str) -> Object | None:
        self._refuse()
        return next((obj for obj in self.objects[kind] if name_of(obj) == name), None)

    async def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, fields: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        self._refuse()
        self.lists += 1
        self.meanwhile()
        return self.objects.get(kind, [])

    async def create(self, obj: Object, kind: Kind) -> Object | None:
        return obj

    async def json_patch(self, kind: Kind, name: str, operations: Sequence[Object]) -> Object | None:
        return await self.get(kind, name)

    async def delete_as_seen(self, kind: Kind, obj: Object) -> None:
        self.objects[Pod] = []

    @property
    def client(self) -> Any:
        objects, meanwhile = self.objects, self.meanwhile

        class Client:
            def list(self, kind: Kind) -> Listed:
                return Listed(objects[kind], meanwhile)

        return Client()


def relied_upon(mirror: Mirror) -> None:
    """As where the watches have died without a word."""
    mirror._answers = True
    for reflector in mirror._reflectors:
        reflector.current = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK_EVERY_S", "_BEHIND_S", "_LIST_EVERY_S"):
        monkeypatch.setattr(rollouts, name, 0.02)
    monkeypatch.setattr(client, "_PAUSES_S", (0.01,))


def agreeing(cluster: Cluster, **status: int) -> Mirror:
    """A copy with a Deployment of that status, and its ReplicaSet and pod."""
    mirror = Mirror(cluster)
    relied_upon(mirror)
    mirror.deployments.put(deployment(**status))
    mirror.replica_sets.put(REPLICA_SET)
    mirror.pods.put(POD)
    return mirror


async def watched(
    cluster: Cluster, mirror: Mirror, timeout_s: float = 60, output: Callable[[str], None] = lambda _: None
) -> Workload:
    return await RolloutWatch(cluster, mirror, "web", "change", output).to_the_end(None, timeout_s)


# ---- silence -----------------------------------------------------------------------------------------------------


async def test_pods_of_a_silent_watch_are_listed_where_the_deployment_is_complete() -> None:
    cluster = FakeCluster()
    mirror = Mirror(cluster)
    relied_upon(mirror)
    mirror.deployments.put(deployment())
    assert (await watched(cluster, mirror)).name == "web"


async def test_a_copy_from_before_the_change_is_no_proof_of_another_one() -> None:
    mirror = Mirror(FakeCluster())
    relied_upon(mirror)
    old = deployment(0)
    old["metadata"]["annotations"] |= {"norn.dev/deployment": "earlier"}
    mirror.deployments.put(old)
    assert (await watched(mirror._cluster, mirror)).name == "web"


async def test_pods_that_agree_with_the_deployment_are_not_listed() -> None:
    cluster = FakeCluster()
    await watched(cluster, agreeing(cluster))
    assert cluster.lists == 0


async def test_each_pod_is_named_when_it_becomes_ready_and_when_it_is_so_no_more() -> None:
    cluster, printed = FakeCluster(), list[str]()
    mirror = agreeing(cluster, availableReplicas=0)

    def hear(line: str) -> None:
        printed.append(line.strip())
        if printed.count("web-1-a is ready (1 of 1)") == 1 and "web-1-a is not ready any more (0 of 1)" not in printed:
            mirror.pods.put(owned("web-1-a", "ReplicaSet", "web-1", 2, status={}))
        elif "web-1-a is not ready any more (0 of 1)" in printed:
            mirror.pods.put(POD | {"metadata": POD["metadata"] | {"resourceVersion": "3"}})
            cluster.objects[Deployment] = [deployment(2)]

    await watched(cluster, mirror, output=hear)
    assert [line for line in printed if "ready" in line] == [
        "web-1-a is ready (1 of 1)", "web-1-a is not ready any more (0 of 1)", "web-1-a is ready (1 of 1)",
    ]  # fmt: skip


async def test_the_pods_of_before_are_not_named_as_the_new_ones() -> None:
    """Where the image stays, they are those of the newest ReplicaSet until the controller has seen the change."""
    cluster, printed = FakeCluster(), list[str]()
    mirror = agreeing(cluster, observedGeneration=0)

    def hear(line: str) -> None:
        printed.append(line.strip())
        cluster.objects[Deployment] = [deployment(2)]
        mirror.pods.drop(POD)
        mirror.pods.put(owned("web-1-b", "ReplicaSet", "web-1", status=POD["status"]))

    await watched(cluster, mirror, output=hear)
    assert [line for line in printed if "ready" in line] == ["web-1-b is ready (1 of 1)"]


# ---- what else runs an image -------------------------------------------------------------------------------------


def stateful(name: str, image: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"template": {"spec": {"containers": [{"name": "x", "image": image}]}}}}


async def test_what_is_on_a_version_that_the_app_does_not_run_is_not_left_behind() -> None:
    cluster = FakeCluster()
    earlier = Note("before", "r/web:0", "sha256:" + "0" * 64, {"containers/web": "r/web@sha256:" + "0" * 64})
    obj = deployment()
    obj["metadata"]["annotations"]["norn.dev/live"] = earlier.to_text()
    cluster.objects[StatefulSet] = [stateful("worker", "r/web:0"), stateful("cron", "r/web:1")]
    found = await Others(cluster, Mirror(cluster)).on_image_of(Workload(obj))
    assert found.names == ["statefulset/cron"]


async def test_one_kind_that_may_not_be_listed_hides_no_other() -> None:
    cluster = FakeCluster(FORBIDDEN)
    cluster.objects[DaemonSet] = [stateful("agent", IMAGE)]
    found = await Others(cluster, Mirror(cluster)).on_image_of(Workload(deployment()))
    assert (found.names, found.forbidden, found.unseen) == (["daemonset/agent"], ["statefulset"], [])


async def test_a_right_that_an_api_server_has_just_forgotten_is_borne_for_a_while() -> None:
    cluster = FakeCluster()
    cluster.objects[StatefulSet] = [stateful("worker", IMAGE)]
    others = Others(cluster, Mirror(cluster))
    await others.on_image_of(Workload(deployment()))
    cluster.answers = iter([FORBIDDEN])
    found = await others.on_image_of(Workload(deployment()))
    assert (found.names, found.forbidden) == (["statefulset/worker"], [])


async def test_what_the_api_server_does_not_tell_is_unseen() -> None:
    found = await Others(FakeCluster(AWAY, AWAY, AWAY), Mirror(FakeCluster())).on_image_of(Workload(deployment()))
    assert found.unseen == ["statefulset", "daemonset", "cronjob"]


async def test_what_is_available_is_what_the_api_server_says_now() -> None:
    runtime = KubernetesRuntime(FakeCluster(), no_environment)
    relied_upon(runtime._mirror)
    assert await runtime.available("web", "change") == 1


async def no_environment(_app: str, _template: object) -> dict[str, str]:
    return {}


# ---- what is kept ------------------------------------------------------------------------------------------------


async def test_who_has_set_which_field_is_kept_of_deployments_alone() -> None:
    """There are many ReplicaSets and pods, and nobody asks."""
    cluster, fields = FakeCluster(), [{"manager": "kubectl"}]
    mirror = Mirror(cluster)
    for reflector, obj in ((mirror.deployments, deployment()), (mirror.replica_sets, copy.deepcopy(REPLICA_SET)),
                           (mirror.pods, copy.deepcopy(POD))):  # fmt: skip
        obj["metadata"]["managedFields"] = fields
        cluster.objects[reflector._kind] = [copy.deepcopy(obj)]
        reflector.put(obj)
    for _ in ("put", "listed"):
        kept = [next(reflector.everything())["metadata"].get("managedFields") for reflector in mirror._reflectors]
        assert kept == [fields, None, None]
        for reflector in mirror._reflectors:
            await reflector._list()


# ---- a list, and what happens meanwhile --------------------------------------------------------------------------


async def test_a_change_that_was_accepted_during_a_list_stays() -> None:
    cluster = FakeCluster()
    reflector = Mirror(cluster).deployments
    reflector.put(deployment(1))
    cluster.meanwhile = lambda: reflector.put(deployment(7))
    await reflector._list()
    assert reflector.of("web")["web"]["metadata"]["resourceVersion"] == "7"


async def test_a_list_is_newer_than_what_was_known_before_it() -> None:
    """Even with a smaller version: the cluster's data may have been restored from a backup."""
    cluster = FakeCluster()
    reflector = Mirror(cluster).deployments
    reflector.put(deployment(7))
    await reflector._list()
    assert reflector.of("web")["web"]["metadata"]["resourceVersion"] == "1"


async def test_what_was_put_before_a_list_and_is_not_in_it_is_gone() -> None:
    cluster = FakeCluster()
    reflector = Mirror(cluster).deployments
    reflector.put(deployment(1))
    cluster.objects[Deployment] = []
    await reflector._list()
    assert not reflector.of("web")


async def test_what_went_away_during_a_list_of_one_app_stays_away() -> None:
    cluster = FakeCluster()
    mirror = Mirror(cluster)
    mirror.pods.put(POD)
    cluster.meanwhile = lambda: mirror.pods.drop(POD)
    await mirror.look(deployment())
    assert not mirror.pods.of("web")


async def test_a_list_of_one_app_leaves_the_others_alone() -> None:
    mirror = Mirror(FakeCluster())
    mirror.pods.put(owned("api-1-a", "ReplicaSet", "api-1"))
    await mirror.look(deployment())
    assert set(mirror.pods.of("api")) == {"api-1-a"}
    assert set(mirror.pods.of("web")) == {"web-1-a"}


# ---- refusals that pass ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_during_the_watch_is_tried_again(status: int) -> None:
    refused = ClusterRefused("RBAC: not yet", clusterStatus=status)
    cluster = FakeCluster(refused, refused)
    assert (await watched(cluster, Mirror(cluster))).name == "web"


async def test_a_refusal_that_lasts_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "REFUSED_S", 0.1)
    cluster = FakeCluster(*[FORBIDDEN] * 1000)
    with pytest.raises(ClusterRefused, match="not yet"):
        await watched(cluster, Mirror(cluster))


@pytest.mark.parametrize(
    ("answers", "allowed"), [([FORBIDDEN, FORBIDDEN], True), ([AWAY, FORBIDDEN, FORBIDDEN], False)]
)
async def test_a_refusal_is_borne_where_the_right_was_there_or_the_api_server_was_away(
    answers: list[NornError], allowed: bool
) -> None:
    cluster = FakeCluster(*answers)
    assert await cluster.patiently(lambda: cluster.get(Deployment, "web"), allowed=allowed) is not None


async def test_a_refusal_at_the_start_is_said_at_once() -> None:
    cluster = FakeCluster(FORBIDDEN)
    with pytest.raises(ClusterRefused):
        await cluster.patiently(lambda: cluster.get(Deployment, "web"))


async def test_another_refusal_is_said_at_once() -> None:
    cluster = FakeCluster(ClusterRefused("exceeded quota", clusterStatus=422))
    with pytest.raises(ClusterRefused):
        await cluster.patiently(lambda: cluster.get(Deployment, "web"), allowed=True)  # asked again it would not refuse


async def unread(*refused: Any, **_more: Any) -> AsyncIterator[str]:
    if refused:
        raise FORBIDDEN
    yield ""


async def test_a_job_is_followed_to_its_end_through_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "container_lines", unread)
    ended = {"name": "migrate", "state": {"terminated": {"exitCode": 0}}}
    pod = {"metadata": {"name": "job-a"}, "spec": {"containers": [{"name": "migrate"}]},
           "status": {"containerStatuses": [ended]}}  # fmt: skip
    cluster = FakeCluster(FORBIDDEN, FORBIDDEN)
    job = {"metadata": {"name": "job", "uid": "1"}, "spec": {"parallelism": 1}}
    cluster.objects |= {Job: [job], Pod: [pod]}
    printed: list[str] = []
    await JobRun(cluster, job, printed.append).run(turn())
    assert printed == ["[the end of its log could not be read]\n"]
