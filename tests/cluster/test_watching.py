"""The copy of the namespace, and changes that are made on an old one, against the real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.cluster.test_operations import FOREIGN
from tests.fixtures.clusters import BASE_IMAGE, Namespace
from tests.fixtures.norn import PATIENCE_S

from norn.adapters.kubernetes.changes import Changes
from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.runtime import KubernetesRuntime
from norn.adapters.kubernetes.workload import Workload
from norn.domain.images import Image
from norn.domain.ports import Switch
from norn.errors import RolloutFailed, Stale

MISSING = "sha256:" + "0" * 64


async def no_environment(_app: str, _template: object) -> dict[str, str]:
    return {}


def made(space: Namespace, name: str, *, replicas: int = 0) -> None:
    text = FOREIGN.format(name=name, image=BASE_IMAGE, base=BASE_IMAGE).replace("replicas: 1", f"replicas: {replicas}")
    space.kubectl("apply", "-f", "-", stdin=text)


async def eventually(condition: Any, what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def mirrored(cluster: Cluster) -> AsyncIterator[Mirror]:
    mirror = Mirror(cluster)
    mirror.start()
    try:
        await eventually(lambda: mirror.current, "the copy")
        yield mirror
    finally:
        await mirror.stop()


async def test_the_copy_follows_what_happens(space: Namespace, cluster: Cluster) -> None:
    async with mirrored(cluster) as mirror:
        await asyncio.to_thread(made, space, "followed")
        await eventually(lambda: "followed" in mirror.deployments.of("followed"), "the new one")
        await asyncio.to_thread(space.kubectl, "delete", "deployment", "followed")
        await eventually(lambda: not mirror.deployments.of("followed"), "its end")


async def test_a_watch_from_too_long_ago_begins_anew(
    space: Namespace, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """410 Gone: the API server does not keep what happened since version 1."""
    mirror = Mirror(cluster)
    listed, real = [0], mirror.deployments._list

    async def list_as_of_long_ago() -> str:
        listed[0] += 1
        version = await real()
        return "1" if listed[0] == 1 else version

    monkeypatch.setattr(mirror.deployments, "_list", list_as_of_long_ago)
    mirror.start()
    try:
        await eventually(lambda: listed[0] >= 2, "another list")
        await asyncio.to_thread(made, space, "after-gone")
        await eventually(lambda: "after-gone" in mirror.deployments.of("after-gone"), "the new one")
    finally:
        await mirror.stop()


async def test_an_older_state_never_replaces_a_newer_one(space: Namespace, cluster: Cluster) -> None:
    await asyncio.to_thread(made, space, "ordered")
    async with mirrored(cluster) as mirror:
        await eventually(lambda: mirror.deployments.of("ordered"), "the object")
        old = mirror.deployments.of("ordered")["ordered"]
        await asyncio.to_thread(space.kubectl, "annotate", "deployment/ordered", "example.com/newer=yes")
        await mirror.refresh("ordered")
        newest = mirror.deployments.of("ordered")["ordered"]
        assert newest["metadata"]["annotations"]["example.com/newer"] == "yes"
        mirror.deployments.put(old)
        assert mirror.deployments.of("ordered")["ordered"] is newest


async def test_a_change_planned_on_an_old_copy_looks_again_and_decides_again(
    space: Namespace, cluster: Cluster
) -> None:
    await asyncio.to_thread(made, space, "outdated")
    runtime = KubernetesRuntime(cluster, no_environment)
    obj = await runtime._mirror.refresh("outdated")
    assert obj is not None
    await asyncio.to_thread(
        space.kubectl,
        "set",
        "image",
        "deployment/outdated",
        f"outdated={BASE_IMAGE}@{MISSING}",
        "--field-manager=other",
    )
    old, looks = Workload(obj), []

    class OldMirror(Mirror):
        async def deployment(self, app: str) -> dict[str, Any]:
            return old.obj

    def refuse(workload: Workload) -> None:
        looks.append(workload.containers["containers/outdated"].image)
        if len(looks) > 1:
            raise Stale("something else is live")

    switch = Switch(
        "outdated", "change", Image(BASE_IMAGE, MISSING, ""), {"containers": {"containers/outdated": "x:1"}}
    )
    with pytest.raises(Stale):
        await Changes(cluster, OldMirror(cluster)).switch(switch, None, refuse)
    assert looks == [BASE_IMAGE, f"{BASE_IMAGE}@{MISSING}"]


async def test_an_image_that_does_not_exist_fails_at_once_with_the_kubelets_words(
    space: Namespace, cluster: Cluster
) -> None:
    await asyncio.to_thread(made, space, "unpulled", replicas=1)
    runtime = KubernetesRuntime(cluster, no_environment)
    runtime.start()
    printed: list[str] = []
    try:
        await eventually(lambda: runtime._mirror.current, "the copy")
        containers = {"containers/unpulled": f"{BASE_IMAGE.rpartition(':')[0]}@{MISSING}"}
        image = Image(BASE_IMAGE, MISSING, "")
        await runtime._changes.switch(Switch("unpulled", "x", image, {"containers": containers}), None, lambda _: None)
        with pytest.raises(RolloutFailed) as failed:
            await runtime.watch("unpulled", "x", None, PATIENCE_S, printed.append)
        assert failed.value.facts["reason"] == "image_not_found"
        assert "not found" in failed.value.message
    finally:
        await runtime.stop()
