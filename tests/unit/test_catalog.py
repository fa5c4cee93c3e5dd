"""A schema as data: what counts in comparing two, and how a difference is told."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norn.adapters.snapshots.definitions import settled
from norn.domain.catalog import Catalog, CatalogEntry, Difference, compare

NOTES = CatalogEntry("table", "public.notes", "using heap", 16385)
TITLE = CatalogEntry("column", "public.notes.title", "text not null", 16385, 2)
PICTURES = CatalogEntry("large objects", "", "3 of app")
SMALL = Catalog.of([NOTES, TITLE, PICTURES])

words = st.text(alphabet="ab .,\n\0é\"'[]", max_size=6)
kinds = st.sampled_from(["table", "column", "columns", "large objects"])
entries = st.builds(CatalogEntry, kinds, words, words, st.none() | st.integers(), st.none() | st.integers())
catalogs = st.lists(entries, max_size=8)


# ---- the fingerprint and the digests ---------------------------------------------------------------------------------


@given(catalogs, st.randoms())
def test_the_fingerprint_does_not_depend_on_the_order(some: list[CatalogEntry], random: Random) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)
    assert Catalog.of(shuffled).fingerprint == Catalog.of(some).fingerprint


@given(catalogs, catalogs)
def test_fingerprints_are_the_same_where_the_catalogs_are_and_nowhere_else(
    some: list[CatalogEntry], others: list[CatalogEntry]
) -> None:
    one, other = Catalog.of(some), Catalog.of(others)
    assert (one.fingerprint == other.fingerprint) == (one == other)


def test_the_fingerprint_tells_where_a_name_ends() -> None:
    assert (
        Catalog.of([CatalogEntry("table", "ab", "c")]).fingerprint
        != Catalog.of([CatalogEntry("table", "a", "bc")]).fingerprint
    )


def test_the_fingerprint_is_the_same_in_every_version_of_norn() -> None:
    assert SMALL.fingerprint == "2bb8430ea12eafe7aa0a4ee09e011cf5e261091800a471f8a59580b799d604ca"


def test_oids_and_numbers_do_not_count() -> None:
    restored = Catalog.of([replace(entry, oid=1, number=7) for entry in SMALL])
    assert (restored.fingerprint, restored) == (SMALL.fingerprint, SMALL)


def test_digests_are_twelve_digits_by_kind_and_name() -> None:
    assert SMALL.digests() == {
        "table public.notes": "bba93585649d",
        "column public.notes.title": "10900deec3c1",
        "large objects": "4176b7251fe8",
    }


def test_two_entries_of_one_name_both_count() -> None:
    twice = Catalog.of([NOTES, replace(NOTES, definition="another")])
    assert len(twice) == 1
    assert compare(twice, Catalog.of([NOTES])).changed == ("table public.notes",)


def test_entries_are_found_by_kind_and_name() -> None:
    assert SMALL.by_key()["column", "public.notes.title"] is TITLE


# ---- comparing -------------------------------------------------------------------------------------------------------


@given(catalogs)
def test_a_catalog_does_not_differ_from_itself(some: list[CatalogEntry]) -> None:
    assert not compare(Catalog.of(some), Catalog.of(some))


@given(catalogs)
def test_a_catalog_does_not_differ_from_its_digests_kept_as_json(some: list[CatalogEntry]) -> None:
    catalog = Catalog.of(some)
    assert not compare(json.loads(json.dumps(catalog.digests())), catalog)


@given(catalogs, entries, words)
def test_a_changed_definition_is_named(some: list[CatalogEntry], entry: CatalogEntry, other: str) -> None:
    rest = [each for each in some if each.label != entry.label]
    changed = replace(entry, definition=f"{entry.definition}+{other}")
    difference = compare(Catalog.of([*rest, entry]), Catalog.of([*rest, changed]))
    assert difference == Difference(changed=(entry.label,))


@given(catalogs, entries)
def test_what_is_missing_on_one_side_is_new_on_the_other(some: list[CatalogEntry], entry: CatalogEntry) -> None:
    rest = Catalog.of(each for each in some if each.label != entry.label)
    whole = Catalog.of([*rest, entry])
    assert compare(whole, rest) == Difference(missing=(entry.label,))
    assert compare(rest, whole) == Difference(added=(entry.label,))


def test_differences_come_in_order() -> None:
    assert compare(SMALL, Catalog()).missing == ("column public.notes.title", "large objects", "table public.notes")


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        (["large objects"], ("column public.notes.title", "columns public.notes")),
        (["column"], ("columns public.notes", "large objects")),
        (["columns", "column"], ("large objects",)),
    ],
)
def test_kinds_can_be_left_out(without: list[str], missing: tuple[str, ...]) -> None:
    order = CatalogEntry("columns", "public.notes", "title")
    assert compare(Catalog.of([TITLE, order, PICTURES]), Catalog(), without=without).missing == missing


# ---- telling it ------------------------------------------------------------------------------------------------------


def test_no_difference_is_nothing_to_tell() -> None:
    assert Difference().summary() == ""


@pytest.mark.parametrize(
    "difference", [Difference(missing=("table a",)), Difference(added=("table a",)), Difference(changed=("table a",))]
)
def test_a_difference_is_true(difference: Difference) -> None:
    assert difference


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (Difference(missing=("column public.a.b",)), "column public.a.b is missing"),
        (Difference(added=("table public.a",)), "table public.a is new"),
        (Difference(changed=("function public.f(integer)",)), "function public.f(integer) has changed"),
        (
            Difference(("column public.a.b",), ("table public.c",), ("index public.d",)),
            "column public.a.b is missing; index public.d has changed; table public.c is new",
        ),
        (
            Difference(missing=("column public.a.b", "comment table public.b", "policy public.b.p", "schema s")),
            ("schema s is missing; column public.a.b is missing; policy public.b.p is missing; "
            "comment table public.b is missing"),
        ),
        (
            Difference(missing=("column public.a.b", "columns public.a", "comment table column public.a.b",
                                "comment trigger t on public.a", "privileges table public.a", "table public.a",
                                "index public.a_key", "column public.ab.c")),
            "table public.a is missing; column public.ab.c is missing; index public.a_key is missing",
        ),
        (
            Difference(missing=('column public."x y.z".b', 'table public."x y.z"')),
            'table public."x y.z" is missing',
        ),
        (
            Difference(missing=("column public.a.b",), added=("table public.a",)),
            "column public.a.b is missing; table public.a is new",
        ),
    ],
    ids=["missing", "new", "changed", "each", "the telling ones first", "parts of a table", "odd names", "elsewhere"],
)  # fmt: skip
def test_a_difference_is_told_on_one_line(difference: Difference, said: str) -> None:
    assert difference.summary() == said


def test_what_is_over_the_limit_is_counted() -> None:
    assert Difference(added=tuple(f"table t{n}" for n in range(5))).summary(2) == (
        "table t0 is new; table t1 is new; …and 3 more"
    )


def test_what_is_just_within_the_limit_is_all_told() -> None:
    assert Difference(added=("table a", "table b")).summary(2) == "table a is new; table b is new"


# ---- texts that PostgreSQL writes in two ways ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read_back"),
    [
        ("CHECK ((x > 0))", "CHECK ((x > 0))"),
        (
            "(x = ANY ((ARRAY['a, b'::character varying, 'it''s ]'::character varying])::text[]))",
            "(x = ANY (ARRAY[('a, b'::character varying)::text, ('it''s ]'::character varying)::text]))",
        ),
        ("((ARRAY[f(a, b), c[1]])::text[])", "(ARRAY[(f(a, b))::text, (c[1])::text])"),
        ("(ARRAY['a'::text])[1]", "(ARRAY['a'::text])[1]"),
        ("'(ARRAY[a])::text[]'::text", "'(ARRAY[a])::text[]'::text"),
        ("(ARRAY[1", "(ARRAY[1"),
        ("(((a) OR (b)) OR (c))", "((a) OR (b) OR (c))"),
        ("((((a) OR (b)) OR (c)) OR (d))", "((a) OR (b) OR (c) OR (d))"),
        ("(((a) AND (b)) AND (c))", "((a) AND (b) AND (c))"),
        ("((a) OR ((b) OR (c)))", "((a) OR ((b) OR (c)))"),
        ("(((a) OR (b)) AND (c))", "(((a) OR (b)) AND (c))"),
        ("(f((a) OR (b)) OR (c))", "(f((a) OR (b)) OR (c))"),
        ("((x = ')) OR (('::text) OR (b))", "((x = ')) OR (('::text) OR (b))"),
    ],
)
def test_a_definition_is_as_in_a_restored_copy(written: str, read_back: str) -> None:
    assert settled(written) == read_back


@given(st.text(alphabet="()[]ARY '\":, tex", max_size=40) | st.text(max_size=20))
def test_any_text_can_be_settled_and_stays_so(text: str) -> None:
    assert settled(settled(text)) == settled(text)
