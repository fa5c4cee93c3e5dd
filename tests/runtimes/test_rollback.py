"""Rolling back, as the contract numbers it, on each runtime, with real processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.fixtures.apps import GitApp
from tests.fixtures.norn import NornServer, until
from tests.runtimes.conftest import World


@pytest.fixture(scope="module")
def shop(world: World) -> GitApp:
    """Two good versions and a bad one, which is live: what most of these tests begin with."""
    app = world.app("shop")
    for answer in ("one", "two", "three"):
        app.deploy(answer)
    return app


def tags(app: GitApp) -> dict[str, str]:
    """What each version is called."""
    named = {}
    for line in app.git("log", "--format=%H %s").splitlines():
        sha, _, subject = line.partition(" ")
        named[subject.removeprefix("answer ")] = app.tag(sha)
    return named


def dry_run(server: NornServer, app: str) -> dict[str, Any]:
    """What a rollback would do, once every part of the verdict was looked at within its two seconds."""

    def look() -> dict[str, Any] | None:
        plan = server.norn("rollback", app, "--dry-run")
        assert plan.exit_status == 0, plan.err
        document: dict[str, Any] = plan.json()
        late = any(finding["code"] == "not_checked" for finding in document["verdict"]["findings"])
        return None if late else document

    return until(look, "a look in time") or {}


def test_a_dry_run_names_target_reason_and_verdict_and_changes_nothing(shop: GitApp) -> None:
    document = dry_run(shop.server, "shop")
    assert document["imageTag"] == tags(shop)["two"]
    assert document["fromImageTag"] == tags(shop)["three"]
    assert "newest known-good" in document["target"]["why"]
    assert document["target"]["liveForS"] > 0
    assert document["verdict"] == {"level": "safe", "findings": []}
    assert shop.get() == "three"
    assert len(shop.server.history("shop")) == 3


def test_a_secret_that_was_set_since_is_named_whether_or_not_norn_may_read_it(world: World) -> None:
    app = world.app("discreet", more="secrets: [SMTP_KEY]\n")
    world.server.norn("secrets", "set", "discreet", "SMTP_KEY", stdin="one")
    app.deploy("one")
    app.deploy("two")
    world.server.norn("secrets", "set", "discreet", "SMTP_KEY", stdin="two")
    (finding,) = dry_run(world.server, "discreet")["verdict"]["findings"]
    assert (finding["code"], finding["level"], finding["changed"]) == (
        "configuration_changed", "caution", ["secret SMTP_KEY"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "code", "exit_status"),
    [
        ("nope", "unknown_version", 3),
        ("deadbeef", "unknown_version", 3),
        ("other:deadbeef", "unknown_version", 3),
        ("abc", "unknown_version", 3),
        ("../../etc/passwd", "unknown_version", 3),
        ("shop:%", "unknown_version", 3),
        ("'; DROP TABLE deployments; --", "unknown_version", 3),
        ("0000000000000000000000000a", "unknown_version", 3),
    ],
)
def test_a_version_that_does_not_exist_is_an_error_that_lists_what_does(
    shop: GitApp, version: str, code: str, exit_status: int
) -> None:
    answer = shop.server.norn("rollback", "shop", "--to", version)
    assert answer.exit_status == exit_status
    assert answer.json()["code"] == code
    assert tags(shop)["two"] in answer.json()["candidates"]
    assert shop.get() == "three"


def test_an_ambiguous_prefix_is_an_error_that_lists_the_candidates(world: World) -> None:
    norn = world.server
    app = world.app("twins")
    first = app.deploy("first")
    prefix = first.rpartition(":")[2][:4]
    app.commit("second")
    app.commit_beginning_with(prefix)
    second = norn.deploy("twins")["imageTag"]
    answer = norn.norn("rollback", "twins", "--to", prefix)
    assert (answer.exit_status, answer.json()["code"]) == (3, "ambiguous_version")
    assert set(answer.json()["candidates"]) == {first, second}
    assert norn.status("twins")["live"]["imageTag"] == second
    longer = norn.norn("rollback", "twins", "--to", first.rpartition(":")[2][:11])
    assert longer.json()["imageTag"] == first


def test_a_stale_from_is_refused_and_names_what_is_live(shop: GitApp) -> None:
    history = shop.server.history("shop")
    reply = shop.server.api("POST", "/api/apps/shop/rollback", {"from": history[-1]["id"]})
    assert (reply.status, reply.body["code"]) == (409, "stale")
    assert reply.body["live"] == history[0]["id"]
    assert shop.get() == "three"


def test_a_target_that_is_live_already_changes_and_records_nothing(shop: GitApp) -> None:
    before = len(shop.server.history("shop"))
    reply = shop.server.api("POST", "/api/apps/shop/rollback", {"imageTag": tags(shop)["three"]})
    assert (reply.status, reply.body["unchanged"]) == (200, True)
    assert len(shop.server.history("shop")) == before


def test_the_main_job(world: World) -> None:
    """Deploy, break, `norn rollback`, and all that must be true afterwards."""
    norn = world.server
    app = world.app("myapp", more="replicas: 2\n")
    one, two, three = app.deploy("one"), app.deploy("two"), app.deploy("three")
    assert app.get() == "three"

    back = norn.norn("rollback", "myapp", "--reason", "three is wrong")
    assert back.exit_status == 0, back.err
    reply = back.json()
    assert app.get() == "two"
    assert (reply["kind"], reply["imageTag"], reply["fromImageTag"]) == ("rollback", two, three)
    assert (reply["reason"], reply["app"]) == ("three is wrong", "myapp")
    assert [step["step"] for step in reply["steps"]][:3] == ["prepare", "switch", "rollout"]
    norn.ended(reply["id"])

    history = norn.history("myapp")
    assert [(item["kind"], item["imageTag"], item["status"]) for item in history] == [
        ("rollback", two, "deployed"),
        ("deploy", three, "rolled_back"),
        ("deploy", two, "deployed"),
        ("deploy", one, "deployed"),
    ]
    assert history[1]["rolledBackBy"] == reply["id"]

    # Once it is settled, rolling back again goes further back, never to and fro.
    again = norn.norn("rollback", "myapp")
    assert again.exit_status == 0, again.err
    assert app.get() == "one"
    norn.ended(again.json()["id"])
    nothing = norn.norn("rollback", "myapp")
    assert (nothing.exit_status, nothing.json()["code"]) == (3, "nothing_to_roll_back_to")
    assert {skip["imageTag"] for skip in nothing.json()["skipped"]} == {one, two, three}

    # Rolling forward again neither marks nor quarantines.
    forward = norn.norn("rollback", "myapp", "--to", three)
    assert forward.exit_status == 0, forward.err
    assert app.get() == "three"
    norn.ended(forward.json()["id"])
    assert norn.history("myapp")[1]["status"] == "deployed"
    assert norn.history("myapp")[0]["imageTag"] == three


def test_no_build_and_no_migration_run_in_a_rollback(world: World) -> None:
    norn = world.server
    app = world.app("quiet", more='build: {command: sh -c "echo build >> $HOME/ran || true"}\n')
    app.deploy("one")
    app.deploy("two")
    back = norn.norn("rollback", "quiet")
    assert {step["step"] for step in back.json()["steps"]} <= {"prepare", "switch", "rollout", "bake"}


def test_a_quarantined_version_is_not_deployed_again_unless_forced(world: World) -> None:
    norn = world.server
    app = world.app("caged")
    app.deploy("one")
    bad = app.deploy("two")
    norn.ended(norn.norn("rollback", "caged").json()["id"])
    refused = norn.norn("deploy", "caged")
    assert (refused.exit_status, refused.json()["code"], refused.json()["imageTag"]) == (4, "quarantined", bad)
    assert norn.norn("deploy", "caged", "--force").exit_status == 0
    assert norn.norn("deploy", "caged").exit_status == 0, "--force lifts the quarantine"


def test_two_people_who_press_at_once_go_back_one_version(world: World) -> None:
    norn = world.server
    app = world.app("duo", bake="10m")
    for answer in ("one", "two", "three"):
        app.commit(answer)
        deploy = norn.api("POST", "/api/apps/duo/deploy").body
        norn.rolled_out(deploy["id"])
    with ThreadPoolExecutor(2) as people:
        both = list(people.map(lambda _: norn.api("POST", "/api/apps/duo/rollback"), range(2)))
    assert sorted(reply.status for reply in both) == [200, 202]
    assert both[0].body["id"] == both[1].body["id"]
    norn.rolled_out(both[0].body["id"])
    assert app.get() == "two"


def test_while_a_rollback_bakes_a_second_one_answers_with_it_and_further_goes_on(world: World) -> None:
    norn = world.server
    app = world.app("baker", bake="10m")
    app.commit("one")
    ids = []
    for answer in ("one", "two", "three"):
        if answer != "one":
            app.commit(answer)
        ids.append(norn.api("POST", "/api/apps/baker/deploy").body["id"])
        until(lambda: norn.operation(ids[-1])["committed"], "the rollout")
    # None of them is proven through its bake: the newest that rolled out is the target.
    first = norn.norn("rollback", "baker")
    assert first.exit_status == 0, first.err
    assert (first.json()["status"], app.get()) == ("baking", "two")
    second = norn.norn("rollback", "baker")
    assert (second.exit_status, second.json()["unchanged"], second.json()["id"]) == (0, True, first.json()["id"])
    assert app.get() == "two"
    further = norn.norn("rollback", "baker", "--further")
    assert further.exit_status == 0, further.err
    assert app.get() == "one"


def test_a_rollback_stops_a_deploy_that_has_not_rolled_out_and_goes_no_further(world: World) -> None:
    norn = world.server
    app = world.app("hasty")
    one = app.deploy("one")
    two = app.deploy("two")
    app.spec('build: {test: sh -c "sleep 60"}\n')
    app.commit("three")
    deploy = norn.api("POST", "/api/apps/hasty/deploy").body
    norn.step_begun(deploy["id"], "test")
    back = norn.norn("rollback", "hasty")
    assert back.exit_status == 0, back.err
    assert back.json()["imageTag"] == two != one
    assert app.get() == "two"
    assert norn.ended(deploy["id"])["status"] == "cancelled"
    norn.ended(back.json()["id"])
    statuses = {item["id"]: item["status"] for item in norn.history("hasty")}
    assert (statuses[deploy["id"]], statuses[back.json()["id"]]) == ("cancelled", "deployed")


@pytest.mark.parametrize("deployed", [[], ["one"]], ids=["no history", "one deployment"])
def test_with_nothing_to_go_back_to_it_says_so(world: World, deployed: list[str]) -> None:
    norn = world.server
    app = world.app(f"fresh-{len(deployed)}")
    app.commit("zero")
    for answer in deployed:
        app.deploy(answer)
    refused = norn.norn("rollback", app.name)
    assert (refused.exit_status, refused.json()["code"]) == (3, "nothing_to_roll_back_to")
    assert refused.json()["hint"]


def test_failed_deployments_are_nothing_to_go_back_to_and_each_says_why(world: World) -> None:
    norn = world.server
    app = world.app("unlucky")
    for attempt in ("first", "second"):
        app.commit(attempt, extra="sys.exit('never starts')")
        assert norn.norn("deploy", "unlucky").exit_status == 1
    refused = norn.norn("rollback", "unlucky")
    assert (refused.exit_status, refused.json()["code"]) == (3, "nothing_to_roll_back_to")
    assert all("failed" in skip["why"] for skip in refused.json()["skipped"])
    assert len(refused.json()["skipped"]) == 2


def test_the_image_alone_is_changed_and_with_template_all_of_how_it_ran(world: World) -> None:
    norn = world.server
    app = world.app("colours", more="env: {COLOUR: red}\n")
    app.deploy("one")
    first = norn.history("colours")[0]["id"]
    app.spec("env: {COLOUR: blue}\n")
    app.deploy("two")
    back = norn.norn("rollback", "colours")
    assert back.exit_status == 0, back.err
    assert "COLOUR=blue" in app.get("/env")
    assert app.get() == "one"
    norn.ended(back.json()["id"])
    app.deploy("three")
    back = norn.norn("rollback", "colours", "--to", first, "--template")
    assert back.exit_status == 0, back.err
    assert "COLOUR=red" in app.get("/env")


def test_no_wait_returns_once_the_runtime_has_accepted_the_change(world: World) -> None:
    norn = world.server
    app = world.app("brisk")
    one = app.deploy("one", extra="time.sleep(1)")
    app.deploy("two")
    back = norn.norn("rollback", "brisk", "--no-wait")
    assert (back.exit_status, back.json()["accepted"], back.json()["imageTag"]) == (0, True, one)
    norn.ended(back.json()["id"])
    assert app.get() == "one"


def test_a_timeout_exits_6_and_the_rollback_goes_on(world: World) -> None:
    norn = world.server
    app = world.app("slow")
    app.deploy("one", extra="time.sleep(5)")
    app.deploy("two")
    back = norn.norn("rollback", "slow", "--timeout", "500ms")
    assert back.exit_status == 6
    assert back.json()["code"] == "still_running"
    norn.ended(norn.history("slow")[0]["id"])
    assert app.get() == "one"


def test_a_quarantine_is_listed_and_can_be_lifted_by_a_prefix_of_its_commit(world: World) -> None:
    app = world.app("lifted")
    app.deploy("one")
    bad = app.deploy("two")
    world.server.ended(world.server.norn("rollback", "lifted").json()["id"])
    listed = world.server.norn("quarantine", "list", "lifted").json()["quarantine"]
    assert [(item["imageTag"], "rolled back from by" in item["why"]) for item in listed] == [(bad, True)]
    unknown = world.server.norn("quarantine", "lift", "lifted", "0123456")
    assert (unknown.exit_status, unknown.json()["candidates"]) == (3, [bad])
    lifted = world.server.norn("quarantine", "lift", "lifted", bad.rpartition(":")[2][:7])
    assert lifted.exit_status == 0, lifted.err
    assert world.server.norn("quarantine", "list", "lifted").json()["quarantine"] == []
    assert world.server.norn("deploy", "lifted").exit_status == 0
