"""One namespace and one server for all tests on the cluster: each test has apps of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.fixtures.clusters import Namespace, cleared, cluster_in_use, namespace, needs_cluster
from tests.fixtures.norn import NornServer, served

from norn.adapters.kubernetes.client import Cluster


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In two lines, each one after the other; those that stop parts of the cluster have it alone."""
    for item in items:
        if "tests/cluster" in str(item.path):
            item.add_marker(needs_cluster)
            item.add_marker(pytest.mark.cluster)
            part = "faults" if item.path.stem in ("test_faults", "test_rollbacks") else "deploys"
            item.add_marker(pytest.mark.xdist_group(f"cluster {part}"))


@pytest.fixture(scope="session")
def space() -> Iterator[Namespace]:
    with namespace() as found:
        yield found


@pytest.fixture(scope="session")
def server(space: Namespace) -> Iterator[NornServer]:
    with served(**space.settings()) as found:
        yield found


@pytest.fixture
async def cluster(space: Namespace, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """The namespace, as Norn reaches it, with the rights of its role."""
    monkeypatch.setenv("KUBECONFIG", str(space.kubeconfig))
    cluster = Cluster(space.name)
    yield cluster
    await cluster.close()


@pytest.fixture(autouse=True)
def in_use(request: pytest.FixtureRequest, space: Namespace) -> Iterator[None]:
    alone = request.node.get_closest_marker("cluster_alone") is not None
    with cluster_in_use(alone=alone), cleared(space):
        yield
