"""What stands beside tables: schemas, types, sequences, extensions and the like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from norn.domain.catalog import CatalogEntry
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.structure import TYPES, Facts, Structure, facts_of
from norn.domain.schema.types import compare_types

_OTHERS = ("collation", "text search configuration", "text search dictionary", "operator", "cast",
           "foreign data wrapper", "foreign server", "user mapping", "event trigger")  # fmt: skip


def renamed_types(before: Structure, after: Structure) -> dict[str, str]:
    """What types of the old schema are called in the new one, by their OIDs, where that is not the same."""
    now = {entry.oid: entry.name for entry in after.of_kinds(TYPES)}
    return {
        entry.name: now[entry.oid]
        for entry in before.of_kinds(TYPES)
        if entry.oid in now and now[entry.oid] != entry.name
    }


def compare_schemas(before: Structure, after: Structure, *, same_database: bool) -> Iterator[Change]:
    """Schemas that are gone, under their names at least; what was in them is not told one by one."""
    now, by_oid = after.named("schema"), {entry.oid: entry for entry in after.of_kinds(("schema",))}
    for name, old in before.named("schema").items():
        if name in now:
            continue
        moved = by_oid.get(old.oid) if same_database else None
        yield Change(
            "schema_dropped",
            Effect.BREAKS_READS,
            old.label,
            f"The schema {name} " + ("was dropped" if moved is None else f"is called {moved.name} now")
            + ": what reads or writes something in it fails.",
            remedy=f"ALTER SCHEMA {moved.name} RENAME TO {name}" if moved is not None else "",
        )  # fmt: skip


def compare_kinds_of_values(before: Structure, after: Structure, *, same_database: bool) -> Iterator[Change]:
    """Enums, domains and other types."""
    now = after.named(*TYPES)
    by_oid = {entry.oid: entry for entry in now.values()} if same_database else {}
    used = {facts_of(entry)["type"].rstrip("[]") for entry in before.of_kinds(("column",)) if "." in entry.facts}
    for name, old in before.named(*TYPES).items():
        new, moved = now.get(name), by_oid.get(old.oid)
        if new is None:
            what = "was dropped" if moved is None else f"is called {moved.name} now"
            yield Change(
                "type_dropped",
                Effect.BREAKS_READS,
                old.label,
                f"The {old.kind} {name} {what}: what casts to it fails.",
                remedy=f"ALTER TYPE {moved.name} RENAME TO {name.rpartition('.')[2]}" if moved is not None else "",
                doubtful=moved is not None or name not in used,
            )
        elif new.kind == old.kind == "enum":
            yield from _enum(old, new, same=same_database and old.oid == new.oid)
        elif new.kind == old.kind == "domain":
            yield from _domain(old, new, before, after)
        elif (new.kind, new.definition) != (old.kind, old.definition):
            yield Change("type_changed", Effect.CHANGES_MEANING, old.label,
                         f"The {old.kind} {name} is another one.")  # fmt: skip


def _enum(old: CatalogEntry, new: CatalogEntry, *, same: bool) -> Iterator[Change]:
    was, now = facts_of(old)["labels"], facts_of(new)["labels"]
    there = {label for _, label in now}
    by_oid: Mapping[int, str] = dict(now) if same else {}
    lost = [(oid, label) for oid, label in was if label not in there]
    for oid, label in lost:
        moved = by_oid.get(oid)
        what = "was dropped" if moved is None else f"is called {moved!r} now"
        yield Change(
            "enum_value_dropped",
            Effect.BREAKS_WRITES,
            old.label,
            f"The value {label!r} of {old.name} {what}: what names it fails.",
            remedy=f"ALTER TYPE {new.name} RENAME VALUE {_literal(moved)} TO {_literal(label)}" if moved else "",
            facts={"value": label, "now": moved},
        )
    known = {label for _, label in was} | {by_oid.get(oid) for oid, _ in lost}
    added = [label for _, label in now if label not in known]
    if added:
        values = ", ".join(repr(label) for label in added)
        yield Change(
            "enum_value_added",
            Effect.CHANGES_MEANING,
            old.label,
            f"{old.name} has the new value{'s' if len(added) > 1 else ''} {values}, which old code does not know: "
            "where a row has one, it may fail.",
            facts={"values": added},
        )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _domain(old: CatalogEntry, new: CatalogEntry, before: Structure, after: Structure) -> Iterator[Change]:
    was, now = facts_of(old), facts_of(new)
    checks = [{entry.definition for entry in structure.parts("constraint", domain)}
              for structure, domain in ((before, old), (after, new))]  # fmt: skip
    base = compare_types(was["base"], now["base"], before, after)
    if (now["notNull"] and not was["notNull"]) or checks[1] - checks[0]:
        yield Change("domain_stricter", Effect.BREAKS_WRITES, old.label,
                     f"The domain {old.name} allows less than before: values that were valid fail.")  # fmt: skip
    elif base is not None:
        yield Change("type_changed", base[0], old.label,
                     f"The domain {old.name} was {was['base']} and is {now['base']}: {base[1]}.")  # fmt: skip
    elif was["default"] != now["default"]:
        yield Change("default_changed", Effect.CHANGES_MEANING, old.label,
                     f"The default of the domain {old.name} is another one.")  # fmt: skip


def compare_sequences(before: Structure, after: Structure, *, same_database: bool) -> Iterator[Change]:
    """Sequences that are gone, that count otherwise, and that are behind where they were."""
    now = after.named("sequence")
    by_owner = {tuple(owner): entry for entry in now.values() if (owner := facts_of(entry)["owner"]) is not None}
    by_oid = {entry.oid: entry for entry in now.values()} if same_database else {}
    for name, old in before.named("sequence").items():
        facts = facts_of(old)
        new = now.get(name)
        if new is not None and (changed := _counts_otherwise(facts, facts_of(new))):
            yield Change(
                "sequence_changed",
                Effect.BREAKS_WRITES,
                old.label,
                f"The sequence {name} {changed}: numbers that old code takes from it may be in use.",
                doubtful=True,
            )
        if new is None and _owner_there(facts, before, after):
            moved = by_oid.get(old.oid)
            yield Change(
                "sequence_dropped",
                Effect.BREAKS_WRITES,
                old.label,
                f"The sequence {name} " + ("was dropped" if moved is None else f"is called {moved.name} now")
                + ": what takes numbers from it fails.",
                remedy=f"ALTER SEQUENCE {moved.name} RENAME TO {name.rpartition('.')[2]}" if moved is not None else "",
                doubtful=facts["owner"] is not None,
            )  # fmt: skip
        if not same_database:
            continue  # a copy has its sequences as they were a moment earlier or later
        owner = tuple(facts["owner"]) if facts["owner"] is not None else None
        now_counts = (by_owner.get(owner) if owner is not None else None) or by_oid.get(old.oid) or new
        if owner is not None and not _filled(owner[0], before, after):
            continue  # no number is in use
        if now_counts is not None and _is_behind(facts, facts_of(now_counts)):
            yield Change(
                "sequence_moved_back",
                Effect.BREAKS_WRITES,
                old.label,
                f"The sequence {now_counts.name} was moved back from {facts['last']}: it gives numbers that are in "
                "use, and rows with them fail.",
                remedy=_forward(now_counts, facts["last"], owner, after),
                doubtful=owner is None,
            )


def _owner_there(facts: Facts, before: Structure, after: Structure) -> bool:
    """Whether the column that it numbers is there under its name; otherwise that is said already."""
    if facts["owner"] is None:
        return True
    oid, number = facts["owner"]
    table = before.relations_by_oid.get(oid)
    now = after.relations.get(table.name) if table is not None else None
    if table is None or now is None:
        return False
    there = after.columns(now)
    return any(name in there for name, entry in before.columns(table).items() if entry.number == number)


def _counts_otherwise(was: Facts, now: Facts) -> str:
    """How its numbers are others, so that some may come twice; empty where they are not."""
    if was["increment"] != now["increment"]:
        return f"goes on by {now['increment']}, and went on by {was['increment']}"
    if now.get("cycle") and was.get("cycle") is False:
        return "begins again at its end now"
    return ""


def _forward(sequence: CatalogEntry, last: int, owner: tuple[int, int] | None, after: Structure) -> str:
    """Beyond what it has given, and what is in use."""
    table = after.relations_by_oid.get(owner[0]) if owner is not None else None
    columns = after.columns(table) if table is not None else {}
    name = next((name for name, entry in columns.items() if owner is not None and entry.number == owner[1]), None)
    if table is None or name is None:
        return f"SELECT setval({_literal(sequence.name)}, {last})"
    used = f"SELECT max({name}) FROM {table.name}"  # noqa: S608, both are quoted as the catalog has them
    return f"SELECT setval({_literal(sequence.name)}, greatest({last}, ({used})))"


def _filled(table: int, before: Structure, after: Structure) -> bool:
    """Whether a table has rows, or the one that took its name."""
    old = before.relations_by_oid.get(table)
    now = after.relations_by_oid.get(table) or (after.relations.get(old.name) if old is not None else None)
    return now is not None and facts_of(now).get("filled") is not False


def _is_behind(was: Facts, now: Facts) -> bool:
    if was["last"] is None or was["increment"] * now["increment"] < 0:
        return False
    at = now["last"] if now["last"] is not None else now["start"] - now["increment"]
    behind: bool = at < was["last"] if was["increment"] > 0 else at > was["last"]
    return behind


def compare_others(before: Structure, after: Structure) -> Iterator[Change]:
    """Extensions, and what few schemas have."""
    now = after.named("extension")
    for name, old in before.named("extension").items():
        new = now.get(name)
        if new is None:
            yield Change("extension_dropped", Effect.BREAKS_READS, old.label,
                         f"The extension {name} was dropped: what uses its functions and types fails.",
                         remedy=f"CREATE EXTENSION {name}")  # fmt: skip
        elif new.definition != old.definition:
            yield Change("extension_changed", Effect.CHANGES_MEANING, old.label,
                         f"The extension {name} was {old.definition} and is {new.definition}.")  # fmt: skip
    for kind in _OTHERS:
        there = after.named(kind)
        for name, old in before.named(kind).items():
            new = there.get(name)
            if new is None or new.definition != old.definition:
                what = "was dropped" if new is None else "is another one"
                yield Change(
                    "object_changed",
                    Effect.CHANGES_MEANING,
                    old.label,
                    f"The {kind} {name} {what}: what uses it may fail, or do something else.",
                )
