"""Pages while Norn is there, and what it works on is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from tests.fixtures.apps import App
from tests.fixtures.browser import Visit, needs_browser, visiting
from tests.fixtures.norn import served

pytestmark = [needs_browser, pytest.mark.xdist_group("unreachable pages")]
NOBODY = """
apiVersion: v1
kind: Config
clusters: [{name: gone, cluster: {server: "https://127.0.0.1:9"}}]
users: [{name: norn, user: {token: none}}]
contexts: [{name: norn, context: {cluster: gone, user: norn, namespace: default}}]
current-context: norn
"""


@pytest.fixture(scope="module")
def window(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """Of a server whose cluster does not answer."""
    kubeconfig: Path = tmp_path_factory.mktemp("kubeconfig") / "config"
    kubeconfig.write_text(NOBODY)
    settings = {"NORN_RUNTIME": "kubernetes", "NORN_REGISTRY": "127.0.0.1:9", "KUBECONFIG": str(kubeconfig)}
    with served(**settings) as server:
        App(server, "shop").commit("one")
        with visiting(browser, server) as found:
            yield found


@pytest.mark.parametrize("path", ["/", "/apps/shop"])
def test_a_page_says_that_the_cluster_does_not_answer(window: Visit, path: str) -> None:
    page = window.go(path)
    expect(page.get_by_role("main")).to_contain_text("does not answer")
    assert window.wrongs == []


def test_a_rollback_cannot_be_pressed_and_says_why(window: Visit) -> None:
    page = window.go("/apps/shop/rollback")
    expect(page.get_by_role("main")).to_contain_text("does not answer")
    expect(page.get_by_role("button", name="Roll back to")).to_have_count(0)
    assert window.wrongs == []
