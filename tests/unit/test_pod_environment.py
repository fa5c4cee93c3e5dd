"""Where a variable of an app's pods comes from."""

from __future__ import annotations

import base64

import pytest

from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.pod_environment import ELSEWHERE, given_to_pods
from norn.adapters.kubernetes.resources import Kind, Object
from norn.domain.infraspec.parse import parse_infraspec
from norn.errors import ClusterRefused

URL = "postgresql://elsewhere/shop"
FORBIDDEN = ClusterRefused("secrets is forbidden", clusterStatus=403)


class FakeCluster(Cluster):
    """Has the Secret `shop-secrets`, and lets Norn read it, or change it alone, or neither."""

    def __init__(self, keys: dict[str, str], *, readable: bool, writable: bool = True) -> None:
        super().__init__("default")
        self.data = {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()}
        self.readable, self.writable = readable, writable

    async def get(self, kind: Kind, name: str) -> Object | None:
        if not self.readable:
            raise FORBIDDEN
        return {"data": self.data}

    async def has(self, kind: Kind, name: str, path: str) -> bool:
        if not self.writable:
            raise FORBIDDEN
        assert name == "shop-secrets"
        return path.removeprefix("/data/") in self.data


async def url_of(cluster: Cluster, *listed: str) -> object:
    spec = parse_infraspec(f"app: shop\nrole: worker\ncommand: run\nsecrets: [{', '.join(listed)}]\n").spec
    return await given_to_pods(cluster, None, spec, "DATABASE_URL")


@pytest.mark.parametrize("listed", [[], ["DATABASE_URL"]])
async def test_a_secret_that_was_set_counts_whether_it_is_listed_or_not(listed: list[str]) -> None:
    assert await url_of(FakeCluster({"DATABASE_URL": URL}, readable=True), *listed) == URL


async def test_a_secret_that_may_not_be_read_is_not_known() -> None:
    assert await url_of(FakeCluster({"DATABASE_URL": URL}, readable=False)) is None


@pytest.mark.parametrize("readable", [True, False])
async def test_without_such_a_secret_it_is_what_norn_gives(readable: bool) -> None:
    assert await url_of(FakeCluster({"OTHER": "x"}, readable=readable)) is ELSEWHERE


async def test_a_secret_that_may_be_neither_read_nor_changed_is_not_known() -> None:
    assert await url_of(FakeCluster({}, readable=False, writable=False)) is None
