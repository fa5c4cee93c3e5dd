"""The parts of a verdict beside the schema: ledgers, configuration, rows, what lies outside, and their sum."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.test_targets import deployment

from norn.domain.configuration import configuration_finding, digests, template_finding, unread_finding
from norn.domain.contents import Rewritten, TableContents, Usual, rewritten, rows_changed_finding
from norn.domain.dependencies import dependency_findings
from norn.domain.deployments import Kind, Status
from norn.domain.infraspec.spec import Dependency
from norn.domain.ledgers import Ledger, ledger_findings, migrates_at_start
from norn.domain.ports import DependencyAnswer
from norn.domain.surroundings import AFTER, BEFORE, Noted, Restored, replaced, unseen, way_to_present
from norn.domain.verdict import Finding, Level, Way, not_checked, verdict_of
from norn.domain.written import Written, written_finding

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)
SAFE, CAUTION, UNSAFE = (Finding(level.value, level, "") for level in Level)


@pytest.mark.parametrize(
    ("findings", "level"),
    [([], Level.SAFE), ([SAFE], Level.SAFE), ([SAFE, CAUTION], Level.CAUTION), ([CAUTION, UNSAFE, SAFE], Level.UNSAFE)],
)
def test_a_verdict_is_the_most_serious_of_its_findings(findings: list[Finding], level: Level) -> None:
    assert verdict_of(findings).level is level


def test_the_most_serious_finding_comes_first() -> None:
    assert verdict_of([SAFE, UNSAFE, CAUTION]).findings == (UNSAFE, CAUTION, SAFE)


def test_what_was_not_checked_is_a_caution_that_says_why() -> None:
    found = not_checked("the schema", "it took longer than 2 s")
    assert (found.code, found.level) == ("not_checked", Level.CAUTION)
    assert found.message == "The schema was not checked: it took longer than 2 s."


def test_a_finding_says_what_helps() -> None:
    found = Finding("x", Level.UNSAFE, "m", {"a": 1}, (Way("helps", command="norn x"),))
    ways = [{"text": "helps", "command": "norn x", "statement": ""}]
    assert found.to_json() == {"code": "x", "level": "unsafe", "message": "m", "a": 1, "ways": ways}


# ---- ledgers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "migrates"),
    [
        (("sh", "-c", "alembic upgrade head && exec gunicorn shop"), True),
        (("python", "manage.py", "migrate", "--noinput"), True),
        (("sh", "-c", "bundle exec rails db:migrate; puma"), True),
        (("npx", "prisma", "migrate", "deploy"), True),
        (("goose", "-dir", "m", "postgres", "$DATABASE_URL", "up"), True),
        (("dbmate", "up"), True),
        (("migrate", "-path", "m", "-database", "x", "up"), True),
        (("gunicorn", "shop.migrate:app"), False),
        (("python", "manage.py", "runserver"), False),
        (None, False),
    ],
)
def test_a_command_that_migrates_at_start_is_recognised(command: tuple[str, ...] | None, *, migrates: bool) -> None:
    assert migrates_at_start(command) is migrates


ALEMBIC = Ledger("Alembic", "public.alembic_version", ("a1",))
DJANGO = Ledger("Django", "public.django_migrations", ("shop.0001",))


@pytest.mark.parametrize(
    ("present", "at_start", "expected"),
    [
        (ALEMBIC, True, []),
        (replace(ALEMBIC, revisions=("b2",)), True, [Level.UNSAFE]),
        (replace(ALEMBIC, revisions=("b2",)), None, [Level.CAUTION]),
        (replace(ALEMBIC, revisions=("b2",)), False, []),
    ],
)
def test_a_revision_that_the_target_does_not_know(
    present: Ledger, at_start: bool | None, expected: list[Level]
) -> None:
    found = ledger_findings([ALEMBIC], [present], at_start=at_start, image_tag="shop:1")
    assert [finding.level for finding in found] == expected


def test_a_tool_that_passes_over_what_it_does_not_know_is_no_finding() -> None:
    newer = replace(DJANGO, revisions=("shop.0001", "shop.0002"))
    assert ledger_findings([DJANGO], [newer], at_start=True, image_tag="shop:1") == ()


# ---- configuration -------------------------------------------------------------------------------------------------

KEY = b"k" * 32


def test_digests_do_not_show_values_nor_which_are_equal() -> None:
    found = digests({"env A": "s3cret", "env B": "s3cret"}, KEY)
    assert found["env A"] != found["env B"]
    assert "s3cret" not in str(found)
    assert digests({"env A": "s3cret"}, b"other")["env A"] != found["env A"]


@pytest.mark.parametrize(
    ("then", "now", "level"),
    [
        ({"env A": "1"}, {"env A": "1"}, None),
        ({"env A": "1"}, {"env A": "2"}, Level.CAUTION),
        ({"env A": "1"}, {}, Level.CAUTION),
        ({}, {"env A": "1"}, Level.SAFE),
    ],
)
def test_a_changed_configuration_is_named(then: dict[str, str], now: dict[str, str], level: Level | None) -> None:
    found = configuration_finding(digests(then, KEY), digests(now, KEY), "shop", "shop:1")
    assert (found.level if found else None) is level
    assert found is None or "env A" in found.message


def test_what_may_not_be_read_is_said_once_and_is_neither_removed_nor_added() -> None:
    then = digests({"secret vault/KEY": "1", "env A": "1"}, KEY)
    now = digests({"unread secret vault": "", "unread config map colours": "", "env A": "1"}, KEY)
    assert configuration_finding(then, now, "shop", "shop:1") is None
    found = unread_finding(then, now)
    assert found is not None
    assert (found.level, found.facts["why"]) == (Level.CAUTION, "Norn may not read config map colours, secret vault")
    assert unread_finding(then, then) is None


def test_a_secret_that_norn_has_set_and_may_not_read_is_named_with_the_way_to_set_it_back() -> None:
    side = digests({"noted secret shop-secrets": ""}, KEY)
    assert configuration_finding(side, side, "shop", "shop:1") is None
    assert unread_finding(side, side) is None, "Norn knows when it was set"
    found = configuration_finding(side, side, "shop", "shop:1", ["SMTP_KEY"])
    assert found is not None
    assert (found.level, found.facts["changed"]) == (Level.CAUTION, ["secret SMTP_KEY"])
    assert [way.command for way in found.ways] == ["norn secrets set shop SMTP_KEY"]


def test_a_template_that_does_not_fit_the_image_is_unsafe_and_template_is_the_way_out() -> None:
    found = template_finding(
        {"port of web": "[80]"}, {"port of web": "[90]", "container side": "there"}, "shop", "shop:1"
    )
    assert found is not None
    assert (found.level, found.facts["different"]) == (Level.UNSAFE, ["container side", "port of web"])
    assert found.ways[0].command == "norn rollback shop --to shop:1 --template"
    assert template_finding({"a": "b"}, {"a": "b"}, "shop", "shop:1") is None


# ---- rows ----------------------------------------------------------------------------------------------------------


def held(touched: int = 0, rows: int = 3, oid: int = 1, **columns: str) -> TableContents:
    return TableContents(oid, touched, rows, {name: ("text", digest) for name, digest in columns.items()})


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (held(a="1"), held(a="1"), ()),
        (held(a="1"), held(touched=3, a="2"), (Rewritten("t", 3, ("a",)),)),
        (held(a="1"), held(touched=3, a="1", b="9"), ()),
        (held(a="1"), held(rows=5, a="2"), ()),
        (held(a="1"), held(rows=2, a="2"), (Rewritten("t", 1, ("a",)),)),
        (held(), held(touched=3), (Rewritten("t", 3, None),)),
        (held(), held(), ()),
        (held(a="1"), held(touched=3, oid=2, a="2"), ()),
    ],
    ids=[
        "the same",
        "changed",
        "backfilled",
        "only added",
        "deleted",
        "not known",
        "not known, not touched",
        "made anew",
    ],
)
def test_rows_that_a_migration_has_changed(
    before: TableContents, after: TableContents, expected: tuple[Rewritten, ...]
) -> None:
    assert rewritten({"t": before}, {"t": after}) == expected


def test_a_table_that_has_another_name_by_now_is_found_by_its_number() -> None:
    found = rewritten({"t": held(a="1")}, {"t_base": held(touched=3, a="2"), "t": held(oid=2, a="1")})
    assert found == (Rewritten("t", 3, ("a",)),)


def test_a_table_in_another_file_whose_values_are_others_was_rewritten_though_no_row_counts_as_updated() -> None:
    before, after = {"t": held(a="1")}, {"t": held(a="2", rows=4)}
    assert rewritten(before, after, {"t": 1}, {"t": 2}) == (Rewritten("t", 1, ("a",), whole=True),)
    assert rewritten(before, after, {"t": 1}, {"t": 1}) == ()


BUSY = Usual(touched=3_600, seconds=3_600, deleted=36)
HALF_A_MINUTE = NOW + timedelta(seconds=30)


@pytest.mark.parametrize(
    ("one", "level"),
    [
        (Rewritten("t", 40, None), Level.SAFE),
        (Rewritten("t", 65, None), Level.CAUTION),
        (Rewritten("t", 20, None, deleted=20), Level.CAUTION),
        (Rewritten("t", 1, ("a",), whole=True), Level.CAUTION),
    ],
    ids=["as usual", "more", "deleted where the app deletes little", "the whole table"],
)
def test_what_a_migration_has_changed_does_not_hide_behind_what_the_app_usually_does(
    one: Rewritten, level: Level
) -> None:
    found = rows_changed_finding([one], {"t": BUSY}, NOW, HALF_A_MINUTE)
    assert found is not None
    assert found.level is level


def test_what_the_app_itself_usually_does_is_no_caution() -> None:
    busy = Usual(touched=3_600, seconds=3_600)
    ended = NOW + timedelta(seconds=30)
    assert rows_changed_finding([], {"t": busy}, NOW, ended) is None
    found = rows_changed_finding([Rewritten("t", 4_000, ("a",))], {"t": busy}, NOW, ended)
    assert found is not None
    assert (found.level, "t (a)" in found.message) == (Level.CAUTION, True)


def test_a_table_comes_back_from_its_json() -> None:
    assert TableContents.from_json(held(a="1").to_json()) == held(a="1")
    assert TableContents.from_json([1, 0, 3, {"a": ["text", "1"]}]) == held(a="1"), "as it was kept before"
    for one in (Rewritten("t", 3, None), Rewritten("t", 3, ("a",), whole=True, deleted=2)):
        assert Rewritten.from_json(one.to_json()) == one


def test_rows_written_are_told_table_by_table_the_most_first() -> None:
    written = [
        Written("t", 0, 2, complete=True, file=1),
        Written("u", 5, 9, complete=False, file=1),
        Written("w", 0, 0, complete=True, file=1),
    ]
    found = written_finding(written, {"t": 1, "u": 1, "w": 1})
    assert found is not None
    assert found.message.endswith("u at least 9 and 5 by the migration; t 2.")
    assert found.level is Level.SAFE
    assert written_finding(written[2:], {"w": 1}) is None


# ---- what lies outside ---------------------------------------------------------------------------------------------

PAY = Dependency("pay", "https://pay.example.com/health", 200)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (DependencyAnswer(PAY, 200), []),
        (DependencyAnswer(PAY, 503), ["answers 503 and not 200"]),
        (DependencyAnswer(PAY, None, "no answer within 1.5 s"), ["gives no answer: no answer within 1.5 s"]),
    ],
)
def test_somebody_elses_outage_is_a_caution(answer: DependencyAnswer, expected: list[str]) -> None:
    found = dependency_findings([answer], "shop:1")
    assert [finding.level for finding in found] == [Level.CAUTION] * len(expected)
    assert all(what in finding.message for what, finding in zip(expected, found, strict=True))


# ---- which records count -------------------------------------------------------------------------------------------

HISTORY = [deployment(seq, image) for seq, image in enumerate(("a", "b", "c"), 1)]


@pytest.mark.parametrize(
    ("target", "recorded", "expected"),
    [
        (1, ["d1 after", "d2 before", "d2 after", "d3 before", "d3 after"],
         ["d2 before", "d2 after", "d3 before", "d3 after"]),
        (2, ["d1 after", "d2 before", "d2 after", "d3 before"], ["d3 before"]),
        (3, ["d2 after", "d3 before", "d3 after"], ["d3 after"]),
        (1, ["d1 after"], ["d1 after"]),
        (1, ["d3 before"], []),
        (1, ["d1 after", "d3 before"], ["d1 after", "d3 before"]),
        (1, [], []),
    ],
)  # fmt: skip
def test_the_way_begins_where_the_first_deploy_after_the_target_began(
    target: int, recorded: list[str], expected: list[str]
) -> None:
    noted = [Noted(name.partition(" ")[0], name.partition(" ")[2], NOW) for name in recorded]
    found = way_to_present(HISTORY[target - 1], HISTORY, noted)
    assert [f"{one.deployment_id} {one.moment}" for one in found] == expected


def test_a_rollback_as_target_counts_from_the_deploy_that_brought_its_version() -> None:
    back = deployment(4, "a", kind=Kind.ROLLBACK, origin_seq=1)
    noted = [Noted("d1", AFTER, NOW), Noted("d2", BEFORE, NOW), Noted("d2", AFTER, NOW)]
    assert way_to_present(back, [*HISTORY, back], noted)[0] == noted[1]


def test_beyond_the_history_that_was_read_nothing_is_known() -> None:
    noted = [Noted("d2", BEFORE, NOW), Noted("d2", AFTER, NOW)]
    assert way_to_present(HISTORY[0], HISTORY[1:], noted) == []


def test_a_deploy_that_failed_before_it_changed_anything_hides_nothing() -> None:
    failed = deployment(2, "b", Status.FAILED)
    noted = [Noted("d3", BEFORE, NOW), Noted("d3", AFTER, NOW)]
    assert way_to_present(HISTORY[0], [HISTORY[0], failed, HISTORY[2]], noted) == noted


@pytest.mark.parametrize(
    ("recorded", "hidden"),
    [
        ([("d2", BEFORE, True), ("d2", AFTER, True)], []),
        ([("d2", BEFORE, True), ("d2", AFTER, False)], ["d2"]),
        ([("d2", BEFORE, True), ("d3", BEFORE, True), ("d3", AFTER, True)], ["d2"]),
        ([("d2", BEFORE, True), ("d2", AFTER, True), ("d3", BEFORE, False), ("d3", AFTER, True)], ["d3"]),
        ([("d1", AFTER, True)], []),
    ],
    ids=["all seen", "not seen after", "a migration that never ended", "not seen before", "nothing since"],
)
def test_where_nobody_has_looked_something_may_hide(recorded: list[tuple[str, str, bool]], hidden: list[str]) -> None:
    way = [Noted(name, moment, NOW, looked=looked) for name, moment, looked in recorded]
    assert [one.deployment_id for one in unseen(way)] == hidden


def test_another_database_is_known_but_for_a_restore_that_has_put_it_there() -> None:
    way, later = [Noted("d2", BEFORE, NOW, "s/1"), Noted("d2", AFTER, NOW)], NOW + timedelta(hours=2)
    assert not replaced(way, "s/1", later, [])
    assert replaced(way, "s/2", later, [])
    assert not replaced(way, "s/2", later, [NOW + timedelta(hours=1)])
    assert replaced(way, "s/2", later, [NOW - timedelta(hours=1)]), "it was one of the records before it"
    assert not replaced(way, "", later, []), "which one it is may not be asked"


def test_a_restore_brings_back_what_was_lost_since_its_snapshot() -> None:
    restored = Restored(NOW, NOW + timedelta(hours=2))
    hours = [restored.brings_back(NOW + timedelta(hours=number)) for number in (-1, 1, 3)]
    assert hours == [False, True, False]
