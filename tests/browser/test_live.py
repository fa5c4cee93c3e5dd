"""Pages that change by themselves: what happens appears, nothing a reader has opened or typed is taken away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.fixtures.apps import App
from tests.fixtures.browser import PHONE, Scheme, Visit, needs_browser, visiting
from tests.fixtures.norn import NornServer, served

pytestmark = [needs_browser, pytest.mark.xdist_group("live pages")]

GATED = 'build: {{command: [sh, -c, "echo first line; until test -e {gate}; do sleep 0.1; done; echo second line"]}}\n'
"""A build that prints, waits until somebody lets it, and prints again."""


@pytest.fixture(scope="module")
def server() -> Iterator[NornServer]:
    with served() as found:
        yield found


@pytest.fixture(scope="module")
def shop(server: NornServer) -> App:
    app = App(server, "shop")
    app.deploy("one")
    app.deploy("two")
    return app


@pytest.fixture
def window(server: NornServer, shop: App, browser: Browser) -> Iterator[Visit]:
    with visiting(browser, server) as found:
        yield found


@pytest.fixture
def page(window: Visit) -> Page:
    return window.page


class Gate:
    """A deploy that stands in its build until it is let go on."""

    def __init__(self, app: App, directory: Path, answer: str) -> None:
        self._file = directory / "open"
        directory.chmod(0o755)
        app.spec(GATED.format(gate=self._file))
        self.tag = app.commit(answer)
        self.id: str = app.server.api("POST", f"/api/apps/{app.name}/deploy").body["id"]
        app.server.step_begun(self.id, "build")

    def open(self) -> None:
        self._file.touch()


@pytest.fixture
def gated(shop: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Gate]]:
    """Begin a deploy that waits; it has ended when the test has."""
    gates: list[Gate] = []

    def begin(answer: str) -> Gate:
        directory = tmp_path_factory.mktemp("gate")
        for parent in directory.parents[:-2]:
            parent.chmod(0o755)  # builds run as another user
        gates.append(Gate(shop, directory, answer))
        return gates[-1]

    yield begin
    for gate in gates:
        gate.open()
        shop.server.ended(gate.id)


def mark(page: Page) -> None:
    """So that it is known whether the page was loaded anew."""
    page.evaluate("window.marked = true")


def marked(page: Page) -> bool:
    found: bool = page.evaluate("window.marked === true")
    return found


def test_output_appears_as_it_comes_once_and_the_end_is_announced(
    server: NornServer, window: Visit, page: Page, gated: Callable[[str], Gate]
) -> None:
    gate = gated("output")
    window.go(f"/operations/{gate.id}")
    mark(page)
    output = page.get_by_role("region", name="Output of build")
    expect(output).to_contain_text("first line")
    assert "second line" not in output.inner_text()
    gate.open()
    expect(output).to_contain_text("second line")
    expect(page.locator("h1 + .badge")).to_have_text("succeeded")
    expect(page.locator("#said")).to_have_text("deploy of shop: succeeded")
    record = next(step for step in server.operation(gate.id)["steps"] if step["step"] == "build")
    assert output.inner_text().strip() == record["output"].strip()
    assert marked(page)


def test_what_a_reader_has_opened_or_typed_stays(window: Visit, page: Page, gated: Callable[[str], Gate]) -> None:
    gate = gated("opened")
    window.go(f"/operations/{gate.id}")
    page.get_by_text("Stop it…").click()
    reason = page.get_by_label("Why (optional)")
    reason.fill("because I ")
    clone = page.locator("[data-step=clone] details")
    clone.locator("summary").click()
    build = page.locator("[data-step=build] details")
    build.locator("summary").click()
    with page.expect_response("**/parts/progress"):
        page.evaluate("document.body.dispatchEvent(new CustomEvent('norn:changed'))")
    expect(clone).to_have_attribute("open", "")
    expect(build).not_to_have_attribute("open", "")
    expect(reason).to_have_value("because I ")
    expect(reason).to_be_visible()


def test_an_apps_page_shows_what_begins_and_what_is_live_then(
    window: Visit, page: Page, gated: Callable[[str], Gate]
) -> None:
    window.go("/apps/shop")
    mark(page)
    gate = gated("head")
    expect(page.locator(".now")).to_contain_text("deploy")
    expect(page.locator("#history")).to_contain_text(gate.tag)
    output = page.get_by_role("region", name="Output of build")
    expect(output).to_contain_text("first line")
    gate.open()
    expect(output).to_contain_text("second line")
    expect(page.get_by_role("region", name="Live", exact=True)).to_contain_text(gate.tag)
    expect(page.locator(".now")).to_have_count(0)
    assert marked(page)


def test_the_list_of_apps_shows_what_begins(window: Visit, page: Page, gated: Callable[[str], Gate]) -> None:
    window.go("/")
    gate = gated("list")
    expect(page.locator("#app-shop")).to_contain_text("deploy")
    gate.open()
    expect(page.locator("#app-shop")).to_contain_text(gate.tag)


def test_a_lost_connection_is_said_and_what_was_missed_is_there_when_it_is_back(
    server: NornServer, window: Visit, page: Page, gated: Callable[[str], Gate]
) -> None:
    gate = gated("lost")
    window.go(f"/operations/{gate.id}")
    banner = page.get_by_text("The connection to Norn is lost.")
    expect(banner).not_to_be_visible()
    server.stop()
    expect(banner).to_be_visible()
    gate.open()
    server.start()
    expect(banner).not_to_be_visible()
    expect(page.locator("h1 + .badge")).to_have_text("succeeded")
    window.wrongs = [wrong for wrong in window.wrongs if "Failed to fetch" not in wrong]  # while nobody was there


def test_who_is_signed_out_elsewhere_is_asked_to_sign_in(window: Visit, page: Page) -> None:
    window.go("/apps/shop")
    # Each part asks again and again, so that several hear of it; the page may leave at any moment from there.
    page.evaluate("setInterval(() => document.body.dispatchEvent(new CustomEvent('norn:changed')), 100)")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.is_navigation_request() else None)
    other = window.context.new_page()
    other.goto(f"{window.server.url}/")
    other.get_by_role("button", name="Sign out").click()
    expect(other).to_have_url(re.compile("/sign-in"))  # a window that is closed before that may not have sent it
    other.close()
    expect(page).to_have_url(re.compile(r"/sign-in\?next="))
    assert asked.count(f"{window.server.url}/apps/shop") == 1


def test_times_are_in_the_readers_words_and_zone(window: Visit, page: Page) -> None:
    window.go("/apps/shop")
    since = page.get_by_role("region", name="Live", exact=True).locator("time")
    expect(since).to_have_text(re.compile(r"^(just now|\d+ (second|minute|hour)s? ago)$"))
    expect(since).to_have_attribute("title", re.compile(r"^\d{1,2} \w{3} \d{4}, \d\d:\d\d:\d\d$"))


def test_without_a_script_times_are_utc_and_the_page_says_how_to_see_what_is_new(
    server: NornServer, shop: App, browser: Browser
) -> None:
    with visiting(browser, server, script=False) as window:
        page = window.go("/apps/shop")
        expect(page.get_by_role("region", name="Live", exact=True).locator("time")).to_have_text(re.compile(" UTC$"))
        assert "Without JavaScript this page does not change by itself" in page.content()  # noscript, not drawn here
        page.get_by_text("Restart…").click()
        page.get_by_role("button", name="Restart shop").click()
        expect(page.locator("h1")).to_have_text("Restart of shop")
        server.ended(window.path.rpartition("/")[2])


def test_the_keyboard_is_enough(window: Visit, page: Page) -> None:
    window.go("/apps/shop")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Roll back…":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/apps/shop/rollback")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_and_a_phone_is_wide_enough(
    server: NornServer, shop: App, browser: Browser, scheme: Scheme
) -> None:
    with visiting(browser, server, scheme=scheme, size=PHONE) as window:
        operation = server.history("shop")[0]["id"]
        for path in ("/", "/apps/shop", f"/operations/{operation}", "/apps/nope"):
            window.go(path)
            assert window.violations() == []
            assert not window.scrolls_sideways(), path
    with visiting(browser, server, scheme=scheme, signed_in=False) as window:
        window.go("/sign-in")
        assert window.violations() == []
