"""What became of the tables and views that old code knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from norn.domain.catalog import CatalogEntry
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.columns import Pair
from norn.domain.schema.structure import Structure, facts_of, parents, shown_columns

_ALL_WRITES = {8: "INSERT", 4: "UPDATE", 16: "DELETE"}
"""As `pg_relation_is_updatable` has them."""
_ALIAS = re.compile(r' AS (?:\w+|"(?:[^"]|"")+")')


def find_pair(
    old: CatalogEntry, before: Structure, after: Structure, types: Mapping[str, str], *, same_database: bool
) -> Pair | None:
    """What answers to a relation's name now, and what holds its rows; None where nothing has the name."""
    new = after.relations.get(old.name)
    if new is None:
        return None
    itself = after.relations_by_oid.get(old.oid) if same_database else None
    behind = itself is not None and old.kind == "table" and new.kind == "view"
    return Pair(old, new, itself if behind and itself is not None else new, same_database, before, after, types)


def missing(old: CatalogEntry, after: Structure, *, same_database: bool) -> Change:
    """That nothing has the relation's name any more."""
    itself = after.relations_by_oid.get(old.oid) if same_database else None
    if itself is not None:
        return Change(
            "relation_renamed",
            Effect.BREAKS_READS,
            old.label,
            f"The {old.kind} {old.name} is called {itself.name} now: what reads or writes it fails.",
            old.name,
            remedy=f"CREATE VIEW {old.name} AS TABLE {itself.name}",
            facts={"now": itself.name},
        )
    if facts_of(old).get("partition"):
        return Change(
            "contents_lost",
            Effect.CONTENTS_LOST,
            old.label,
            f"The partition {old.name} was dropped, with its rows.",
            old.name,
        )
    gone = ", and its rows are gone" if old.kind == "table" else ""
    return Change(
        "relation_dropped",
        Effect.BREAKS_READS,
        old.label,
        f"The {old.kind} {old.name} was dropped: what reads or writes it fails{gone}.",
        old.name,
    )


def compare_relation(pair: Pair) -> Iterator[Change]:
    """What is different about the relation itself."""
    old, new = pair.old, pair.new
    if old.kind in ("table", "foreign table"):
        if new.kind not in ("table", "foreign table"):
            yield from _became_view(pair)
        elif pair.same_database and not pair.same:
            yield _recreated(pair)
        elif facts_of(old).get("partition") and not facts_of(new).get("partition"):
            yield Change("contents_lost", Effect.CONTENTS_LOST, old.label,
                         f"{old.name} is no partition any more: its rows are not in what it was a part of.",
                         old.name)  # fmt: skip
        else:
            yield from _disinherited(pair)
    elif new.kind in ("view", "materialized view"):
        yield from _view(pair)
    else:
        yield Change(
            "view_changed",
            Effect.CHANGES_MEANING,
            old.label,
            f"The {old.kind} {pair.name} is a table now: it does not follow what it showed, and what is written to it "
            "may fail, or goes nowhere else.",
            pair.name,
        )


def _recreated(pair: Pair) -> Change:
    return Change(
        "contents_lost",
        Effect.CONTENTS_LOST,
        pair.old.label,
        f"{pair.name} is another table of the same name: no statement fails for that, but what the old one held is "
        "only in it as far as the migration has copied it.",
        pair.name,
    )


def _disinherited(pair: Pair) -> Iterator[Change]:
    """Rows that old code finds in another table as well, and that are not in that any more."""
    now = set(parents(pair.new))
    for name in parents(pair.old):
        parent = pair.before.relations.get(name)
        moved = pair.after.relations_by_oid.get(parent.oid) if parent is not None and pair.same_database else None
        if (moved.name if moved is not None else name) not in now and name in pair.after.relations:
            yield Change("contents_lost", Effect.CONTENTS_LOST, pair.old.label,
                         f"{pair.name} is no part of {name} any more: its rows are not found there.",
                         name)  # fmt: skip


def _became_view(pair: Pair) -> Iterator[Change]:
    facts = facts_of(pair.new)
    lacking = [word for bit, word in _ALL_WRITES.items() if not (facts["writes"] or 0) & bit]
    fixed = [name for name in facts["fixed"] or () if name in pair.before.columns(pair.old)]
    if lacking or fixed:
        what = " and ".join(lacking) if lacking else f"writing {', '.join(fixed)}"
        yield Change(
            "view_not_writable",
            Effect.BREAKS_WRITES,
            pair.old.label,
            f"{pair.name} is a view now: {what} fails.",
            pair.name,
            facts={"lacking": lacking, "columns": fixed},
        )
    elif pair.same and _shows_all(pair):
        yield Change("renamed_behind_view", Effect.HARMLESS, pair.old.label,
                     f"{pair.name} is a view over {pair.store.name} now, which old code can read and write as before.",
                     pair.name)  # fmt: skip
    else:
        yield Change("view_changed", Effect.CHANGES_MEANING, pair.old.label,
                     f"{pair.name} is a view now, and was a table: it may show and take other rows.",
                     pair.name)  # fmt: skip


def _shows_all(pair: Pair) -> bool:
    """Whether the view is the table behind it, row by row, with each old column under its name."""
    table, shown = shown_columns(pair.new) or ("", {})
    return table == pair.store.name and all(shown.get(name) == now for name, now in pair.new_names().items())


def _view(pair: Pair) -> Iterator[Change]:
    old, new = facts_of(pair.old), facts_of(pair.new)
    if old.get("populated") and not new.get("populated") and pair.new.kind == "materialized view":
        yield Change(
            "view_not_populated",
            Effect.BREAKS_READS,
            pair.old.label,
            f"The materialized view {pair.name} has not been filled: what reads it fails.",
            pair.name,
            remedy=f"REFRESH MATERIALIZED VIEW {pair.new.name}",
        )
    lacking = [word for bit, word in _ALL_WRITES.items() if (old["writes"] or 0) & ~(new["writes"] or 0) & bit]
    if lacking:
        yield Change("view_not_writable", Effect.BREAKS_WRITES, pair.old.label,
                     f"The view {pair.name} cannot be written through as before: {' and '.join(lacking)} fails.",
                     pair.name, facts={"lacking": lacking})  # fmt: skip
    was, now = with_new_names(pair.old.definition, pair), pair.new.definition
    # A column that is shown under its old name has got an alias for it; the columns are in their old order then.
    in_order = _order(pair.before, pair.old) == _order(pair.after, pair.new)
    if was != now and not (in_order and _ALIAS.sub("", was) == _ALIAS.sub("", now)):
        yield Change(
            "view_changed",
            Effect.CHANGES_MEANING,
            pair.old.label,
            f"The {pair.old.kind} {pair.name} is defined otherwise: its rows may mean something else.",
            pair.name,
        )


def _order(structure: Structure, view: CatalogEntry) -> list[str]:
    columns = structure.columns(view)
    return sorted(columns, key=lambda name: columns[name].number or 0)


def with_new_names(definition: str, pair: Pair) -> str:
    """The definition with the relations and columns in it called as they are now: PostgreSQL writes it so itself."""
    for old in pair.before.relations.values():
        if old.name not in definition:
            continue
        now = pair.after.relations_by_oid.get(old.oid)
        if now is None:
            continue
        names = {entry.number: name for name, entry in pair.after.columns(now).items()}
        for name, entry in pair.before.columns(old).items():
            new = names.get(entry.number, name)
            if new != name:
                definition = _word(name, new, definition)
        definition = _word(old.name, now.name, definition)
        definition = _word(old.name.rpartition(".")[2], now.name.rpartition(".")[2], definition)
    return definition


def _word(old: str, new: str, text: str) -> str:
    return re.sub(rf"(?<![\w\"]){re.escape(old)}(?![\w\"])", lambda _: new, text) if old != new else text
