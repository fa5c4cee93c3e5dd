"""What a changed schema does to old code, rule by rule: each on two small schemas as the adapter would read them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norn.domain.catalog import Catalog, CatalogEntry
from norn.domain.schema import (
    Access,
    Change,
    Effect,
    Schema,
    StepLoss,
    changes,
    drift_finding,
    lost_on_the_way,
    schema_findings,
    step_losses,
    unread_tables,
)
from norn.domain.schema.constraints import is_looser
from norn.domain.schema.expressions import null_fails, null_passes, plain
from norn.domain.schema.structure import Structure, last_part
from norn.domain.schema.types import compare_types
from norn.domain.verdict import Level

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)
EMPTY = Structure(Catalog())


def table(oid: int = 1, name: str = "public.notes", **facts: Any) -> CatalogEntry:
    known = {"kind": "r", "partition": False, "rowSecurity": False, "forced": False, "owner": "app", "file": 1,
             "filled": True, "uses": 5}  # fmt: skip
    return CatalogEntry("table", name, "", oid, None, json.dumps(known | facts))


def column(number: int, name: str, oid: int = 1, of: str = "public.notes", **facts: Any) -> CatalogEntry:
    known = {"type": "text"} | facts
    return CatalogEntry("column", f"{of}.{name}", json.dumps(known), oid, number, json.dumps(known))


def schema(*entries: CatalogEntry, database: str = "one", access: Access = Access("app", frozenset({"app"}))) -> Schema:
    return Schema(Catalog.of(entries), database, NOW, access)


def codes(found: tuple[Change, ...]) -> list[tuple[str, Level]]:
    return [(change.code, change.level) for change in found if change.level is not Level.SAFE]


OLD = schema(table(), column(1, "title"), column(2, "length", type="integer"))


def test_the_same_schema_has_no_changes() -> None:
    assert changes(OLD, OLD) == ()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([column(1, "title")], [("column_dropped", Level.UNSAFE)]),
        ([column(1, "title"), column(2, "size", type="integer")], [("column_renamed", Level.UNSAFE)]),
        ([column(1, "title"), column(3, "length", type="integer")], [("contents_lost", Level.CAUTION)]),
        ([column(1, "title", notNull=True), column(2, "length", type="integer")], [("not_null_added", Level.UNSAFE)]),
        (
            [column(1, "title", notNull=True, default="''"), column(2, "length", type="integer")],
            [("not_null_added", Level.CAUTION)],
        ),
        ([column(1, "title"), column(2, "length", type="smallint")], [("type_changed", Level.UNSAFE)]),
        ([column(1, "title"), column(2, "length", type="bigint")], [("type_changed", Level.CAUTION)]),
        (
            [column(1, "title"), column(2, "length", type="integer", generated=True, default="1")],
            [("column_generated", Level.UNSAFE)],
        ),
        (
            [column(1, "title"), column(2, "length", type="integer"), column(3, "tax", notNull=True)],
            [("required_column_added", Level.UNSAFE)],
        ),
        ([column(1, "title"), column(2, "length", type="integer"), column(3, "tax")], []),
        ([column(1, "title"), column(2, "length", type="integer"), column(3, "tax", notNull=True, default="0")], []),
        ([column(1, "title"), column(2, "length", type="integer"), column(3, "n", notNull=True, identity="d")], []),
    ],
)
def test_a_changed_column(columns: list[CatalogEntry], expected: list[tuple[str, Level]]) -> None:
    assert codes(changes(OLD, schema(table(), *columns))) == expected


def test_a_statement_that_helps_names_what_has_changed() -> None:
    (found,) = changes(OLD, schema(table(), column(1, "title"), column(2, "size", type="integer")))
    assert found.remedy == "ALTER TABLE public.notes RENAME COLUMN size TO length"


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ((), [("relation_dropped", Level.UNSAFE)]),
        ((table(name="public.papers"),), [("relation_renamed", Level.UNSAFE)]),
        (
            (table(oid=2), column(1, "title", 2), column(2, "length", 2, type="integer")),
            [("contents_lost", Level.CAUTION)],
        ),
        (
            (table(filled=False, file=2), column(1, "title"), column(2, "length", type="integer")),
            [("contents_lost", Level.CAUTION)],
        ),
        ((table(filled=True, file=2), column(1, "title"), column(2, "length", type="integer")), []),
    ],
)
def test_a_changed_table(new: tuple[CatalogEntry, ...], expected: list[tuple[str, Level]]) -> None:
    assert codes(changes(OLD, schema(*new))) == expected


def test_a_table_renamed_behind_a_view_that_can_be_written_is_in_nobodys_way() -> None:
    says = " SELECT papers.title,\n    papers.length\n   FROM public.papers;"
    facts = {"kind": "v", "writes": 28, "fixed": None, "definition": says}
    view = CatalogEntry("view", "public.notes", says, 9, None, json.dumps(facts))
    shown = [column(1, "title", 9), column(2, "length", 9, type="integer")]
    stored = [column(1, "title", of="public.papers"), column(2, "length", of="public.papers", type="integer")]
    new = schema(table(name="public.papers"), view, *shown, *stored)
    assert codes(changes(OLD, new)) == []
    part = replace(view, facts=json.dumps(facts | {"definition": f"{says[:-1]}\n  WHERE (papers.length > 1);"}))
    other = schema(table(name="public.papers"), part, *shown, *stored)
    assert codes(changes(OLD, other)) == [("view_changed", Level.CAUTION)], "it does not show all rows"
    read_only = replace(view, facts=json.dumps(facts | {"writes": 0}))
    assert codes(changes(OLD, schema(table(name="public.papers"), read_only, *shown, *stored))) == [
        ("view_not_writable", Level.UNSAFE)
    ]


def test_in_another_database_names_count_and_numbers_do_not() -> None:
    copy = schema(table(oid=70), column(1, "title", 70), column(7, "length", 70, type="integer"), database="other")
    assert changes(OLD, copy) == ()


def test_a_database_that_is_not_known_is_never_the_same_one() -> None:
    nowhere = [schema(table(oid=oid), column(1, "title", oid), database="") for oid in (1, 2)]
    assert changes(nowhere[0], nowhere[1]) == (), "with OIDs it would be a table that was made anew"


def index(oid: int, *keys: str, unique: bool = True, where: str | None = None, **facts: Any) -> CatalogEntry:
    known = {"table": 1, "unique": unique, "immediate": True, "pages": 1, "keys": keys, "columns": keys,
             "expressions": False, "where": where, "nullsNotDistinct": False}  # fmt: skip
    name = f"public.by_{'_'.join(keys)}{oid}"
    return CatalogEntry("index", name, f"{unique} {keys} {where}", oid, None, json.dumps(known | facts))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([index(5, "title")], [], ["unique_dropped"]),
        ([], [index(5, "title")], ["unique_added"]),
        ([index(5, "title")], [index(5, "title"), index(6, "title", "length")], []),
        ([index(5, "title", "length")], [index(6, "length", "title")], []),
        ([index(5, "title", where="(length > 1)")], [index(6, "title")], ["unique_added"]),
        ([index(5, "title")], [index(6, "title", collations=["low"])], ["unique_added"]),
        ([index(5, "title", collations=["low"])], [index(6, "title", collations=["low"])], []),
        ([index(5, "title", unique=False)], [], []),
        ([index(5, "title", unique=False, pages=5_000)], [], ["index_dropped"]),
    ],
)
def test_keys(old: list[CatalogEntry], new: list[CatalogEntry], expected: list[str]) -> None:
    columns = (table(), column(1, "title"), column(2, "length", type="integer"))
    assert [code for code, _ in codes(changes(schema(*columns, *old), schema(*columns, *new)))] == expected


@pytest.mark.parametrize(
    ("default", "level"),
    [(None, Level.UNSAFE), ("NULL::character varying", Level.UNSAFE), ("'x'::text", Level.SAFE)],
)
def test_a_default_that_only_says_null_is_none(default: str | None, level: Level) -> None:
    new = column(3, "slug", notNull=True, default=default)
    added = schema(table(), column(1, "title"), column(2, "length", type="integer"), new)
    assert max((change.level for change in changes(OLD, added)), key=lambda found: found.weight) is level


def check(oid: int, says: str, *columns: str, valid: bool = True) -> CatalogEntry:
    facts = {"type": "c", "table": 1, "valid": valid, "deferrable": False, "columns": columns, "expression": says,
             "to": None, "onDelete": " ", "onUpdate": " "}  # fmt: skip
    definition = f"CHECK {says}" + ("" if valid else " NOT VALID")
    return CatalogEntry("constraint", f"public.notes.check{oid}", definition, oid, None, json.dumps(facts))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([], [check(5, "(title <> ''::text)", "title")], ["check_added"]),
        ([check(5, "(title <> ''::text)", "title", valid=False)], [check(5, "(title <> ''::text)", "title")], []),
        ([check(5, "((title)::text <> ''::text)", "title")], [check(6, "(title <> ''::text)", "title")], []),
        ([check(5, "(length >= 3)", "length")], [check(6, "(length >= 1)", "length")], []),
        ([check(5, "(length >= 3)", "length")], [check(6, "(length >= 9)", "length")], ["check_added"]),
        ([], [check(5, "(tax IS NOT NULL)", "tax", valid=False)], ["check_added"]),
        ([], [check(5, "(tax > 0)", "tax")], []),
    ],
    ids=["new", "validated", "other casts", "looser", "stricter", "a new column not null", "a new column"],
)
def test_checks(old: list[CatalogEntry], new: list[CatalogEntry], expected: list[str]) -> None:
    columns = (table(), column(1, "title"), column(2, "length", type="integer"))
    found = changes(schema(*columns, *old), schema(*columns, column(3, "tax", type="integer"), *new))
    assert [code for code, _ in codes(found)] == expected


def test_a_unique_new_column_that_old_code_leaves_null_is_in_nobodys_way() -> None:
    added = schema(
        table(), column(1, "title"), column(2, "length", type="integer"), column(3, "slug"), index(5, "slug")
    )
    assert codes(changes(OLD, added)) == []
    always_the_same = column(3, "slug", default="'x'::text")
    columns = (table(), column(1, "title"), column(2, "length", type="integer"))
    assert codes(changes(OLD, schema(*columns, column(3, "slug"), index(5, "slug")))) == []
    always_the_same = column(3, "slug", default="'x'::text")
    assert codes(changes(OLD, schema(*columns, always_the_same, index(5, "slug")))) == [("unique_added", Level.UNSAFE)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("(a = ANY (ARRAY['x'::text]))", "(a = ANY (ARRAY['x'::text, 'y'::text]))", True),
        ("(a = ANY (ARRAY['x'::text, 'y'::text]))", "(a = ANY (ARRAY['x'::text]))", False),
        ("(a = ANY (ARRAY['x'::text]))", "(b = ANY (ARRAY['x'::text, 'y'::text]))", False),
        ("(age >= 18)", "(age >= 16)", True),
        ("(age >= 18)", "(age >= 21)", False),
        ("(age <= 18)", "(age <= 21)", True),
        ("(age <= 18)", "(age >= 0)", False),
        ("(length((title)::text) <= 80)", "(length((title)::text) <= 200)", True),
        ("(amount > '-1'::integer)", "(amount > '-5'::integer)", True),
        ("((age >= 18) OR vip)", "((age >= 16) OR vip)", False),
        ("(NOT (age >= 18))", "(NOT (age >= 16))", False),
        ("(vip OR (age >= 18))", "(vip OR (age >= 16))", False),
        ("(NOT (a = ANY (ARRAY['x'::text])))", "(NOT (a = ANY (ARRAY['x'::text, 'y'::text])))", False),
        ("(a = ANY (ARRAY[('x::y'::name)::text]))", "(a = ANY (ARRAY[('x::z'::name)::text]))", False),
    ],
)
def test_a_check_is_looser_only_where_that_is_certain(old: str, new: str, *, expected: bool) -> None:
    assert is_looser(old, new) is expected


@pytest.mark.parametrize(
    ("expression", "passes", "fails"),
    [
        ("(tax > 0)", True, False),
        ("((tax > 0) AND (tax < 100))", True, False),
        ("((tax > 0) AND (n > 0))", False, False),
        ("((tax > 0) OR (n > 0))", True, False),
        ("((tax IS NULL) OR (n > 0))", True, False),
        ("(NOT (tax > 0))", True, False),
        ("(tone = ANY (ARRAY['a'::text, 'b'::text]))", True, False),
        ("((tone)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[]))", True, False),
        ("(5 <> ALL (ARRAY[5, tax]))", False, False),
        ("(char_length((tone)::text) <= 255)", True, False),
        ("(public.char_length(tone) <= 255)", False, False),
        ("(n = '(tax)'::text)", False, False),
        ("(n = 'a'::public.tax)", False, False),
        ("(COALESCE(tax, 0) > 0)", False, False),
        ("CASE WHEN (tax > 0) THEN true ELSE false END", False, False),
        ("(tax IS DISTINCT FROM 3)", False, False),
        ("((tax IS NULL) = (tone IS NULL))", False, False),
        ("(num_nonnulls(tax, tone) = 1)", False, True),
        ("(num_nonnulls(tax, n) = 1)", False, False),
        ("(num_nonnulls(tax, tone) <= 1)", False, False),
        ("(tax IS NOT NULL)", False, True),
        ("((tax IS NOT NULL) AND (n > 0))", False, True),
        ("((tax IS NOT NULL) OR (tone IS NOT NULL))", False, True),
        ("((tax IS NOT NULL) OR (n > 0))", False, False),
    ],
)
def test_whether_null_passes_a_check_is_said_only_where_that_is_certain(
    expression: str, *, passes: bool, fails: bool
) -> None:
    null = ("tax", "tone")
    assert null_passes(expression, null, others_pass=False) is passes
    assert null_fails(expression, null) is fails


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("((title)::text <> ''::text)", "(title <> ''::text)", True),
        ("((title)::text = ANY (ARRAY[('a'::character varying)::text]))", "(title = ANY (ARRAY['a'::text]))", True),
        ("((a)::text > (b)::text)", "(a > b)", False),
        ("(a > (0)::numeric)", "(a > 0)", True),
        ("(a > '-5'::integer)", "(a > '-5'::bigint)", True),
        ("((a AND b) OR c)", "(a AND (b OR c))", False),
        ("(a <> 'in progress'::text)", "(a <> 'inprogress'::text)", False),
        ("(a <> '(x)'::text)", "(a <> 'x'::text)", False),
        ("(a <> 'x::text'::text)", "(a <> 'x'::text)", False),
        ("((a)::date > b)", "(a > b)", False),
        ("((a)::character varying(2) > b)", "(a > b)", False),
        ("(f((title)::text) > 0)", "(f(title) > 0)", True),
    ],
)
def test_two_conditions_are_the_same_without_the_casts_of_a_type(one: str, other: str, *, same: bool) -> None:
    assert (plain(one, {"title"}) == plain(other, {"title"})) is same


@given(st.sets(st.sampled_from("abcdef"), min_size=1), st.sets(st.sampled_from("abcdef"), min_size=1))
def test_a_list_of_values_is_looser_when_it_has_all_of_the_old_ones(old: set[str], new: set[str]) -> None:
    def check(values: set[str]) -> str:
        return "(a = ANY (ARRAY[" + ", ".join(f"'{value}'::text" for value in sorted(values)) + "]))"

    assert is_looser(check(old), check(new)) is (old <= new)


@pytest.mark.parametrize(
    ("old", "new", "effect"),
    [
        ("text", "text", None),
        ("character varying(20)", "character varying(40)", Effect.HARMLESS),
        ("character varying(40)", "character varying(20)", Effect.BREAKS_WRITES),
        ("character varying(40)", "text", Effect.HARMLESS),
        ("text", "character varying(40)", Effect.BREAKS_WRITES),
        ("character(5)", "text", Effect.CHANGES_MEANING),
        ("integer", "bigint", Effect.CHANGES_MEANING),
        ("bigint", "integer", Effect.BREAKS_WRITES),
        ("integer", "numeric", Effect.CHANGES_MEANING),
        ("numeric(8,2)", "integer", Effect.BREAKS_WRITES),
        ("numeric(8,2)", "numeric(10,2)", Effect.HARMLESS),
        ("numeric(8,2)", "numeric(8,4)", Effect.BREAKS_WRITES),
        ("numeric(8,2)", "numeric", Effect.HARMLESS),
        ("numeric", "numeric(8,2)", Effect.BREAKS_WRITES),
        ("timestamp without time zone", "timestamp with time zone", Effect.CHANGES_MEANING),
        ("timestamp(3) without time zone", "timestamp(0) without time zone", Effect.CHANGES_MEANING),
        ("json", "jsonb", Effect.CHANGES_MEANING),
        ("jsonb", "text", Effect.BREAKS_WRITES),
        ("text", "text[]", Effect.BREAKS_WRITES),
        ("character varying(20)[]", "text[]", Effect.HARMLESS),
        ("uuid", "text", Effect.BREAKS_WRITES),
        ("public.thing", "public.other", Effect.BREAKS_WRITES),
    ],
)
def test_another_type(old: str, new: str, effect: Effect | None) -> None:
    found = compare_types(old, new, EMPTY, EMPTY)
    assert (found[0] if found is not None else None) is effect


def enum(*labels: tuple[int, str]) -> CatalogEntry:
    definition = ", ".join(f"'{label}'" for _, label in labels)
    return CatalogEntry("enum", "public.mood", definition, 4, None, json.dumps({"labels": labels}))


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (enum((1, "well"), (2, "ill"), (3, "better")), ["enum_value_added"]),
        (enum((1, "well"), (2, "unwell")), ["enum_value_dropped"]),
        (enum((1, "well")), ["enum_value_dropped"]),
    ],
)
def test_a_changed_enum(new: CatalogEntry, expected: list[str]) -> None:
    assert [code for code, _ in codes(changes(schema(enum((1, "well"), (2, "ill"))), schema(new)))] == expected


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        (Access("app", frozenset({"app"})), ["privilege_revoked"]),
        (Access("app", frozenset({"app", "editors"})), []),
        (Access("app", frozenset({"app"}), unrestricted=True), []),
    ],
)
def test_a_privilege_counts_where_the_app_had_it_and_has_it_by_nobody_else(access: Access, expected: list[str]) -> None:
    old = CatalogEntry("privileges", "table public.notes", "owner me; app=DELETE,SELECT; editors=DELETE", 1)
    new = replace(old, definition="owner me; app=SELECT; editors=DELETE")
    columns = (table(), column(1, "title"))
    found = changes(schema(*columns, old, access=access), schema(*columns, new, access=access))
    assert [change.code for change in found] == expected
    assert all(change.remedy == "GRANT DELETE ON TABLE public.notes TO app" for change in found)


def test_a_role_that_was_taken_from_the_app_takes_its_privileges_along() -> None:
    entries = (
        table(),
        column(1, "title"),
        CatalogEntry("privileges", "table public.notes", "owner me; team=SELECT", 1),
    )
    old = schema(*entries, access=Access("app", frozenset({"app", "team"})))
    found = changes(old, schema(*entries, access=Access("app", frozenset({"app"}))))
    assert [change.code for change in found] == ["privilege_revoked"]


def test_the_schema_public_has_its_privileges_by_default() -> None:
    entries = (table(), column(1, "title"))
    revoked = CatalogEntry("privileges", "schema public", "owner pg_database_owner; pg_database_owner=CREATE,USAGE", 9)
    found = changes(schema(*entries), schema(*entries, revoked))
    assert [(change.code, change.remedy) for change in found] == [
        ("privilege_revoked", "GRANT USAGE ON SCHEMA public TO app")
    ]


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        (Access("app", frozenset({"app"})), []),
        (Access("reader", frozenset({"reader"})), ["row_security_added"]),
        (Access("reader", frozenset({"reader"}), sees_all_rows=True), []),
    ],
)
def test_row_security_counts_where_it_applies_to_the_app(access: Access, expected: list[str]) -> None:
    old = schema(table(), column(1, "title"), access=access)
    secured = replace(table(rowSecurity=True), definition="row security")
    assert [c.code for c in changes(old, schema(secured, column(1, "title"), access=access))] == expected


def test_what_one_migration_took_away_and_another_put_back_is_lost_on_the_way() -> None:
    narrow = schema(table(), column(1, "title"), column(2, "length", type="smallint"))
    steps = [*step_losses(OLD, narrow), *step_losses(narrow, OLD)]
    assert [change.subject for change in lost_on_the_way(OLD, changes(OLD, OLD), steps)] == [
        "column public.notes.length"
    ]
    without = schema(table(), column(1, "title"))
    net = changes(OLD, without)
    assert list(lost_on_the_way(OLD, net, step_losses(OLD, without))) == [], "it is told already"
    assert list(lost_on_the_way(without, (), step_losses(OLD, without))) == [], "the target never had it"


def test_a_loss_comes_back_from_its_json() -> None:
    (loss,) = step_losses(OLD, schema(table(), column(1, "title")))
    assert StepLoss.from_json(json.loads(json.dumps(loss.to_json()))) == loss


DROPPED = changes(OLD, schema(table(), column(1, "title")))


def levels(**more: Any) -> list[Level]:
    known: dict[str, Any] = {"failing": {}, "seen": None, "unread": {}} | more
    return [finding.level for finding in schema_findings(DROPPED, **known)]


def test_a_table_that_nobody_has_touched_is_no_reason_to_refuse() -> None:
    assert levels() == [Level.UNSAFE]
    assert levels(unread={"public.notes": timedelta(days=9)}) == [Level.CAUTION]
    assert levels(unread={"public.other": timedelta(days=9)}) == [Level.UNSAFE]


def test_what_no_statement_of_the_app_names_is_no_reason_to_refuse() -> None:
    others = [f"SELECT * FROM other WHERE id = ${number}" for number in range(30)]
    assert levels(seen=others) == [Level.CAUTION]
    assert levels(seen=[*others, "SELECT title FROM notes"]) == [Level.UNSAFE]
    assert levels(seen=others[:3]) == [Level.UNSAFE], "too few to say anything"


def test_a_statement_that_fails_is_proof() -> None:
    found = schema_findings((), failing={"SELECT length FROM notes": "column"}, seen=None, unread={})
    assert [(finding.code, finding.level) for finding in found] == [("statement_fails", Level.UNSAFE)]


def test_unread_are_tables_whose_counters_stood_still_for_a_day() -> None:
    began = replace(OLD, counted_since=NOW - timedelta(days=30))
    ended = replace(began, at=NOW + timedelta(days=2))
    assert unread_tables(began, ended) == {"public.notes": timedelta(days=2)}
    used = replace(ended, catalog=Catalog.of([table(uses=6), column(1, "title")]))
    assert unread_tables(began, used) == {}
    assert unread_tables(began, replace(began, at=NOW + timedelta(hours=2))) == {}
    assert unread_tables(began, replace(ended, counted_since=NOW)) == {}, "the server has begun to count anew"


def test_drift_names_what_was_changed_since_the_last_deploy() -> None:
    found = drift_finding(OLD, schema(table(), column(1, "title")))
    assert found is not None
    assert (found.code, found.facts["changes"]) == ("schema_drift", "column public.notes.length is missing")
    assert drift_finding(OLD, OLD) is None


@pytest.mark.parametrize(
    ("name", "last"), [("public.notes", "notes"), ('public."No.tes"', '"No.tes"'), ('"A b".c', "c"), ("c", "c")]
)
def test_the_last_part_of_a_qualified_name(name: str, last: str) -> None:
    assert last_part(name) == last


def test_a_schema_comes_back_from_its_json() -> None:
    assert Schema.from_json(json.loads(json.dumps(OLD.to_json()))) == OLD
    facts = Schema.from_json(OLD.to_json()).catalog.entries[0].facts
    assert facts == OLD.catalog.entries[0].facts
