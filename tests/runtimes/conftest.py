"""What holds for apps on every runtime: each test once with processes of this machine, once on the real cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.fixtures.apps import App, GitApp
from tests.fixtures.clusters import ClusterApp, Namespace, cleared, cluster_in_use, namespace, needs_cluster
from tests.fixtures.norn import NornServer, served


class World:
    """A server on one of the runtimes, and apps on it."""

    def __init__(self, server: NornServer, space: Namespace | None) -> None:
        self.server = server
        self.space = space

    def app(self, name: str, *, more: str = "", bake: str = "0s", timeout: str = "") -> GitApp:
        if self.space is None:
            return App(self.server, name, more=more, bake=bake, timeout=timeout)
        return ClusterApp(self.server, self.space, name, more=more, bake=bake, timeout=timeout)


RUNTIMES = [
    pytest.param("local", marks=pytest.mark.xdist_group("local runtime")),  # one server will do
    pytest.param(
        "kubernetes", marks=[needs_cluster, pytest.mark.cluster, pytest.mark.xdist_group("kubernetes runtime")]
    ),
]


@pytest.fixture(scope="session", params=RUNTIMES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "local":
        with served() as server:
            yield World(server, None)
    else:
        with namespace() as space, served(**space.settings()) as server:
            yield World(server, space)


@pytest.fixture(autouse=True)
def in_use(world: World) -> Iterator[None]:
    if world.space is None:
        yield
    else:
        with cluster_in_use(), cleared(world.space):
            yield
