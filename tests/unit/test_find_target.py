"""The target of a rollback where images are gone: how many are looked for, and what comes of it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.test_targets import NOW, deployment

from norn.domain.deployments import Deployment
from norn.domain.images import Image
from norn.domain.operations import OperationStatus
from norn.domain.ports import Found, Live, Presence
from norn.domain.targets import LiveVersion, NoTarget, Target
from norn.operations.services import Services
from norn.operations.versions import find_target, live_version


class Shop:
    """A history of so many versions, the newest of them live, and the images that are still there."""

    def __init__(self, versions: int, *there: int) -> None:
        self.history = [deployment(seq, str(seq)) for seq in range(versions, 0, -1)]
        self.there = {f"shop:{seq}" for seq in there}
        self.looked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.services = cast("Services", SimpleNamespace(store=self, images=self))

    async def now(self) -> datetime:
        return NOW

    async def quarantined(self, app: str) -> list[Any]:
        return []

    async def deployments(self, *, app: str, limit: int) -> list[Deployment]:
        return self.history[:limit]

    async def look(self, app: str, image: Image) -> Found:
        self.looked.append(image.tag)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return Found(Presence.PRESENT if image.tag in self.there else Presence.GONE)

    def target(self) -> Target | NoTarget:
        newest = self.history[0]
        live = LiveVersion(newest.image_tag, newest.digest or "", newest)
        return asyncio.run(find_target(self.services, "shop", live))


def test_one_image_is_looked_for_where_that_is_there() -> None:
    shop = Shop(50, 49, 48)
    found = shop.target()
    assert isinstance(found, Target)
    assert (found.deployment.id, shop.looked) == ("d49", ["shop:49"])


@pytest.mark.parametrize("there", [48, 47, 40, 39, 38, 2, 1])
def test_the_newest_image_that_is_there_is_the_target_however_many_are_gone_before(there: int) -> None:
    shop = Shop(50, there, max(there - 1, 1))
    found = shop.target()
    assert isinstance(found, Target)
    assert found.deployment.id == f"d{there}"


def test_no_image_is_looked_for_twice_and_the_one_that_is_live_not_at_all() -> None:
    shop = Shop(300)
    assert isinstance(shop.target(), NoTarget)
    assert sorted(shop.looked) == sorted(f"shop:{seq}" for seq in range(1, 300))


def test_thousands_of_images_that_are_gone_are_looked_for_a_few_at_once() -> None:
    shop = Shop(9_000, 1)
    found = shop.target()
    assert isinstance(found, Target)
    assert found.deployment.id == "d1"
    assert 8 < shop.most_at_once <= 32


def test_at_most_twice_as_many_images_are_looked_for_as_are_gone() -> None:
    shop = Shop(9_000, *range(1, 8_000))
    assert isinstance(shop.target(), Target)
    assert len(shop.looked) <= 2 * 1_000


# ---- what is live ------------------------------------------------------------------------------------------------


class Half:
    """Version 2 is live; a rollback to version 1 was accepted and has not rolled out."""

    def __init__(self, status: OperationStatus | None) -> None:
        self.status = status
        self.services = cast("Services", SimpleNamespace(store=self, runtime=self))

    async def live(self, app: str) -> Live:
        newer, older = deployment(2, "2"), deployment(1, "1")
        coming = Live(older.image_tag, older.digest or "", older.id, NOW)
        return Live(newer.image_tag, newer.digest or "", newer.id, NOW, coming)

    async def operation(self, operation_id: str) -> Any:
        return SimpleNamespace(status=self.status) if self.status and operation_id == "d1" else None

    async def deployment(self, deployment_id: str) -> Deployment:
        return deployment(int(deployment_id[1:]), deployment_id[1:])


@pytest.mark.parametrize(
    ("status", "live"),
    [
        (OperationStatus.RUNNING, "d2"),
        (OperationStatus.FAILED, "d1"),
        (OperationStatus.CANCELLED, "d1"),
        (None, "d2"),
    ],
)
def test_a_change_that_nobody_sees_through_any_more_is_what_there_is(status: OperationStatus | None, live: str) -> None:
    found = asyncio.run(live_version(Half(status).services, "shop"))
    assert found is not None
    assert found.deployment is not None
    assert found.deployment.id == live
