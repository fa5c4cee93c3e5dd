"""What it means for old code when rows are told apart, or found, by other indexes than it knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from norn.domain.catalog import CatalogEntry
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.columns import Pair, fills, fresh, never_null
from norn.domain.schema.structure import Facts, facts_of, last_part

_SMALL_PAGES = 1_000
"""Without an index of at most 8 MB nobody notices."""


@dataclass(frozen=True, slots=True)
class _Index:
    entry: CatalogEntry
    facts: Facts
    keys: tuple[str, ...]
    """As old code calls its columns."""

    @property
    def arbiter(self) -> bool:
        """Whether ON CONFLICT can go by it (https://www.postgresql.org/docs/current/sql-insert.html)."""
        return bool(self.facts["unique"] and self.facts["immediate"])

    @property
    def where(self) -> str | None:
        where: str | None = self.facts["where"]
        return where


def _indexes(pair: Pair, *, new: bool) -> list[_Index]:
    structure, relation = (pair.after, pair.store) if new else (pair.before, pair.old)
    old_names = pair.known() if new else {}
    found = []
    for entry in structure.parts("index", relation):
        facts = facts_of(entry)
        found.append(_Index(entry, facts, tuple(old_names.get(key, key) for key in facts["keys"])))
    return found


def compare_keys(pair: Pair) -> Iterator[Change]:
    """Unique indexes, those of constraints too, and plain ones."""
    old, new = _indexes(pair, new=False), _indexes(pair, new=True)
    gone = set(pair.before.columns(pair.old)) - set(pair.known().values()) - set(pair.after.columns(pair.new))
    for index in old:
        if set(index.facts["columns"]) & gone:
            continue  # that the column is gone is said already
        if index.arbiter and not any(_serves(other, index) for other in new):
            yield _unique_dropped(pair, index)
        elif index.arbiter and _constraint(pair, index, new=False) and not _constraint(pair, index, new=True):
            yield _constraint_gone(pair, index)
        elif not index.facts["unique"] and not any(_finds(other, index) for other in new):
            yield _slower(pair, index)
    for index in new:
        if index.facts["unique"] and not any(_implies(pair, other, index) for other in old):
            yield from _unique_added(pair, index)


def _serves(new: _Index, old: _Index) -> bool:
    """ON CONFLICT on the old one's columns can go by the new one."""
    return new.arbiter and set(new.keys) == set(old.keys) and new.where in (None, old.where)


def _finds(new: _Index, old: _Index) -> bool:
    return new.keys[: len(old.keys)] == old.keys and new.where in (None, old.where)


def _implies(pair: Pair, old: _Index, new: _Index) -> bool:
    """Whether rows that the old one lets pass cannot be refused by the new one."""
    if not old.facts["unique"] or not set(old.keys) <= set(new.keys):
        return False
    if new.facts.get("collations") and new.facts.get("collations") != old.facts.get("collations"):
        return False  # what were two values may be the same to it
    if new.facts["immediate"] and not old.facts["immediate"]:
        return False  # what was put right by the end of the transaction fails at once
    if new.facts["nullsNotDistinct"] and not old.facts["nullsNotDistinct"]:
        columns = {name: facts_of(entry) for name, entry in pair.before.columns(pair.old).items()}
        if not all(key in columns and never_null(columns[key], pair.before) for key in old.keys):
            return False
    return old.where in (None, new.where)


def _unique_dropped(pair: Pair, index: _Index) -> Change:
    keys, now = ", ".join(index.keys), pair.new_names()
    where = f" WHERE {index.where}" if index.where else ""
    new_keys = ", ".join(now.get(key, key) for key in index.keys)
    return Change(
        "unique_dropped",
        Effect.BREAKS_WRITES,
        index.entry.label,
        f"Nothing keeps ({keys}) of {pair.name} unique any more: INSERT … ON CONFLICT ({keys}) fails, and there may be "
        "duplicates.",
        pair.name,
        remedy=f"CREATE UNIQUE INDEX ON {pair.store.name} ({new_keys}){where}" if pair.store.kind == "table" else "",
        facts={"columns": list(index.keys)},
    )


def _constraint(pair: Pair, index: _Index, *, new: bool) -> bool:
    """Whether a key has the name of the index: ON CONFLICT ON CONSTRAINT goes by that."""
    structure, relation = (pair.after, pair.store) if new else (pair.before, pair.old)
    return any(
        facts_of(constraint)["type"] in ("p", "u") and last_part(constraint.name) == last_part(index.entry.name)
        for constraint in structure.parts("constraint", relation)
    )


def _constraint_gone(pair: Pair, index: _Index) -> Change:
    name = last_part(index.entry.name)
    return Change(
        "constraint_renamed",
        Effect.BREAKS_WRITES,
        index.entry.label,
        f"The constraint {name} of {pair.name} is called otherwise, or only an index: ON CONFLICT ON CONSTRAINT {name} "
        "fails.",
        pair.name,
        doubtful=True,
        facts={"constraint": name},
    )


def _slower(pair: Pair, index: _Index) -> Change:
    small = index.facts["pages"] <= _SMALL_PAGES
    return Change(
        "index_dropped",
        Effect.HARMLESS if small else Effect.SLOWER,
        index.entry.label,
        f"The index on ({', '.join(index.keys)}) of {pair.name} was dropped: what goes by it takes longer.",
        pair.name,
        facts={"columns": list(index.keys)},
    )


def _unique_added(pair: Pair, index: _Index) -> Iterator[Change]:
    if _never_in_the_way(pair, index):
        return
    keys = ", ".join(index.keys)
    name = last_part(index.entry.name)
    constraint = any(last_part(one.name) == name for one in pair.after.parts("constraint", pair.store))
    remedy = f"ALTER TABLE {pair.store.name} DROP CONSTRAINT {name}" if constraint else f"DROP INDEX {index.entry.name}"
    yield Change(
        "unique_added",
        Effect.BREAKS_WRITES,
        index.entry.label,
        f"({keys}) of {pair.name} has to be unique now: old code's duplicates fail.",
        pair.name,
        remedy=remedy,
        facts={"columns": list(index.keys)},
    )


def _never_in_the_way(pair: Pair, index: _Index) -> bool:
    """Old code leaves a new column of it null, or to a default that is another one for each row."""
    known = pair.known()
    columns = pair.after.columns(pair.store)
    fresh_ones: Iterable[Facts] = (
        facts_of(columns[name]) for name in index.facts["columns"] if name not in known and name in columns
    )
    return any(
        fresh(facts)
        or (not facts.get("generated") and not fills(facts, pair.after) and not index.facts["nullsNotDistinct"])
        for facts in fresh_ones
    )
