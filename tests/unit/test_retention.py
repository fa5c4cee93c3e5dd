"""Retention: what is protected never goes, and of the rest exactly N versions stay."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norn.domain.deployments import Deployment, Kind, Status
from norn.domain.retention import (
    Fate,
    FormerDatabase,
    InUse,
    StoredImage,
    StoredSnapshot,
    going,
    plan_retention,
    way_back,
)

START = datetime(2026, 11, 1, tzinfo=UTC)
NOTHING = InUse(None, None, frozenset())


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


def deployed(
    n: int, *, live: tuple[float, float | None] | None = None, version: int | None = None, kind: Kind = Kind.DEPLOY
) -> Deployment:
    """The deployment number n, of a version of its own unless another one is given."""
    of = n if version is None else version
    return Deployment(
        id=f"deploy{n}",
        seq=n,
        app="shop",
        kind=kind,
        status=Status.DEPLOYED if live else Status.FAILED,
        image_tag=f"shop:{of:012d}",
        digest=f"sha256:{of}",
        commit_sha=f"{of:040d}",
        commit_subject="",
        origin_seq=of,
        requested_by="admin",
        requested_at=at(n),
        rolled_out_at=at(live[0]) if live else None,
        live_from=at(live[0]) if live else None,
        live_until=at(live[1]) if live and live[1] is not None else None,
    )


def history_of(versions: int) -> list[Deployment]:
    """Each version live for an hour, the last one still; newest first."""
    return [deployed(n, live=(n, n + 1 if n < versions else None)) for n in range(versions, 0, -1)]


def images_of(history: Sequence[Deployment]) -> list[StoredImage]:
    return [StoredImage(found.image_tag, found.digest or "") for found in history]


def before(n: int, hour: float | None = None, *, kept: bool = False, by: str | None = None) -> StoredSnapshot:
    """The snapshot that deploy n took before its migration."""
    return StoredSnapshot(f"before{n}", at(n - 0.1 if hour is None else hour), by or f"deploy{n}", kept)


def plan(
    history: Sequence[Deployment],
    *,
    images: Sequence[StoredImage] | None = None,
    snapshots: Sequence[StoredSnapshot] = (),
    formers: Sequence[FormerDatabase] = (),
    in_use: InUse = NOTHING,
    retain: int = 5,
    now: datetime | None = None,
) -> list[Fate]:
    images = images_of(history) if images is None else images
    return plan_retention(
        history, images, snapshots, formers, in_use, retain=retain, keep_replaced=timedelta(days=7), now=now or at(100)
    )


def staying(fates: Sequence[Fate], kind: str) -> list[str]:
    return [fate.name for fate in fates if fate.kind == kind and fate.stays]


def why(fates: Sequence[Fate], name: str) -> str:
    return next(fate.why for fate in fates if fate.name == name)


def test_the_newest_n_versions_stay() -> None:
    assert staying(plan(history_of(8), retain=3), "image") == [f"shop:{n:012d}" for n in (8, 7, 6)]


def test_each_that_goes_says_why() -> None:
    assert why(plan(history_of(8), retain=3), "shop:000000000005") == "older than the newest 3 versions"


def test_failed_attempts_do_not_count_and_go() -> None:
    history = [deployed(4), *history_of(3)]
    fates = plan(history, retain=2)
    assert staying(fates, "image") == ["shop:000000000003", "shop:000000000002"]
    assert why(fates, "shop:000000000004") == "it never rolled out"


def test_a_version_that_was_gone_back_to_counts_from_then() -> None:
    history = [deployed(9, live=(9, None), version=1, kind=Kind.ROLLBACK), *history_of(3)]
    assert staying(plan(history, retain=2), "image") == ["shop:000000000001", "shop:000000000003", "shop:000000000001"]


@pytest.mark.parametrize(
    ("in_use", "reason"),
    [
        (InUse("sha256:1", None, frozenset()), "it is live"),
        (InUse(None, "sha256:1", frozenset()), "a rollback would go to it now"),
        (InUse(None, None, frozenset({"sha256:1"})), "a running operation uses it"),
        (InUse(None, None, frozenset({"shop:000000000001"})), "a running operation uses it"),
    ],
    ids=["live", "target", "digest in use", "tag in use"],
)
def test_what_is_in_use_stays_whatever_its_age(in_use: InUse, reason: str) -> None:
    fates = plan(history_of(8), retain=2, in_use=in_use)
    assert why(fates, "shop:000000000001") == reason
    assert "shop:000000000001" in staying(fates, "image")


def test_a_snapshot_stays_as_long_as_the_version_it_is_the_way_back_to() -> None:
    snapshots = [before(n) for n in range(8, 0, -1)]
    # before8 was taken while 7 was live, and so on; 8, 7 and 6 are kept.
    assert staying(plan(history_of(8), snapshots=snapshots, retain=3), "snapshot") == ["before8", "before7"]


def test_of_several_attempts_the_first_snapshot_is_the_way_back() -> None:
    history = [deployed(4, live=(5, None)), deployed(3), deployed(2), deployed(1, live=(1, 5))]
    snapshots = [before(4, 4), before(3, 3), before(2, 2)]
    assert way_back("sha256:1", history, snapshots) == "before2"
    fates = plan(history, snapshots=snapshots)
    assert staying(fates, "snapshot") == ["before4", "before2"]  # the newest, and the way back
    assert "later attempt" in why(fates, "before3")


def test_the_way_back_is_counted_from_when_a_version_last_went_live() -> None:
    again = deployed(3, live=(3, 4), version=1, kind=Kind.ROLLBACK)
    history = [deployed(4, live=(4, None)), again, deployed(2, live=(2, 3)), deployed(1, live=(1, 2))]
    snapshots = [before(4, 3.9), before(2, 1.9)]
    assert way_back("sha256:1", history, snapshots) == "before4"


def test_a_version_that_was_gone_back_to_keeps_its_way_back_until_a_deploy_comes_again() -> None:
    again = deployed(3, live=(3, None), version=1, kind=Kind.ROLLBACK)
    history = [again, deployed(2, live=(2, 3)), deployed(1, live=(1, 2))]
    assert way_back("sha256:1", history, [before(2, 1.9)]) == "before2"


def test_the_data_of_what_the_code_has_gone_back_to_stays_though_a_deploy_has_failed_since() -> None:
    again = deployed(3, live=(3, None), version=1, kind=Kind.ROLLBACK)
    history = [deployed(4), again, deployed(2, live=(2, 3)), deployed(1, live=(1, 2))]
    snapshots = [before(5, 4.5, by="deploy4"), before(4, 3.9), before(2, 1.9)]
    assert way_back("sha256:1", history, snapshots, before=at(3)) == "before2"
    assert "before2" in staying(plan(history, snapshots=snapshots), "snapshot")


def test_a_version_that_no_deploy_has_followed_has_no_way_back() -> None:
    assert way_back("sha256:3", history_of(3), [before(3), before(2)]) is None


def test_a_snapshot_by_hand_stays_as_long_as_the_version_that_was_live() -> None:
    hand = StoredSnapshot("hand", at(2.5), "snapshot1", kept=False)
    newest = before(8)
    assert "hand" in staying(plan(history_of(8), snapshots=[newest, hand], retain=8), "snapshot")
    assert "hand" not in staying(plan(history_of(8), snapshots=[newest, hand], retain=2), "snapshot")


def test_what_was_taken_to_be_kept_is_kept() -> None:
    hand = StoredSnapshot("hand", at(0.5), "snapshot1", kept=True)
    assert "hand" in staying(plan(history_of(8), snapshots=[before(8), hand], retain=1), "snapshot")


def test_a_former_database_goes_after_its_time() -> None:
    young, old = FormerDatabase("r2", "young", at(0)), FormerDatabase("r1", "old", at(-24))
    fates = plan(history_of(1), formers=[young, old], now=at(7 * 24 - 1))
    assert staying(fates, "database") == ["young"]
    assert why(fates, "old") == "it was replaced 7d 23h ago"


@given(
    rolled_out=st.lists(st.booleans(), min_size=1, max_size=30),
    retain=st.integers(1, 10),
    live=st.integers(0, 30),
    target=st.integers(0, 30),
    used=st.sets(st.integers(0, 30), max_size=3),
)
def test_nothing_protected_ever_goes_and_exactly_n_others_stay(
    rolled_out: list[bool], retain: int, live: int, target: int, used: set[int]
) -> None:
    history = [deployed(n, live=(n, n + 1) if ok else None) for n, ok in reversed(list(enumerate(rolled_out, start=1)))]
    protected = {f"sha256:{n}" for n in (live, target, *used)}
    in_use = InUse(f"sha256:{live}", f"sha256:{target}", frozenset(f"sha256:{n}" for n in used))
    snapshots = [before(found.seq) for found in history] + [StoredSnapshot("hand", at(0), "by hand", kept=True)]
    fates = plan(history, snapshots=snapshots, in_use=in_use, retain=retain)
    by_digest = {fate.key: fate.stays for fate in fates if fate.kind == "image"}
    assert all(by_digest[digest] for digest in protected & by_digest.keys())
    newest = [found.digest for found in history if found.rolled_out_at is not None][:retain]
    assert {digest for digest, stays in by_digest.items() if stays} == {*newest, *protected} & by_digest.keys()
    kept_snapshots = staying(fates, "snapshot")
    assert "hand" in kept_snapshots
    for digest in (digest for digest, stays in by_digest.items() if stays):
        found = way_back(digest, history, snapshots)
        assert found is None or found in kept_snapshots


@given(st.integers(1, 30), st.integers(1, 10))
def test_applied_twice_nothing_more_goes(versions: int, retain: int) -> None:
    history = history_of(versions)
    snapshots = [before(n) for n in range(versions, 0, -1)]
    first = plan(history, snapshots=snapshots, retain=retain)
    images = [StoredImage(fate.name, fate.key) for fate in first if fate.kind == "image" and fate.stays]
    left = [found for found in snapshots if found.name in staying(first, "snapshot")]
    assert all(fate.stays for fate in plan(history, images=images, snapshots=left, retain=retain))


# ---- what somebody says yes to -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by_now", "same"),
    [
        ([Fate("image", "a", False, "for another reason"), Fate("image", "b", True, "")], True),
        ([Fate("image", "a", False, ""), Fate("image", "b", False, "")], False),
        ([Fate("snapshot", "a", False, "")], False),
        ([Fate("image", "a", True, ""), Fate("image", "b", False, "")], False),
    ],
)
def test_a_yes_is_for_what_goes_and_for_nothing_else(by_now: list[Fate], same: bool) -> None:
    seen = going([Fate("image", "a", False, ""), Fate("image", "b", True, "")])
    assert (going(by_now) == seen) == same
