"""Each page as people meet it: by keyboard, with a screen reader, on a phone, in the dark, without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.fixtures.apps import App
from tests.fixtures.archives import TITLED, archive, books
from tests.fixtures.browser import DESK, PHONE, needs_browser, visiting
from tests.fixtures.norn import NornServer, served

from norn.adapters.accounts import can_reach, for_apps

pytestmark = [
    needs_browser,
    pytest.mark.xdist_group("pages in a browser"),
    pytest.mark.timeout(900),  # all pages are looked at for the first of the tests, on a machine that is busy
    pytest.mark.skipif(not can_reach(Path(App.psql), for_apps()), reason="psql is where apps cannot reach it"),
]
HOSTILE = """<script>window.owned = 1</script><img src=x onerror="window.owned = 1">'"`{{7*7}}"""


@pytest.fixture(scope="module")
def server() -> Iterator[NornServer]:
    with served() as found:
        yield found


@pytest.fixture(scope="module")
def shop(server: NornServer) -> App:
    """The last of three versions, which is live, has dropped a column. What its people and its build say is hostile."""
    app = App(server, "shop", more="replicas: 2\n")
    (app.path / "say.py").write_text(f"print({HOSTILE!r})\n")
    build = "build: {command: python3 say.py}\nreplicas: 2\n"
    app.declare("CREATE TABLE books (id bigint PRIMARY KEY, city text)", more=build)
    app.deploy("one")
    app.declare("SELECT 1", more=build)
    app.commit("two")
    app.git("commit", "-q", "--amend", "-m", HOSTILE)
    server.deploy("shop")
    app.declare("ALTER TABLE books DROP COLUMN city", more=build)
    app.deploy("three")
    App(server, "empty")
    taken = server.norn("snapshots", "create", "shop", "--reason", HOSTILE)
    assert taken.exit_status == 0, taken.err
    return app


def tag_of(app: App, number: int) -> str:
    """The image of the version that many commits ago."""
    return app.tag(app.git("rev-parse", f"HEAD~{number}"))


def pages(app: App) -> dict[str, str]:
    """Every page, and the states of it that are worth a look."""
    server = app.server
    history = server.history("shop")
    snapshot = server.api("GET", "/api/apps/shop/snapshots").body["snapshots"][0]["name"]
    return {
        "apps": "/",
        "app": "/apps/shop",
        "an app never deployed": "/apps/empty",
        "operation": f"/operations/{history[0]['id']}",
        "operation of the build": f"/operations/{history[1]['id']}",
        "rollback": "/apps/shop/rollback",
        "rollback to another version": f"/apps/shop/rollback?to={tag_of(app, 2)}",
        "rollback with its data": "/apps/shop/rollback?data=1&template=1",
        "rollback to nothing known": "/apps/shop/rollback?to=nope",
        "rollback to what is live": f"/apps/shop/rollback?to={tag_of(app, 0)}",
        "nothing to roll back to": "/apps/empty/rollback",
        "snapshots": "/apps/shop/snapshots",
        "no database": "/apps/empty/snapshots",
        "restore": f"/apps/shop/snapshots/restore?name={snapshot}",
        "retention": "/apps/shop/retention",
        "nothing kept": "/apps/empty/retention",
        "audit": "/audit",
        "audit of one app": "/audit?app=shop",
        "docs": "/docs",
        "not found": "/apps/nope",
        "sign-in": "/sign-in",
    }


# ---- everybody -----------------------------------------------------------------------------------------------------


OPEN = "for (const each of [...document.querySelectorAll('details')].slice(0, 8)) each.open = true"
"""What can be opened, as far as it is not more of the same: the HTTP interface is long."""


@dataclass(frozen=True)
class Seen:
    """What a page is like, with what is on it opened."""

    title: str
    headings: int
    first_stop: str
    """The class of what the first press of Tab gets to."""
    text: str
    owned: bool
    """A script of somebody else's has run."""
    wide: bool
    """It scrolls sideways on a phone."""
    violations: list[str]
    """What axe-core says of it, and of its colours in the dark."""


@pytest.fixture(scope="module")
def seen(browser: Browser, shop: App) -> dict[str, Seen]:
    """Every page, looked at once."""
    found = {}
    with visiting(browser, shop.server) as visit:
        for name, path in pages(shop).items():
            page = visit.go(path)
            page.keyboard.press("Tab")
            stop = page.evaluate("document.activeElement.className")
            page.evaluate(OPEN)
            violations = visit.violations()
            page.emulate_media(color_scheme="dark")
            violations += visit.violations("color-contrast")
            page.emulate_media(color_scheme="light")
            page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
            wide = visit.scrolls_sideways()
            page.set_viewport_size({"width": DESK[0], "height": DESK[1]})
            owned = page.evaluate("window.owned") is not None
            headings, text = page.locator("h1").count(), page.locator("main").inner_text()
            found[name] = Seen(page.title(), headings, stop, text, owned, wide, violations)
    return found


def test_no_page_breaks_a_rule_of_accessibility_by_day_or_night(seen: dict[str, Seen]) -> None:
    assert [each for one in seen.values() for each in one.violations] == []


def test_no_page_is_wider_than_a_phone(seen: dict[str, Seen]) -> None:
    assert [name for name, one in seen.items() if one.wide] == []


def test_each_page_has_one_heading_and_its_first_stop_skips_to_it(seen: dict[str, Seen]) -> None:
    assert {name: one.headings for name, one in seen.items()} == dict.fromkeys(seen, 1)
    assert {one.first_stop for name, one in seen.items() if name != "sign-in"} == {"skip"}


def test_each_page_is_named_by_its_title(seen: dict[str, Seen]) -> None:
    assert seen["rollback"].title == "Roll back shop · Norn"
    assert seen["audit of one app"].title == "Audit of shop · Norn"
    assert len({one.title for one in seen.values()}) >= 12


@pytest.mark.parametrize("name", ["app", "rollback", "operation of the build", "snapshots", "audit"])
def test_a_text_of_anybodys_is_shown_as_it_is_and_never_run(seen: dict[str, Seen], name: str) -> None:
    assert "onerror=" in seen[name].text, "it is shown"
    assert not any(one.owned for one in seen.values())


def test_what_a_build_prints_is_shown_as_it_is(seen: dict[str, Seen]) -> None:
    assert HOSTILE in seen["operation of the build"].text


# ---- rolling back --------------------------------------------------------------------------------------------------


@pytest.fixture
def two(server: NornServer, request: pytest.FixtureRequest) -> App:
    """An app of the test's own, which can be rolled back safely."""
    number = len(list(server.apps_dir.iterdir()))
    app = App(server, f"two{number}")
    app.deploy("one")
    app.deploy("two")
    return app


def live_after(app: App, page: Page) -> str:
    """What answers once the operation that the page shows has ended."""
    page.wait_for_url("**/operations/*")
    app.server.ended(page.url.rpartition("/")[2])
    return app.get()


def test_rolling_back_without_javascript(browser: Browser, two: App) -> None:
    with visiting(browser, two.server, script=False) as visit:
        page = visit.go(f"/apps/{two.name}")
        page.get_by_role("link", name="Roll back…").click()
        page.get_by_label("Version", exact=True).select_option(tag_of(two, 1))
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.locator("#plan")).to_contain_text("Asked for by name")
        page.get_by_role("button", name="Roll back to").click()
        assert live_after(two, page) == "one"
        page.reload()
        expect(page.locator("main")).to_contain_text("succeeded")


def test_rolling_back_with_the_keyboard_alone(browser: Browser, two: App) -> None:
    with visiting(browser, two.server) as visit:
        page = visit.go(f"/apps/{two.name}/rollback")

        def focus(name: str) -> None:
            """Press Tab until it is there."""
            for _ in range(40):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.name || document.activeElement.innerText").startswith(name):
                    return
            pytest.fail(f"{name} cannot be reached with the keyboard")

        focus("to")
        with page.expect_response("**/rollback?to=*"):
            page.keyboard.press("ArrowDown")
        expect(page.locator("#plan")).to_contain_text("Asked for by name")
        assert page.evaluate("document.activeElement.id") == "to", "the focus stays where it was"
        focus("reason")
        page.keyboard.type("by hand")
        focus("Roll back to")
        page.keyboard.press("Enter")
        assert live_after(two, page) == "one"
        assert two.server.history(two.name)[0]["reason"] == "by hand"


def test_nobody_rolls_back_what_was_not_on_the_screen(browser: Browser, two: App) -> None:
    with visiting(browser, two.server) as visit:
        page = visit.go(f"/apps/{two.name}/rollback")
        third = two.deploy("three")
        page.get_by_label("Reason").fill("two is broken")
        page.get_by_role("button", name="Roll back to").click()
        expect(page.get_by_role("alert")).to_contain_text("What is live has changed")
        expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
        expect(page.locator("#target-title")).to_contain_text(third)
        expect(page.get_by_label("Reason")).to_have_value("two is broken")
        assert two.get() == "three"


def test_another_target_than_the_one_on_the_screen_is_refused(browser: Browser, two: App) -> None:
    two.deploy("three")
    with visiting(browser, two.server) as visit:
        page = visit.go(f"/apps/{two.name}/rollback")
        page.locator("input[name=target]").evaluate("(field, id) => { field.value = id }", history_id(two, 2))
        page.get_by_role("button", name="Roll back to").click()
        expect(page.get_by_role("alert")).to_contain_text("What a rollback goes to has changed")
        assert two.get() == "three"


def history_id(app: App, number: int) -> str:
    found: str = app.server.history(app.name)[number]["id"]
    return found


def test_a_force_counts_for_the_findings_that_were_on_the_screen(browser: Browser, shop: App) -> None:
    with visiting(browser, shop.server) as visit:
        page = visit.go("/apps/shop/rollback")
        page.get_by_label("in spite of").check()
        page.get_by_label("in spite of").evaluate("field => { field.value = '0123456789abcdef' }")
        page.get_by_role("button", name="Roll back to").click()
        expect(page.get_by_role("alert")).to_contain_text("not enough")
        assert shop.get() == "three"


def test_a_form_that_is_sent_twice_goes_back_once(browser: Browser, two: App) -> None:
    two.deploy("three")
    with visiting(browser, two.server) as visit:
        page = visit.go(f"/apps/{two.name}/rollback?to={tag_of(two, 1)}")
        form = page.locator("form.press").evaluate("form => Object.fromEntries(new FormData(form))")
        page.get_by_role("button", name="Roll back to").click()
        assert live_after(two, page) == "two"
        again = visit.context.request.post(
            f"{two.server.url}/apps/{two.name}/rollback",
            form=form,
            headers={"Origin": two.server.url},
            max_redirects=0,
        )
        assert (again.status, again.headers["location"]) == (303, visit.path)


def test_code_and_data_go_back_together(browser: Browser, server: NornServer) -> None:
    app = archive(App(server, "archive"))
    with visiting(browser, server) as visit:
        page = visit.go("/apps/archive/rollback")
        page.get_by_text("More than the image").evaluate("summary => { summary.parentElement.open = true }")
        page.get_by_label("Its data as well").check()
        expect(page.get_by_role("region", name="This changes")).to_contain_text("Downtime")
        expect(page.get_by_role("region", name="What would be lost")).to_have_text("public.books: 1 row written since")
        page.get_by_role("button", name="Roll back to").click()
        expect(page.get_by_role("alert")).to_contain_text("public.books: 1 row written")
        page.get_by_role("button", name="Yes, go on").click()
        assert live_after(app, page) == "good"
        assert books(app) == TITLED


def test_on_a_phone_the_name_of_a_snapshot_is_not_squeezed(browser: Browser, shop: App) -> None:
    with visiting(browser, shop.server, size=PHONE) as visit:
        page = visit.go("/apps/shop/retention")
        names = page.locator("th .long")
        widths = names.evaluate_all("names => names.map(name => name.getBoundingClientRect().width)")
        assert widths
        assert min(widths) >= 190
        assert not visit.scrolls_sideways()


# ---- who may what --------------------------------------------------------------------------------------------------


def test_a_viewer_sees_why_there_is_no_button(browser: Browser, shop: App) -> None:
    made = shop.server.api("POST", "/api/tokens", {"name": "looker", "role": "viewer"})
    with visiting(browser, shop.server, signed_in=False) as visit:
        page = visit.sign_in(made.body["token"])
        visit.go("/apps/shop/rollback")
        expect(page.get_by_role("button", name="Roll back to")).to_be_disabled()
        expect(page.locator("#plan")).to_contain_text("this wants operator")
        visit.go("/apps/shop/snapshots")
        assert page.get_by_role("link", name="Restore").count() == 0
        expect(page.get_by_role("button", name="Take a snapshot")).to_be_disabled()
        visit.go("/apps/shop/retention")
        expect(page.locator("main")).to_contain_text("Stays")
