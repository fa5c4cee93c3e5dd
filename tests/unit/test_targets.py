"""Which deployment a rollback goes to, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norn.domain.deployments import Deployment, Kind, Status
from norn.domain.targets import LiveVersion, NoTarget, Target, choose_target, goes_back, named_target

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def deployment(seq: int, image: str, status: Status = Status.DEPLOYED, **more: Any) -> Deployment:
    """A deployment that rolled out and is proven, unless said otherwise; `seq` hours after the first."""
    at = NOW - timedelta(days=30) + seq * HOUR
    out = status in (Status.DEPLOYED, Status.ROLLED_BACK, Status.BAKING)
    values: dict[str, Any] = {
        "id": f"d{seq}",
        "seq": seq,
        "app": "shop",
        "kind": Kind.DEPLOY,
        "status": status,
        "image_tag": f"shop:{image}",
        "digest": f"sha256:{image}",
        "commit_sha": image,
        "commit_subject": "",
        "origin_seq": seq,
        "requested_by": "ada",
        "requested_at": at,
        "rolled_out_at": at if out else None,
        "proven_at": at if out else None,
        "live_from": at if out else None,
        "live_until": at + 2 * HOUR if out else None,
    }
    return Deployment(**values | more)


def live(of: Deployment | None, image: str = "") -> LiveVersion:
    name = of.commit_sha if of else image
    return LiveVersion(f"shop:{name}", f"sha256:{name}", of)


def choose(*history: Deployment, of: LiveVersion | None, **more: Any) -> Target | NoTarget:
    newest_first = sorted(history, key=lambda d: -d.seq)
    rules: dict[str, Any] = {"quarantined": {}, "missing": frozenset(), "now": NOW} | more
    return choose_target(newest_first, of, **rules)


def chosen(choice: Target | NoTarget) -> str:
    assert isinstance(choice, Target), choice
    return choice.deployment.id


def skipped(choice: Target | NoTarget) -> dict[str, str]:
    return {skip.deployment_id: skip.why for skip in choice.skipped}


def test_the_target_is_the_newest_known_good_deployment_before_what_is_live() -> None:
    a, b, c = deployment(1, "a"), deployment(2, "b"), deployment(3, "c")
    assert chosen(choose(a, b, c, of=live(c))) == "d2"


@pytest.mark.parametrize(
    ("in_between", "why"),
    [
        (deployment(2, "b", Status.FAILED, error={"message": "no such module"}), "it failed: no such module"),
        (deployment(2, "b", Status.CANCELLED), "it was cancelled"),
        (deployment(2, "b", Status.ROLLED_BACK, rolled_back_by="d9"), "it was rolled back by d9"),
        (deployment(2, "b", Status.BUILDING), "it has not rolled out"),
        (deployment(2, "c"), "its image is what is live"),
        (deployment(2, "c", rolled_out_at=None), "its image is what is live"),  # its data was brought back
        (deployment(2, "b", proven_at=None), "it was not proven through its whole bake time"),
    ],
    ids=lambda value: value.status.value if isinstance(value, Deployment) else "",
)
def test_what_is_not_known_good_is_passed_over_and_the_reply_says_why(in_between: Deployment, why: str) -> None:
    choice = choose(deployment(1, "a"), in_between, deployment(3, "c"), of=live(deployment(3, "c")))
    assert chosen(choice) == "d1"
    assert skipped(choice) == {"d2": why}


def test_a_quarantined_image_is_passed_over_with_the_reason_of_the_quarantine() -> None:
    c = deployment(3, "c")
    choice = choose(deployment(1, "a"), deployment(2, "b"), c, of=live(c), quarantined={"shop:b": "ada went back"})
    assert chosen(choice) == "d1"
    assert skipped(choice) == {"d2": "its image is in quarantine: ada went back"}


def test_an_image_that_no_longer_exists_is_passed_over() -> None:
    c = deployment(3, "c")
    choice = choose(deployment(1, "a"), deployment(2, "b"), c, of=live(c), missing=frozenset({"shop:b"}))
    assert (chosen(choice), skipped(choice)) == ("d1", {"d2": "its image no longer exists"})


def test_where_none_is_proven_the_newest_that_rolled_out_is_taken_with_a_caution() -> None:
    a, b, c = deployment(1, "a", proven_at=None), deployment(2, "b", proven_at=None), deployment(3, "c")
    choice = choose(a, b, c, of=live(c))
    assert chosen(choice) == "d2"
    assert isinstance(choice, Target)
    assert [finding.code for finding in choice.findings] == ["target_unproven"]


def test_going_back_twice_goes_further_back_never_to_and_fro() -> None:
    a, b, c = deployment(1, "a"), deployment(2, "b"), deployment(3, "c", Status.ROLLED_BACK)
    back_to_b = deployment(4, "b", kind=Kind.ROLLBACK, origin_seq=2)
    assert chosen(choose(a, b, c, back_to_b, of=live(back_to_b))) == "d1"


def test_after_going_back_by_two_what_lies_between_is_newer_and_is_not_chosen() -> None:
    a, b, c = deployment(1, "a"), deployment(2, "b"), deployment(3, "c", Status.ROLLED_BACK)
    back_to_a = deployment(4, "a", kind=Kind.ROLLBACK, origin_seq=1)
    choice = choose(a, b, c, back_to_a, of=live(back_to_a))
    assert isinstance(choice, NoTarget)
    assert "newer than what is live" in skipped(choice)["d2"]


def test_what_runs_in_no_deployment_goes_back_to_the_newest_known_good_the_recorded_live_one_included() -> None:
    a, b = deployment(1, "a"), deployment(2, "b", live_until=None)
    choice = choose(a, b, of=live(None, "by-hand"))
    assert chosen(choice) == "d2"
    assert isinstance(choice, Target)
    assert "shop:by-hand" in choice.why


def test_a_target_live_for_minutes_after_one_live_for_days_is_a_caution_that_names_the_steady_one() -> None:
    a = deployment(1, "a", live_until=NOW - timedelta(days=20))
    b = deployment(2, "b")
    b = deployment(2, "b", live_until=b.live_from + timedelta(minutes=5) if b.live_from else None)
    c = deployment(3, "c")
    choice = choose(a, b, c, of=live(c))
    assert isinstance(choice, Target)
    (finding,) = choice.findings
    assert (finding.code, finding.facts["imageTag"]) == ("target_short_lived", "shop:a")


@pytest.mark.parametrize(
    ("history", "why"),
    [
        ([], "there is no deployment in the history"),
        ([deployment(1, "a")], "shop:a is the only deployment there is"),
        ([deployment(1, "b", Status.FAILED), deployment(2, "a")], "none of the other deployments can be gone back to"),
    ],
    ids=["no history", "one deployment", "only failed ones"],
)
def test_where_there_is_nothing_to_go_back_to_it_says_so(history: list[Deployment], why: str) -> None:
    now_live = next((d for d in history if d.commit_sha == "a"), None)
    choice = choose(*history, of=live(now_live) if now_live else None)
    assert isinstance(choice, NoTarget)
    assert choice.why == why


def test_a_version_asked_for_by_name_may_be_newer_than_what_is_live() -> None:
    a, b = deployment(1, "a"), deployment(2, "b")
    target = named_target(b, "shop:b", live(a), NOW)
    assert "going forward" in target.why
    assert not goes_back(b, live(a))
    assert goes_back(a, live(b))


statuses = st.sampled_from(list(Status))
histories = st.lists(st.tuples(st.sampled_from("abcde"), statuses, st.booleans()), min_size=1, max_size=12)


@given(histories, st.data())
def test_the_choice_is_never_what_is_live_failed_quarantined_or_missing(
    rows: list[tuple[str, Status, bool]], data: st.DataObject
) -> None:
    history = [
        deployment(seq, image, status, **({} if proven else {"proven_at": None}))
        for seq, (image, status, proven) in enumerate(rows, 1)
    ]
    now_live = data.draw(st.sampled_from(history))
    quarantined = {f"shop:{image}": "why" for image in data.draw(st.sets(st.sampled_from("abcde")))}
    missing = frozenset(f"shop:{image}" for image in data.draw(st.sets(st.sampled_from("abcde"))))
    choice = choose(*history, of=live(now_live), quarantined=quarantined, missing=missing)
    if isinstance(choice, Target):
        target = choice.deployment
        assert target.rolled_out_at is not None
        assert target.status in (Status.DEPLOYED, Status.BAKING)
        assert target.image_tag != now_live.image_tag
        assert target.image_tag not in quarantined
        assert target.image_tag not in missing
        assert target.origin_seq <= now_live.origin_seq
        newer = [d for d in history if d.seq > target.seq and d.id != now_live.id]
        assert {skip.deployment_id for skip in choice.skipped} == {d.id for d in newer}


@given(histories)
def test_a_longer_history_never_changes_a_known_good_choice(rows: list[tuple[str, Status, bool]]) -> None:
    history = [deployment(seq, image, status) for seq, (image, status, _) in enumerate(rows, 1)]
    newest_first = sorted(history, key=lambda d: -d.seq)
    of = live(newest_first[0])
    whole = choose(*history, of=of)
    for length in range(1, len(newest_first)):
        part = choose(*newest_first[:length], of=of)
        if isinstance(part, Target) and part.deployment.known_good:
            assert chosen(whole) == chosen(part)
