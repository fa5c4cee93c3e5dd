"""Looks that pages share: one for all who want it, a few at a time, and none that is late begins anew."""

from __future__ import annotations

import asyncio

from norn.ui.looks import AT_ONCE, Looks


class Apps:
    def __init__(self) -> None:
        self.begun = self.at_once = self.most = 0
        self.answer = asyncio.Event()

    async def look(self) -> str:
        self.begun += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.answer.wait()
        self.at_once -= 1
        return "seen"


async def test_who_comes_while_it_is_looked_shares_the_look_also_after_the_first_has_given_up() -> None:
    looks, apps = Looks(), Apps()
    assert await looks.at("shop", apps.look, 0.001) is None
    later = [asyncio.create_task(looks.at("shop", apps.look, 30.0)) for _ in range(3)]
    await asyncio.sleep(0)
    apps.answer.set()
    assert (await asyncio.gather(*later), apps.begun) == (["seen"] * 3, 1)


async def test_a_few_are_looked_at_at_once() -> None:
    looks, apps = Looks(), Apps()
    assert await asyncio.gather(*(looks.at(f"app-{number}", apps.look, 0.001) for number in range(20))) == [None] * 20
    assert apps.most == AT_ONCE
    apps.answer.set()
    assert await looks.at("app-19", apps.look, 30.0) == "seen"


async def test_what_was_seen_is_not_kept() -> None:
    looks, apps = Looks(), Apps()
    apps.answer.set()
    for _ in range(2):
        await looks.at("shop", apps.look, 30.0)
    assert apps.begun == 2
