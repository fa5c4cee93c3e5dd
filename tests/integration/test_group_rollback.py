"""Rolling back several apps with one command: one plan and one verdict first, then each on its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, until

pytestmark = pytest.mark.xdist_group("group_rollback")

OLD = """\
import time
HOME = os.environ["HOME"]
while os.path.exists(HOME + "/closed"):
    time.sleep(0.01)
if os.path.exists(HOME + "/broken"):
    sys.exit("cannot start")
"""
"""What the version to go back to does first: it waits where it is told to, and ends where it is told to."""


class Pair(App):
    """An app with two versions, "one" and "two"."""

    def versions(self) -> Pair:
        self.one = self.deploy("one", extra=OLD)
        self.two = self.deploy("two")
        return self

    def forward(self) -> None:
        """The newer version is live again, and nothing is left of a test before."""
        for name in ("closed", "broken"):
            (self.home / name).unlink(missing_ok=True)
        self.settled()
        if self.get() != "two":
            self.server.api("POST", f"/api/apps/{self.name}/rollback", {"imageTag": self.two})
            self.settled()
        assert self.get() == "two"

    def settled(self) -> None:
        self.server.ended(self.newest["id"])

    @property
    def newest(self) -> dict[str, Any]:
        return self.server.history(self.name)[0]


class Judged(Pair):
    """The newer version is asked another health check than the older one was made for: to go back is unsafe."""

    checks = ("/health", "/uid")

    def versions(self) -> Judged:
        self.one = self.deploy("one", extra=OLD)
        self._another_check()
        return self

    def forward(self) -> None:
        """By a deploy: once the older one has been healthy with the newer check, it is safe."""
        self.settled()
        if self.get() != "two":
            self._another_check()

    def _another_check(self) -> None:
        now, other = self.checks
        spec = self.path / "infraspec.yaml"
        spec.write_text(spec.read_text().replace(f"healthcheck: {now}", f"healthcheck: {other}"))
        self.checks = (other, now)
        self.two = self.deploy("two", extra=f"# {len(self.server.history(self.name))}")  # not the image in quarantine


@pytest.fixture(scope="module")
def made(shared_norn: NornServer) -> dict[str, Pair]:
    patient = "2m"  # a test has so long for what it does while a version waits
    apps = [
        Pair(shared_norn, "shop", timeout=patient),
        Pair(shared_norn, "mail", timeout=patient),
        Judged(shared_norn, "risky", timeout=patient),
    ]
    lone = App(shared_norn, "lone")
    with ThreadPoolExecutor() as pool:
        single = pool.submit(lone.deploy, "one")
        list(pool.map(lambda app: app.versions(), apps))
        single.result()
    return {app.name: app for app in apps}


@pytest.fixture
def shop(made: dict[str, Pair]) -> Pair:
    made["shop"].forward()
    return made["shop"]


@pytest.fixture
def mail(made: dict[str, Pair]) -> Pair:
    made["mail"].forward()
    return made["mail"]


@pytest.fixture
def risky(made: dict[str, Pair]) -> Pair:
    made["risky"].forward()
    return made["risky"]


def of(document: dict[str, Any], app: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in document["apps"] if each["app"] == app)
    return found


def outcomes(document: dict[str, Any]) -> dict[str, tuple[str, int]]:
    return {each["app"]: (each["outcome"], each["exit"]) for each in document["apps"]}


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_for_each_app_from_where_to_where_and_changes_nothing(shop: Pair, mail: Pair) -> None:
    before = len(shop.server.history("shop"))
    plan = shop.server.norn("rollback", "shop", "mail", "--dry-run")
    assert plan.exit_status == 0, plan.err
    plans = [each["plan"] for each in plan.json()["apps"]]
    assert [(each["fromImageTag"], each["imageTag"]) for each in plans] == [(shop.two, shop.one), (mail.two, mail.one)]
    assert (shop.get(), mail.get(), len(shop.server.history("shop"))) == ("two", "two", before)


def test_the_verdict_is_the_worst_of_all_and_each_finding_names_its_app(shop: Pair, risky: Pair) -> None:
    verdict = shop.server.norn("rollback", "shop", "risky", "--dry-run", "--force").json()["verdict"]
    assert verdict["level"] == "unsafe"
    assert ("risky", "template_incompatible") in [(found["app"], found["code"]) for found in verdict["findings"]]


def test_as_text_it_is_one_table_with_the_verdict_below(shop: Pair, mail: Pair) -> None:
    plan = shop.server.norn("rollback", "shop", "mail", "--dry-run", "-o", "text").out.splitlines()
    assert plan[0].split() == ["APP", "FROM", "TO", "VERDICT", "WHY"]
    assert plan[1].split()[:4] == ["shop", shop.two, shop.one, "safe"]
    assert "verdict: safe" in plan


# ---- all of them -----------------------------------------------------------------------------------------------------


def test_all_go_back_and_the_summary_says_so_of_each(shop: Pair, mail: Pair) -> None:
    back = shop.server.norn("rollback", "shop", "mail", "--reason", "no checkout")
    assert back.exit_status == 0, back.err
    assert outcomes(back.json()) == {"shop": ("done", 0), "mail": ("done", 0)}
    assert (shop.get(), mail.get()) == ("one", "one")
    assert of(back.json(), "mail")["deployment"]["reason"] == "no checkout"


def test_none_waits_for_the_rollout_of_another_one(shop: Pair, mail: Pair) -> None:
    for app in (shop, mail):
        (app.home / "closed").touch()
    with shop.server.running("rollback", "shop", "mail") as lines:
        for app in (shop, mail):
            until(lambda app=app: app.newest["status"] == "deploying", f"the rollback of {app.name}")  # type: ignore[misc]
        for app in (shop, mail):
            (app.home / "closed").unlink()
        assert "".join(lines).count('"done"') > 0
    assert (shop.get(), mail.get()) == ("one", "one")


def test_the_plan_comes_first_and_each_line_of_progress_names_its_app(shop: Pair, mail: Pair) -> None:
    back = shop.server.norn("rollback", "shop", "mail", "-o", "text")
    lines = back.err.splitlines()
    progress = lines[lines.index("verdict: safe") + 1 :]
    assert lines[0].startswith("APP ")
    assert {line.split()[0] for line in progress} == {"shop", "mail"}
    assert f"mail     image changed to {mail.one}" in progress
    assert [line.split()[:4] for line in back.out.splitlines()[1:]] == [
        ["shop", shop.two, shop.one, "done"],
        ["mail", mail.two, mail.one, "done"],
    ]


def test_quiet_says_nothing_but_the_summary(shop: Pair, mail: Pair) -> None:
    back = shop.server.norn("rollback", "shop", "mail", "--quiet", "-o", "yaml")
    assert (back.exit_status, back.err) == (0, "")
    assert back.out.startswith("apps:\n- app: shop\n  outcome: done\n")


def test_no_wait_returns_before_they_are_live(shop: Pair, mail: Pair) -> None:
    (shop.home / "closed").touch()
    back = shop.server.norn("rollback", "shop", "mail", "--no-wait")
    assert (back.exit_status, outcomes(back.json())["shop"]) == (0, ("accepted", 0))
    assert shop.newest["status"] == "deploying"


def test_an_app_named_twice_goes_back_once(shop: Pair) -> None:
    before = len(shop.server.history("shop"))
    back = shop.server.norn("rollback", "shop", "shop")
    assert (back.exit_status, len(back.json()["apps"])) == (0, 1)
    assert len(shop.server.history("shop")) == before + 1


def test_all_takes_every_app_and_leaves_out_what_has_nothing_to_go_back_to(shop: Pair, mail: Pair, risky: Pair) -> None:
    back = shop.server.norn("rollback", "--all", "--force")
    assert back.exit_status == 0, back.err
    assert outcomes(back.json()) == {
        "lone": ("left_out", 0),
        "mail": ("done", 0),
        "risky": ("done", 0),
        "shop": ("done", 0),
    }
    assert "is the only deployment there is" in of(back.json(), "lone")["error"]["message"]


# ---- what stops one of them ------------------------------------------------------------------------------------------


def test_one_that_fails_stops_none_of_the_others_and_is_in_the_exit_status(shop: Pair, mail: Pair) -> None:
    (shop.home / "broken").touch()
    back = shop.server.norn("rollback", "shop", "mail")
    assert (back.exit_status, shop.get(), mail.get()) == (1, "two", "one")
    assert outcomes(back.json()) == {"shop": ("failed", 1), "mail": ("done", 0)}
    assert of(back.json(), "shop")["error"]["code"] == "rollout_failed"
    assert "cannot start" in back.err.partition("── shop\n")[2]


def test_one_that_has_nothing_to_go_back_to_is_reported_and_the_others_go_on(shop: Pair) -> None:
    back = shop.server.norn("rollback", "lone", "shop")
    assert (back.exit_status, shop.get()) == (3, "one")
    assert outcomes(back.json()) == {"lone": ("nothing", 3), "shop": ("done", 0)}


def test_a_timeout_exits_6_and_what_is_slow_goes_on(shop: Pair, mail: Pair) -> None:
    (shop.home / "closed").touch()
    back = shop.server.norn("rollback", "shop", "mail", "--timeout", "500ms")
    assert (back.exit_status, outcomes(back.json())["shop"]) == (6, ("still_running", 6))
    assert shop.newest["status"] == "deploying"


def test_a_rollback_that_is_under_way_is_joined(shop: Pair, mail: Pair) -> None:
    (shop.home / "closed").touch()
    first = shop.server.api("POST", "/api/apps/shop/rollback").body["id"]
    back = shop.server.norn("rollback", "shop", "mail", "--no-wait")
    assert (back.exit_status, outcomes(back.json())["shop"]) == (0, ("unchanged", 0))
    assert of(back.json(), "shop")["deployment"]["id"] == first == shop.newest["id"]


def test_further_does_not_join_it(shop: Pair, mail: Pair) -> None:
    (shop.home / "closed").touch()
    shop.server.api("POST", "/api/apps/shop/rollback")
    plan = shop.server.norn("rollback", "shop", "mail", "--further", "--dry-run")
    assert (plan.exit_status, outcomes(plan.json())["shop"]) == (3, ("nothing", 3))


# ---- what stops all of them ------------------------------------------------------------------------------------------


def test_a_name_that_is_wrong_stops_all_of_them(shop: Pair) -> None:
    before = shop.newest["id"]
    back = shop.server.norn("rollback", "shop", "shpo")
    assert (back.exit_status, back.json()["code"]) == (3, "unknown_app")
    assert "no app 'shpo'. Nothing was changed." in back.err
    assert shop.newest["id"] == before


def test_a_timeout_that_is_none_stops_all_of_them(shop: Pair) -> None:
    before = shop.newest["id"]
    assert shop.server.norn("rollback", "shop", "lone", "--timeout", "soon").exit_status == 2
    assert shop.newest["id"] == before


def test_an_unsafe_one_stops_all_of_them_and_the_findings_are_shown(shop: Pair, risky: Pair) -> None:
    before = shop.newest["id"]
    back = shop.server.norn("rollback", "shop", "risky", "--quiet")
    assert (back.exit_status, back.json()["code"], shop.newest["id"]) == (4, "unsafe", before)
    assert "unsafe: risky: " in back.err
    assert "--force goes on all the same; or leave risky out" in back.json()["hint"]


def test_a_dry_run_of_an_unsafe_one_exits_as_the_real_run_would(shop: Pair, risky: Pair) -> None:
    plan = shop.server.norn("rollback", "shop", "risky", "--dry-run")
    assert (plan.exit_status, plan.json()["verdict"]["level"]) == (4, "unsafe")
    assert outcomes(plan.json()) == {"shop": ("planned", 0), "risky": ("planned", 0)}


def test_without_a_token_it_is_not_allowed_once(shop: Pair) -> None:
    back = shop.server.norn("rollback", "shop", "lone", "--token", "wrong")
    assert (back.exit_status, back.json()["code"]) == (8, "not_authenticated")


# ---- at a terminal ---------------------------------------------------------------------------------------------------


@contextmanager
def asked(server: NornServer, *arguments: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A command at a terminal that has asked whether to go on: the terminal, and the process."""
    ours, theirs = os.openpty()
    argv = [sys.executable, "-m", "norn", *arguments]
    with subprocess.Popen(argv, env=server.environment, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        try:
            shown = b""
            while b"[y/N]" not in shown:
                shown += os.read(ours, 65_536)
            yield ours, process
        finally:
            process.kill()
            os.close(ours)


def answer(terminal: int, process: subprocess.Popen[bytes], word: bytes) -> int:
    """The exit status after the answer. The terminal is read to its end, or the process would wait for that."""
    os.write(terminal, word + b"\n")
    while True:
        try:
            if not os.read(terminal, 65_536):
                break
        except OSError:  # EIO: nobody has it open any more
            break
    return process.wait(60)


def test_a_terminal_is_asked_and_yes_goes_on(shop: Pair, risky: Pair) -> None:
    with asked(shop.server, "rollback", "shop", "risky") as (terminal, process):
        assert answer(terminal, process, b"y") == 0
    assert (shop.get(), risky.get()) == ("one", "one")


def test_a_terminal_is_asked_and_anything_else_changes_nothing(shop: Pair, risky: Pair) -> None:
    with asked(shop.server, "rollback", "shop", "risky") as (terminal, process):
        assert answer(terminal, process, b"") == 4
    assert (shop.get(), risky.get()) == ("two", "two")


def test_what_has_been_rolled_back_since_the_plan_goes_no_further_back(shop: Pair, risky: Pair) -> None:
    with asked(shop.server, "rollback", "shop", "risky") as (terminal, process):
        first = shop.server.norn("rollback", "shop").json()["id"]
        shop.server.ended(first)
        assert answer(terminal, process, b"y") == 4
    assert (shop.newest["id"], risky.get()) == (first, "one")


def test_what_was_under_way_already_is_not_asked_for_again(shop: Pair, risky: Pair) -> None:
    (shop.home / "closed").touch()
    first = shop.server.api("POST", "/api/apps/shop/rollback").body["id"]
    with asked(shop.server, "rollback", "shop", "risky") as (terminal, process):
        (shop.home / "closed").unlink()
        shop.server.ended(first)
        assert answer(terminal, process, b"y") == 0
    assert shop.newest["id"] == first
