"""Stories that people go through with Norn's pages, in a real browser, on each runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.fixtures.apps import App, GitApp
from tests.fixtures.clusters import ClusterApp, Namespace, cluster_in_use, namespace, needs_cluster
from tests.fixtures.norn import NornServer, served


class World:
    """A server on one of the runtimes, and apps on it."""

    def __init__(self, server: NornServer, space: Namespace | None) -> None:
        self.server = server
        self.space = space

    def app(self, name: str, *, more: str = "", bake: str = "0s") -> GitApp:
        if self.space is None:
            return App(self.server, name, more=more, bake=bake)
        return ClusterApp(self.server, self.space, name, more=more, bake=bake)


RUNTIMES = [
    pytest.param("local", marks=pytest.mark.xdist_group("browser on the local runtime")),
    pytest.param(
        "kubernetes",  # behind those that want the cluster alone, who would wait for it otherwise
        marks=[needs_cluster, pytest.mark.cluster, pytest.mark.xdist_group("cluster faults")],
    ),
]


@pytest.fixture(scope="module", params=RUNTIMES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "local":
        with served() as server:
            yield World(server, None)
    else:
        with namespace() as space, served(**space.settings()) as server, cluster_in_use():
            yield World(server, space)
