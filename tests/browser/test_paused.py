"""A rollback from the page while somebody has paused the rollouts of the app."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect
from tests.browser.conftest import RUNTIMES, World
from tests.fixtures.browser import PATIENCE_MS, needs_browser, visiting
from tests.fixtures.norn import until

pytestmark = needs_browser


@pytest.mark.parametrize("world", RUNTIMES[1:], indirect=True)  # nothing is paused on the local runtime
def test_paused_rollouts_go_on_once_that_is_ticked(world: World, browser: Browser) -> None:
    app = world.app("shop")
    app.deploy("one")
    app.deploy("two")
    assert world.space is not None
    world.space.kubectl("rollout", "pause", "deployment/shop")
    until(lambda: world.server.api("POST", "/api/apps/shop/rollback", {"dryRun": True}).status == 409, "the pause")
    with visiting(browser, world.server) as window:
        window.context.set_default_timeout(2 * PATIENCE_MS)
        page = window.go("/apps/shop/rollback")
        press = page.get_by_role("button", name="Roll back to")
        press.click()
        expect(page.get_by_role("alert")).to_contain_text("paused")
        assert app.get() == "two"
        page.get_by_label("Let rollouts go on with this").check()
        press.click()
        page.wait_for_url("**/operations/*")
        expect(page.locator(".head .badge").first).to_have_text("succeeded", timeout=2 * PATIENCE_MS)
        assert app.get() == "one"
        assert window.wrongs == []
