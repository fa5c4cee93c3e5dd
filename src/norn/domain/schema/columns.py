"""What it means for old code when the columns of a relation are not what it knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from norn.domain.catalog import CatalogEntry
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.structure import Facts, Structure, facts_of, shown_columns
from norn.domain.schema.types import compare_types

_FRESH = ("nextval(", "gen_random_uuid(", "uuid_generate_v", "uuidv7(", "uuidv4(", "random(")
"""Defaults that give each row another value."""
_NULL = re.compile(r"^\(?NULL(::.+)?\)?$")


@dataclass(frozen=True, slots=True)
class Pair:
    """A relation as old code knows it, and what answers to its name now."""

    old: CatalogEntry
    new: CatalogEntry
    store: CatalogEntry
    """What holds the rows now: `new` itself, or the table behind it where `new` is a view over the old table."""
    same_database: bool
    """Whether both catalogs are of one database, so that OIDs and numbers tell what is what."""
    before: Structure
    after: Structure
    types: Mapping[str, str]
    """Types that are called otherwise now."""

    @property
    def name(self) -> str:
        return self.old.name

    @property
    def same(self) -> bool:
        """Whether `store` is the old relation itself, perhaps under a new name: columns can be told by number."""
        return self.same_database and self.store.oid == self.old.oid

    def new_names(self) -> dict[str, str]:
        """What the old columns are called in `store`; without those that are gone."""
        now = self.after.columns(self.store)
        if not self.same:
            return {name: name for name in self.before.columns(self.old) if name in now}
        by_number = {entry.number: name for name, entry in now.items()}
        return {
            name: by_number[entry.number]
            for name, entry in self.before.columns(self.old).items()
            if entry.number in by_number
        }

    def known(self) -> dict[str, str]:
        """What old code calls the columns of `store` that it names; one that took the name of another is that to it."""
        kept = {now: name for name, now in self.new_names().items()}
        if self.store.oid != self.new.oid:
            table, shown = shown_columns(self.new) or ("", {})
            others = self.before.columns(self.old).keys() - kept.values() if table == self.store.name else ()
            return {shown[name]: name for name in others if name in shown} | kept
        there = self.after.columns(self.store)
        taken = {name for name in self.before.columns(self.old) if name in there}
        return {now: name for now, name in kept.items() if name not in taken} | {name: name for name in taken}


def compare_columns(pair: Pair) -> Iterator[Change]:
    """The changes of the columns that old code knows, and of new ones that are in its way."""
    old, shown = pair.before.columns(pair.old), pair.after.columns(pair.new)
    stored, names = pair.after.columns(pair.store), pair.new_names()
    known = pair.known()
    called = {name: now for now, name in known.items()}
    is_table = pair.old.kind in ("table", "foreign table")
    for name, column in old.items():
        if name not in shown:
            yield _gone(pair, column, name, names.get(name))
            continue
        now = shown[name]
        if pair.store.oid != pair.new.oid:
            now = stored[called[name]] if name in called else now
            if name not in names:
                yield _replaced(pair, column, name, None)
        elif pair.same and now.number != column.number and pair.store.oid == pair.new.oid:
            yield _replaced(pair, column, name, names.get(name))
        if is_table:
            yield from _attributes(pair, column, now, name)
        elif (changed := _type(pair, column, now, name)) is not None:
            yield changed
    if is_table:
        for name, column in stored.items():
            if name not in known:
                yield from _added(pair, name, column)


def default_of(facts: Facts) -> str | None:
    """The default; one that only says null is none."""
    default: str | None = facts.get("default")
    return None if default is None or _NULL.match(default) else default


def fills(facts: Facts, structure: Structure) -> bool:
    """Whether a row gets a value for it where an INSERT names none."""
    return (
        default_of(facts) is not None
        or "identity" in facts
        or any(default_of(domain) is not None for domain in _domains(facts["type"], structure))
    )


def _domains(type_name: str, structure: Structure) -> Iterator[Facts]:
    """A domain, and those that it is made of."""
    while (domain := structure.domains.get(type_name)) is not None:
        facts = facts_of(domain)
        checks = structure.parts("constraint", domain)
        yield {**facts, "notNull": facts["notNull"] or any("VALUE IS NOT NULL" in one.definition for one in checks)}
        type_name = facts["base"]


def fresh(facts: Facts) -> bool:
    """Whether what it is filled with is another value for each row."""
    return "identity" in facts or any(call in (facts.get("default") or "") for call in _FRESH)


def never_null(facts: Facts, structure: Structure) -> bool:
    return bool(facts.get("notNull")) or any(domain["notNull"] for domain in _domains(facts["type"], structure))


def _gone(pair: Pair, column: CatalogEntry, name: str, now: str | None) -> Change:
    if now is not None:
        return Change(
            "column_renamed",
            Effect.BREAKS_READS,
            column.label,
            f"The column {name} of {pair.name} is called {now} now: what reads or writes {name} fails.",
            pair.name,
            remedy=f"ALTER {_verb(pair.store)} {pair.store.name} RENAME COLUMN {now} TO {name}",
            facts={"column": name, "now": now},
        )
    return Change(
        "column_dropped",
        Effect.BREAKS_READS,
        column.label,
        f"The column {name} of {pair.name} was dropped: what reads or writes it fails, and its contents are gone.",
        pair.name,
        facts={"column": name},
    )


def _replaced(pair: Pair, column: CatalogEntry, name: str, now: str | None) -> Change:
    where = f"they are in {now} now" if now is not None else "they are gone"
    return Change(
        "contents_lost",
        Effect.CONTENTS_LOST,
        column.label,
        f"The column {name} of {pair.name} is another one of the same name. No statement fails, but what the old one "
        f"held is not in it: {where}.",
        pair.name,
        facts={"column": name, "now": now},
    )


def _verb(relation: CatalogEntry) -> str:
    return relation.kind.upper()


def _alter(pair: Pair, name: str, what: str) -> str:
    return f"ALTER {_verb(pair.store)} {pair.store.name} ALTER COLUMN {pair.new_names().get(name, name)} {what}"


def _type(pair: Pair, column: CatalogEntry, now: CatalogEntry, name: str) -> Change | None:
    was, new = facts_of(column), facts_of(now)
    found = compare_types(was["type"], new["type"], pair.before, pair.after, pair.types)
    if found is None:
        return None
    effect, why = found
    return Change(
        "type_changed",
        effect,
        column.label,
        f"The type of {name} of {pair.name} was {was['type']} and is {new['type']}: {why}.",
        pair.name,
        facts={"column": name, "from": was["type"], "to": new["type"]},
    )


def _attributes(pair: Pair, column: CatalogEntry, now: CatalogEntry, name: str) -> Iterator[Change]:
    if column.definition == now.definition and not pair.types:
        return
    was, new = facts_of(column), facts_of(now)
    changed = _type(pair, column, now, name)
    if changed is not None:
        yield changed
    elif was.get("collation") != new.get("collation"):
        yield Change(
            "collation_changed",
            Effect.CHANGES_MEANING,
            column.label,
            f"The collation of {name} of {pair.name} is another one: order and comparisons differ.",
            pair.name,
            facts={"column": name},
        )
    if was.get("generated") or new.get("generated"):
        yield from _generated(pair, column, name, was, new)
        if was.get("generated") and new.get("generated"):
            yield from _null(pair, column, name, was, new)
        return
    yield from _null(pair, column, name, was, new)
    yield from _filled(pair, column, name, was, new)


def _generated(pair: Pair, column: CatalogEntry, name: str, was: Facts, new: Facts) -> Iterator[Change]:
    if not was.get("generated"):
        yield Change(
            "column_generated",
            Effect.BREAKS_WRITES,
            column.label,
            f"{name} of {pair.name} is computed from other columns now: what writes it fails.",
            pair.name,
            remedy=_alter(pair, name, "DROP EXPRESSION"),
            facts={"column": name},
        )
    elif not new.get("generated") and new.get("notNull") and not fills(new, pair.after):
        yield _not_filled(pair, column, name, "is not computed from other columns any more", "")
    elif was.get("default") != new.get("default") or was.get("generated") != new.get("generated"):
        yield Change(
            "generation_changed",
            Effect.CHANGES_MEANING,
            column.label,
            f"{name} of {pair.name} is not computed from other columns as it was.",
            pair.name,
            facts={"column": name},
        )


def _null(pair: Pair, column: CatalogEntry, name: str, was: Facts, new: Facts) -> Iterator[Change]:
    if never_null(was, pair.before) or not new.get("notNull"):
        return
    checked = f"({name} IS NOT NULL)"
    if any(
        checked == facts_of(check).get("expression") and not check.definition.endswith(" NOT ENFORCED")
        for check in pair.before.parts("constraint", pair.old)
    ):
        return
    filled = fills(new, pair.after)
    unless = ", unless it leaves the column to its default" if filled else ""
    yield Change(
        "not_null_added",
        Effect.BREAKS_WRITES,
        column.label,
        f"{name} of {pair.name} may not be null any more: what writes a row without it fails{unless}.",
        pair.name,
        remedy=_alter(pair, name, "DROP NOT NULL"),
        doubtful=filled,
        facts={"column": name},
    )


def _not_filled(pair: Pair, column: CatalogEntry, name: str, what: str, remedy: str) -> Change:
    return Change(
        "default_dropped",
        Effect.BREAKS_WRITES,
        column.label,
        f"{name} of {pair.name} {what}, and may not be null: an INSERT that does not name it fails.",
        pair.name,
        remedy=remedy,
        facts={"column": name},
    )


def _filled(pair: Pair, column: CatalogEntry, name: str, was: Facts, new: Facts) -> Iterator[Change]:
    old_default, new_default = default_of(was), default_of(new)
    if fills(was, pair.before) and not fills(new, pair.after):
        helps = old_default is not None and "nextval(" not in old_default
        remedy = _alter(pair, name, f"SET DEFAULT {old_default}") if helps else ""
        if never_null(new, pair.after):
            yield _not_filled(pair, column, name, "has lost its default", remedy)
        else:
            yield Change(
                "default_changed",
                Effect.CHANGES_MEANING,
                column.label,
                f"{name} of {pair.name} has lost its default: a row that does not name it has null there.",
                pair.name,
                remedy=remedy,
                facts={"column": name},
            )
    elif old_default is not None and new_default is not None and not _same_default(old_default, new_default):
        yield Change(
            "default_changed",
            Effect.CHANGES_MEANING,
            column.label,
            f"The default of {name} of {pair.name} is another one.",
            pair.name,
            remedy=_alter(pair, name, f"SET DEFAULT {old_default}"),
            facts={"column": name},
        )
    elif (
        new_default is not None
        and not fills(was, pair.before)
        and not never_null(was, pair.before)
        and not never_null(new, pair.after)
    ):
        yield Change(
            "default_changed",
            Effect.CHANGES_MEANING,
            column.label,
            f"{name} of {pair.name} has a default now: a row that does not name it had null there, and has not now.",
            pair.name,
            remedy=_alter(pair, name, "DROP DEFAULT"),
            facts={"column": name},
        )
    if new.get("identity") == "a" and was.get("identity") != "a":
        yield Change(
            "identity_always",
            Effect.BREAKS_WRITES,
            column.label,
            f"{name} of {pair.name} is always numbered by the database now: an INSERT that names it fails.",
            pair.name,
            remedy=_alter(pair, name, "SET GENERATED BY DEFAULT"),
            facts={"column": name},
        )


def _same_default(old: str, new: str) -> bool:
    """From a sequence under another name is the same."""
    return old == new or (old.startswith("nextval(") and new.startswith("nextval("))


def _added(pair: Pair, name: str, column: CatalogEntry) -> Iterator[Change]:
    facts = facts_of(column)
    label = f"column {pair.store.name}.{name}"
    if facts.get("generated") and facts.get("notNull"):
        yield Change(
            "required_column_added",
            Effect.BREAKS_WRITES,
            label,
            f"{pair.name} has the new column {name}, which is computed and may not be null: a row of which it cannot "
            "be computed fails.",
            pair.name,
            remedy=_alter(pair, name, "DROP NOT NULL"),
            doubtful=True,
            facts={"column": name},
        )
        return
    if facts.get("generated") or not never_null(facts, pair.after) or fills(facts, pair.after):
        yield Change("column_added", Effect.HARMLESS, label, f"{pair.name} has the new column {name}.", pair.name)
        return
    triggers = [facts_of(trigger) for trigger in pair.after.parts("trigger", pair.store)]
    perhaps = any(trigger["fills"] and trigger["enabled"] for trigger in triggers)
    unless = ", unless a trigger fills it" if perhaps else ""
    yield Change(
        "required_column_added",
        Effect.BREAKS_WRITES,
        label,
        f"{pair.name} has the new column {name}, which may not be null and has no default: old code's INSERT "
        f"fails{unless}.",
        pair.name,
        remedy=_alter(pair, name, "DROP NOT NULL"),
        doubtful=perhaps,
        facts={"column": name},
    )
