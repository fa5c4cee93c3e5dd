"""What people come for, on each runtime: watch a deploy, roll back, be stopped by the verdict, restore, take it back.

One story, told in its order: each test goes on where the one before ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser.conftest import World
from tests.fixtures.apps import App, GitApp
from tests.fixtures.browser import PATIENCE_MS, Visit, needs_browser, visiting
from tests.fixtures.norn import until

from norn.adapters.accounts import can_reach, for_apps

pytestmark = needs_browser
LONG_MS = 2 * PATIENCE_MS
"""For a rollout of pods, or a restore, on a busy machine."""


@pytest.fixture(scope="module")
def shop(world: World) -> GitApp:
    """Its first version is live, with a database."""
    if world.space is None and not can_reach(Path(App.psql), for_apps()):
        pytest.skip("psql is where apps cannot reach it")
    app = world.app("shop", more="replicas: 2\n")
    declare(app, "CREATE TABLE books (id bigint PRIMARY KEY, title text, city text)")
    app.deploy("one")
    with app.database() as connection:
        connection.execute("INSERT INTO books SELECT n, 'book ' || n, 'here' FROM generate_series(1, 3) AS n")
    return app


def declare(app: GitApp, statement: str) -> None:
    app.declare(statement, more="replicas: 2\nartifacts: {retain: 50}\n")


@pytest.fixture(scope="module")
def window(world: World, shop: GitApp, browser: Browser) -> Iterator[Visit]:
    """One person's window, through all of the story."""
    with visiting(browser, world.server) as found:
        found.context.set_default_timeout(LONG_MS)
        expect.set_options(timeout=LONG_MS)
        yield found


@pytest.fixture
def page(window: Visit) -> Iterator[Page]:
    yield window.page
    assert window.wrongs == []


def books(app: GitApp) -> list[int]:
    with app.database() as connection:
        return [row[0] for row in connection.execute("SELECT id FROM books ORDER BY id")]


@contextmanager
def held_up(app: GitApp, statement: str) -> Iterator[None]:
    """It declares a migration that waits to the end of the block, however long a page takes to show the deploy."""
    waits = "WHILE NOT pg_try_advisory_xact_lock(4717) LOOP PERFORM pg_sleep(0.05); END LOOP;"
    declare(app, rf"DO \$\$ BEGIN {waits} {statement}; END \$\$")
    with app.database() as connection:
        connection.execute("SELECT pg_advisory_lock(4717)")
        yield


def operation_of(window: Visit) -> str:
    """The id of the operation that the page shows."""
    window.page.wait_for_url("**/operations/*")
    return window.path.rpartition("/")[2]


def done(window: Visit) -> str:
    """Watch the operation on the page to its end, without loading it again; its id."""
    id_ = operation_of(window)
    expect(window.page.locator(".head .badge").first).to_have_text("succeeded")
    return id_


def test_a_deploy_is_watched_as_it_goes(window: Visit, page: Page, shop: GitApp) -> None:
    window.go("/apps/shop")
    with held_up(shop, "ALTER TABLE books ADD pages integer"):
        tag = shop.commit("two")
        reply = shop.server.api("POST", "/api/apps/shop/deploy", {})
        assert reply.status == 202
        page.get_by_role("link", name="deploy").filter(has_text="Watch it").click()
        assert operation_of(window) == reply.body["id"]
    expect(page.locator(".steps")).to_contain_text("2 of 2 replicas ready")
    assert done(window) == reply.body["id"]
    window.go("/apps/shop")
    expect(page.get_by_role("region", name="Live", exact=True)).to_contain_text(tag)


def test_a_rollback_shows_what_it_will_do_and_does_that(window: Visit, page: Page, shop: GitApp) -> None:
    page.get_by_role("link", name="Roll back…").click()
    plan = shop.server.api("POST", "/api/apps/shop/rollback", {"dryRun": True}).body
    shown = page.locator("#plan")
    expect(shown).to_contain_text(plan["target"]["why"][1:])
    expect(shown).to_contain_text(plan["fromImageTag"])
    expect(page.locator("#target-title")).to_contain_text(plan["imageTag"])
    page.get_by_label("Reason").fill("two is too slow")
    page.get_by_role("button", name=f"Roll back to {plan['imageTag']}").click()
    expect(page.locator(".pods .pod").first).to_be_visible()
    id_ = done(window)
    expect(page.locator(".pods .pod.ready")).to_have_text([re.compile(r"^\S*-\S+ ready$")] * 2)  # each by its name
    deployment = shop.server.api("GET", f"/api/deployments/{id_}").body
    assert (deployment["kind"], deployment["imageTag"]) == ("rollback", plan["imageTag"])
    assert deployment["reason"] == "two is too slow"
    assert deployment["requestedBy"].startswith("admin")
    assert shop.get() == "one"


def test_an_unsafe_rollback_is_refused_until_its_finding_is_named(window: Visit, page: Page, shop: GitApp) -> None:
    declare(shop, "ALTER TABLE books DROP COLUMN city")
    bad = shop.deploy("three")
    window.go("/apps/shop/rollback")
    expect(page.locator("#plan")).to_contain_text("column_dropped")
    expect(page.locator("#plan")).to_contain_text("--restore-snapshot")
    press = page.get_by_role("button", name="Roll back to")
    press.click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
    assert shop.server.status("shop")["live"]["imageTag"] == bad
    page.get_by_label("in spite of column_dropped").check()
    press.click()
    id_ = done(window)
    assert shop.server.api("GET", f"/api/deployments/{id_}").body["verdict"]["level"] == "unsafe"
    assert shop.get() == "one"


def test_a_snapshot_is_restored_once_its_loss_was_shown(window: Visit, page: Page, shop: GitApp) -> None:
    window.go("/apps/shop/snapshots")
    page.get_by_label("Reason").fill("before the tidying")
    page.get_by_role("button", name="Take a snapshot").click()
    done(window)
    with shop.database() as connection:
        connection.execute("INSERT INTO books (id, title) VALUES (4, 'new')")
        connection.execute("DELETE FROM books WHERE id = 1")
    window.go("/apps/shop/snapshots")
    page.get_by_role("listitem").filter(has_text="before the tidying").get_by_role("link", name="Restore").click()
    page.get_by_role("button", name="Prepare it").click()
    asks = page.get_by_role("alert").filter(has_text="It asks before it goes on")
    expect(asks).to_contain_text("public.books: 1 row written, 1 deleted since")
    assert books(shop) == [2, 3, 4]
    asks.get_by_role("button", name="Yes, go on").click()
    done(window)
    assert books(shop) == [1, 2, 3]


def test_the_restore_is_taken_back(window: Visit, page: Page, shop: GitApp) -> None:
    window.go("/apps/shop/snapshots")
    page.get_by_role("button", name="Take it back").click()
    page.get_by_role("button", name="Yes, go on").click()
    done(window)
    assert books(shop) == [2, 3, 4]
    window.go("/apps/shop/snapshots")
    assert page.get_by_role("button", name="Take it back").count() == 0


def test_all_of_it_is_in_the_audit(window: Visit, page: Page) -> None:
    window.go("/audit?app=shop")
    table = page.get_by_role("table", name="Entries")
    for action in ("rollback.request", "snapshot.request", "restore.request", "restore.end"):
        expect(table.get_by_text(action, exact=True).first).to_be_visible()
    expect(table).to_contain_text("two is too slow")
    until(lambda: "refused" in table.inner_text(), "the refusal")


def test_others_on_the_database_go_back_with_it_once_that_is_ticked(
    window: Visit, page: Page, world: World, shop: GitApp
) -> None:
    world.app("till").spec("services: {postgres: {database: shop}}\n")
    window.go("/apps/shop/snapshots")
    page.get_by_role("listitem").filter(has_text="before the tidying").get_by_role("link", name="Restore").click()
    press = page.get_by_role("button", name="Prepare it")
    press.click()
    expect(page.get_by_role("alert")).to_contain_text("till")
    page.get_by_role("group", name="Others use this database, too").get_by_label("till goes back with it").check()
    press.click()
    page.get_by_role("button", name="Yes, go on").click()
    done(window)
    assert books(shop) == [1, 2, 3]
