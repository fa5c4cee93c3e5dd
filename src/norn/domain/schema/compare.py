"""How a schema differs from the one that old code was written for, change by change."""

from __future__ import annotations

from collections.abc import Iterator

from norn.domain.catalog import CatalogEntry
from norn.domain.schema.access import Access, compare_privileges
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.columns import Pair, compare_columns
from norn.domain.schema.constraints import compare_constraints, compare_references
from norn.domain.schema.keys import compare_keys
from norn.domain.schema.objects import (
    compare_kinds_of_values,
    compare_others,
    compare_schemas,
    compare_sequences,
    renamed_types,
)
from norn.domain.schema.relations import compare_relation, find_pair, missing
from norn.domain.schema.routines import compare_policies, compare_routines, compare_triggers
from norn.domain.schema.state import Schema
from norn.domain.schema.structure import RELATIONS, Structure, facts_of

_OF_RELATIONS = frozenset((*RELATIONS, "column", "constraint", "index", "trigger", "rule", "policy"))


def changes(old: Schema, new: Schema) -> tuple[Change, ...]:
    """What code that knows `old` finds changed in `new`; empty where nothing is that it could notice.

    Between different databases, as after a restore, objects are what their names say.
    """
    same = old.database == new.database != ""
    before, after = Structure(old.catalog), Structure(new.catalog)
    return tuple(_changes(before, after, old.access, new.access, same_database=same))


def _changes(
    before: Structure, after: Structure, then: Access, access: Access, *, same_database: bool
) -> Iterator[Change]:
    gone = list(compare_schemas(before, after, same_database=same_database))
    yield from gone
    schemas = tuple(f"{change.subject.removeprefix('schema ')}." for change in gone)
    types = renamed_types(before, after) if same_database else {}
    touched = _touched(before, after, same_database=same_database)
    pairs: dict[int, Pair] = {}
    for old in before.of_kinds(RELATIONS):
        if old.name.startswith(schemas):
            continue
        pair = find_pair(old, before, after, types, same_database=same_database)
        if pair is None:
            yield missing(old, after, same_database=same_database)
            continue
        if old.oid is not None:
            pairs[old.oid if same_database else pair.new.oid or 0] = pair
        if {old.name, pair.new.name, pair.store.name} & touched or then != access:
            yield from compare_pair(pair, then, access)
    yield from compare_references(before, after, pairs)
    new_ones = after.relations.keys() - before.relations.keys()
    for name in sorted(new_ones):
        new = after.relations[name]
        if not (same_database and new.oid in before.relations_by_oid):
            yield Change("relation_added", Effect.HARMLESS, new.label, f"The {new.kind} {name} is new.")
    for old, new_one in _emptied(before, after) if same_database else ():
        yield Change("contents_lost", Effect.CONTENTS_LOST, old.label,
                     f"The table {old.name} was emptied: what it held is gone.", old.name,
                     facts={"now": new_one.name})  # fmt: skip
    yield from compare_kinds_of_values(before, after, same_database=same_database)
    yield from compare_sequences(before, after, same_database=same_database)
    yield from compare_routines(before, after, same_database=same_database)
    behind = {
        pair.name: pair.store.name
        for pair in pairs.values()
        if pair.store.oid != pair.new.oid and facts_of(pair.new).get("owner") in access.roles
    }
    yield from compare_privileges(before, after, then, access, behind)
    yield from compare_others(before, after)


def _touched(before: Structure, after: Structure, *, same_database: bool) -> set[str]:
    """The relations of which anything differs: in a large schema nearly all are as they were."""

    def told_apart(entry: CatalogEntry) -> tuple[object, ...]:
        if same_database:
            return entry.kind, entry.name, entry.definition, entry.oid, entry.number
        return entry.kind, entry.name, entry.definition

    old, new = (
        {told_apart(entry): entry for entry in side.catalog if entry.kind in _OF_RELATIONS} for side in (before, after)
    )
    found = set()
    for side, only in ((before, old.keys() - new.keys()), (after, new.keys() - old.keys())):
        for key in only:
            entry = (old if side is before else new)[key]
            owner = entry.oid if entry.kind in (*RELATIONS, "column") else facts_of(entry).get("table")
            if owner in side.relations_by_oid:
                found.add(side.relations_by_oid[owner].name)
    return found


def compare_pair(pair: Pair, then: Access, access: Access) -> Iterator[Change]:
    """All that has changed about one relation."""
    yield from compare_relation(pair)
    yield from compare_columns(pair)
    yield from compare_triggers(pair)
    if pair.old.kind == "table":
        yield from compare_constraints(pair)
        yield from compare_keys(pair)
        yield from compare_policies(pair, then, access)


def _emptied(before: Structure, after: Structure) -> Iterator[tuple[CatalogEntry, CatalogEntry]]:
    """Tables that had rows, and whose file is another one without any."""
    for old in before.of_kinds(("table",)):
        new = after.relations_by_oid.get(old.oid)
        if new is None or not old.facts:
            continue
        was, now = facts_of(old), facts_of(new)
        if was["filled"] and not now["filled"] and was["file"] != now["file"]:
            yield old, new
