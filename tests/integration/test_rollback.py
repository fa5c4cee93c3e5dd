"""Rolling back processes of this machine: what only they can show."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, Reply


def test_an_image_changed_by_hand_is_seen_and_the_recorded_live_one_is_the_target(norn: NornServer) -> None:
    app = App(norn, "byhand")
    one = app.deploy("one")
    active = norn.home / "apps" / "byhand" / "active.json"
    text = json.loads(active.read_text())
    changed = json.dumps(text).replace(one, "byhand:ffffffffffff")
    changed = changed.replace(json.loads(changed)["image"]["digest"], f"sha256:{'f' * 64}")
    changed = changed.replace(json.loads(changed)["deploymentId"], "0" * 26)
    active.write_text(changed)
    plan = norn.norn("rollback", "byhand", "--dry-run")
    assert plan.exit_status == 0, plan.err
    assert plan.json()["imageTag"] == one
    assert "in no deployment" in plan.json()["target"]["why"]


def test_a_target_that_does_not_become_healthy_is_reported_and_what_was_live_is_put_back(norn: NornServer) -> None:
    app = App(norn, "relapse")
    one = app.deploy("one", extra='if os.path.exists(os.environ["HOME"] + "/old-is-broken"): sys.exit("cannot start")')
    app.deploy("two")
    (app.home / "old-is-broken").touch()
    back = norn.norn("rollback", "relapse")
    assert back.exit_status == 1
    assert back.json()["imageTag"] == one
    assert back.json()["status"] == "failed"
    assert "cannot start" in back.err
    assert app.get() == "two"
    history = norn.history("relapse")
    assert [item["status"] for item in history] == ["failed", "deployed", "deployed"]
    assert history[1]["liveUntil"] is None


def test_the_number_of_processes_stays_and_with_template_comes_back(norn: NornServer) -> None:
    app = App(norn, "many")
    app.deploy("one")
    first = norn.history("many")[0]["id"]
    app.spec("replicas: 2\n")
    app.deploy("two")
    back = norn.norn("rollback", "many")
    assert back.exit_status == 0, back.err
    assert (app.get(), norn.status("many")["health"]["ready"]) == ("one", 2)
    norn.ended(back.json()["id"])
    app.deploy("three")
    back = norn.norn("rollback", "many", "--to", first, "--template")
    assert back.exit_status == 0, back.err
    assert norn.status("many")["health"]["ready"] == 1


def test_the_same_request_sent_several_times_at_once_is_one_rollback(norn: NornServer) -> None:
    app = App(norn, "eager")
    one = app.deploy("one")
    app.deploy("two")

    def ask(_: int) -> Reply:
        return norn.api("POST", "/api/apps/eager/rollback", {"imageTag": one}, Idempotency_Key="eager-1")

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask, range(8)))
    assert {reply.status for reply in replies} <= {200, 202}
    assert len({reply.body["id"] for reply in replies}) == 1
    assert [item["kind"] for item in norn.history("eager")] == ["rollback", "deploy", "deploy"]


def test_a_dry_run_with_a_used_key_is_still_a_dry_run(norn: NornServer) -> None:
    app = App(norn, "dry")
    app.deploy("one")
    two = app.deploy("two")
    taken = norn.api("POST", "/api/apps/dry/rollback", {}, Idempotency_Key="dry-1")
    norn.ended(taken.body["id"])
    plan = norn.api("POST", "/api/apps/dry/rollback", {"dryRun": True, "imageTag": two}, Idempotency_Key="dry-1")
    assert (plan.status, plan.body["dryRun"], plan.body["imageTag"]) == (200, True, two)


def test_a_request_that_joined_a_rollback_goes_no_further_when_it_is_sent_again(norn: NornServer) -> None:
    app = App(norn, "joined")
    app.deploy("zero")
    app.deploy("one")
    app.deploy("two")
    app.spec(bake="60s")
    first = norn.norn("rollback", "joined", "--template", "--no-wait").json()["id"]
    joined = norn.api("POST", "/api/apps/joined/rollback", Idempotency_Key="joined-1")
    norn.rolled_out(first)
    norn.norn("cancel", first)
    norn.ended(first)
    again = norn.api("POST", "/api/apps/joined/rollback", Idempotency_Key="joined-1")
    assert [(reply.body["id"], reply.body["unchanged"]) for reply in (joined, again)] == [(first, True)] * 2
    assert app.get() == "one"


def test_a_request_that_found_all_as_it_was_to_be_changes_nothing_when_it_is_sent_again(norn: NornServer) -> None:
    app = App(norn, "settled")
    one = app.deploy("one")
    live = norn.api("POST", "/api/apps/settled/rollback", {"imageTag": one}, Idempotency_Key="settled-1")
    app.deploy("two")
    again = norn.api("POST", "/api/apps/settled/rollback", {"imageTag": one}, Idempotency_Key="settled-1")
    assert (live.status, again.status) == (200, 200)
    assert (again.body["id"], again.body["unchanged"]) == (live.body["id"], True)
    assert app.get() == "two"


def test_a_dry_run_that_finds_all_as_it_was_to_be_does_not_take_the_key(norn: NornServer) -> None:
    app = App(norn, "rehearsed")
    one = app.deploy("one")
    norn.api("POST", "/api/apps/rehearsed/rollback", {"imageTag": one, "dryRun": True}, Idempotency_Key="rehearsed-1")
    app.deploy("two")
    taken = norn.api("POST", "/api/apps/rehearsed/rollback", {"imageTag": one}, Idempotency_Key="rehearsed-1")
    assert (taken.status, norn.ended(taken.body["id"])["status"], app.get()) == (202, "succeeded", "one")


def test_asking_for_what_is_live_stops_a_rollback_that_is_leaving_it(norn: NornServer) -> None:
    app = App(norn, "second-thoughts")
    hangs = 'while os.path.exists(os.environ["HOME"] + "/hangs"): time.sleep(0.05)'
    app.deploy("one", extra=hangs)
    two = app.deploy("two")
    (app.home / "hangs").touch()
    leaving = norn.api("POST", "/api/apps/second-thoughts/rollback").body["id"]
    norn.step_begun(leaving, "rollout")
    stays = norn.api("POST", "/api/apps/second-thoughts/rollback", {"imageTag": two})
    assert (stays.status, stays.body["unchanged"]) == (202, False)
    assert norn.ended(stays.body["id"])["status"] == "succeeded"
    assert (norn.operation(leaving)["status"], app.get()) == ("cancelled", "two")
