"""What it means for old code when rows have to satisfy other conditions than it knows.

Uniqueness is the subject of `norn.domain.schema.keys`, since ON CONFLICT goes by indexes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from norn.domain.catalog import CatalogEntry
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.columns import Pair, fills
from norn.domain.schema.expressions import balanced, null_fails, null_passes, plain
from norn.domain.schema.structure import Facts, Structure, facts_of, last_part, parents

_NOT_NULL = re.compile(r"^\((?P<column>[^ ]+) IS NOT NULL\)$")
_ONE_OF = re.compile(r"^\((?P<what>.+) = ANY \((?:ARRAY\[(?P<items>.*)\]|\(ARRAY\[(?P<cast>.*)\]\)::[^()]+)\)\)$")
_BOUND = re.compile(r"^\((?P<what>.+) (?P<operator><=|<|>=|>) \(?'?(?P<number>-?\d+(?:\.\d+)?)'?\)?(?:::[a-z ]+)?\)$")
_ITEM = re.compile(r"'(?:[^']|'')*'|[^,\s()'][^,]*")
_LEAVES = {"c": "is deleted with it", "n": "gets null there", "d": "gets the default there"}


def compare_constraints(pair: Pair) -> Iterator[Change]:
    """Checks, foreign keys and exclusions of a table."""
    old, new = _constraints(pair.before, pair.old), _constraints(pair.after, pair.store)
    known = pair.same_database
    lost = [one for one in old if not any(one.same(other, same_database=known) for other in new)]
    for one in new:
        if not one.enforced or any(one.same(other, same_database=known) for other in old):
            continue
        if one.type == "c":
            yield from _check_added(pair, one, lost)
        elif one.type == "f":
            yield from _foreign_key_added(pair, one, lost)
        elif one.type == "x":
            yield _added("exclusion_added", pair, one, "rows that exclude each other fail")
    for one in lost:
        if one.type == "f" and one.facts["onDelete"] in _LEAVES and not any(one.replaces(other) for other in new):
            yield _cascade_dropped(pair, one)


class _Constraint:
    def __init__(self, entry: CatalogEntry, texts: Collection[str]) -> None:
        self.entry = entry
        self._texts = texts
        self.facts: Facts = facts_of(entry)
        self.type = str(self.facts["type"])
        self.name = last_part(entry.name)
        self.says = entry.definition.removesuffix(" NOT VALID")
        self.enforced = not self.says.endswith(" NOT ENFORCED")

    def same(self, other: _Constraint, *, same_database: bool) -> bool:
        """Whether both ask the same of rows that are written from now on.

        Where a column has another name PostgreSQL writes it so, and where it has another type, with other casts.
        """
        if self.enforced != other.enforced:
            return False
        if same_database and self.entry.oid == other.entry.oid and "ENFORCED" not in self.says + other.says:
            return self.facts.get("deferrable") == other.facts.get("deferrable")
        if self.type == other.type == "c":
            return plain(self.says, self._texts) == plain(other.says, other._texts)
        return self.says == other.says

    def replaces(self, other: _Constraint) -> bool:
        """Whether it is a foreign key on the same columns."""
        return self.type == other.type == "f" and self.facts["columns"] == other.facts["columns"]


def _constraints(structure: Structure, relation: CatalogEntry) -> list[_Constraint]:
    columns = structure.columns(relation).items()
    texts = {name for name, entry in columns if str(facts_of(entry)["type"]).startswith(("text", "character varying"))}
    return [_Constraint(entry, texts) for entry in structure.parts("constraint", relation)]


def _added(code: str, pair: Pair, one: _Constraint, what: str, *, doubtful: bool = False) -> Change:
    return Change(
        code,
        Effect.BREAKS_WRITES,
        one.entry.label,
        f"{pair.name} has the new constraint {one.name} ({one.says}): {what}.",
        pair.name,
        remedy=f"ALTER TABLE {pair.store.name} DROP CONSTRAINT {one.name}",
        doubtful=doubtful,
        facts={"constraint": one.name},
    )


def _only_new_columns(pair: Pair, one: _Constraint) -> bool:
    return bool(one.facts["columns"]) and not pair.known().keys() & set(one.facts["columns"])


def _left_null(pair: Pair, one: _Constraint) -> list[str]:
    """Its columns that old code does not know, and that have no default."""
    known, columns = pair.known(), {name: facts_of(entry) for name, entry in pair.after.columns(pair.store).items()}
    return [
        name
        for name in one.facts["columns"]
        if name not in known
        and name in columns
        and not columns[name].get("generated")
        and not fills(columns[name], pair.after)
    ]


# ---- checks --------------------------------------------------------------------------------------------------------


def _check_added(pair: Pair, one: _Constraint, lost: list[_Constraint]) -> Iterator[Change]:
    expression = str(one.facts["expression"])
    if _only_new_columns(pair, one):
        yield from _check_of_new_columns(pair, one, expression)
        return
    if any(old.type == "c" and is_looser(str(old.facts["expression"]), expression) for old in lost):
        yield Change("check_loosened", Effect.HARMLESS, one.entry.label,
                     f"The constraint {one.name} of {pair.name} allows more than before.", pair.name)  # fmt: skip
        return
    not_null = _NOT_NULL.match(expression)
    columns = {name: facts_of(entry) for name, entry in pair.after.columns(pair.store).items()}
    if not_null and columns.get(not_null["column"], {}).get("notNull"):
        return  # it says what NOT NULL says
    if null_passes(expression, _left_null(pair, one), others_pass=False):
        return
    yield _added("check_added", pair, one, "rows that do not satisfy it fail")


def _check_of_new_columns(pair: Pair, one: _Constraint, expression: str) -> Iterator[Change]:
    """Old code leaves the columns to their defaults, or null: do these satisfy it?"""
    columns, left_null = pair.after.columns(pair.store), _left_null(pair, one)
    generated = any(facts_of(columns[name]).get("generated") for name in one.facts["columns"] if name in columns)
    triggers = [facts_of(trigger) for trigger in pair.after.parts("trigger", pair.store)]
    if null_fails(expression, left_null):
        perhaps = any(trigger["fills"] and trigger["enabled"] for trigger in triggers)
        unless = ", unless a trigger fills it" if perhaps else ""
        yield _added("check_added", pair, one, f"old code leaves null there, and its INSERT fails{unless}",
                     doubtful=perhaps)  # fmt: skip
    elif generated or not null_passes(expression, left_null, others_pass=bool(one.facts["valid"])):
        yield _added("check_added", pair, one, "rows of old code may not satisfy it", doubtful=True)


def is_looser(old: str, new: str) -> bool:
    """Whether a check lets pass all that the old one did, in the two forms of which it is certain.

    >>> is_looser("(a = ANY (ARRAY['x'::text, 'y'::text]))", "(a = ANY (ARRAY['y'::text, 'x'::text, 'z'::text]))")
    True
    >>> is_looser("(age >= 18)", "(age >= 21)")
    False
    >>> is_looser("(NOT (age >= 18))", "(NOT (age >= 16))")
    False
    """
    was, now = _ONE_OF.match(old), _ONE_OF.match(new)
    if was and now and was["what"] == now["what"] and balanced(was["what"]):
        return _items(was) <= _items(now)
    low, high = _BOUND.match(old), _BOUND.match(new)
    same_side = low and high and (low["what"], low["operator"]) == (high["what"], high["operator"])
    if low and high and same_side and balanced(low["what"]):
        before, after = float(low["number"]), float(high["number"])
        return after >= before if low["operator"].startswith("<") else after <= before
    return False


def _items(found: re.Match[str]) -> set[str]:
    texts = _ITEM.findall(found["items"] or found["cast"] or "")
    return {item if item.startswith("'") else item.partition("::")[0].rstrip("()") for item in texts} - {""}


# ---- foreign keys --------------------------------------------------------------------------------------------------


def _foreign_key_added(pair: Pair, one: _Constraint, lost: list[_Constraint]) -> Iterator[Change]:
    if _not_written(pair, one):
        return  # what old code cannot delete then is the subject of `compare_references`
    old = next((other for other in lost if other.replaces(one)), None)
    if old is None or old.facts["to"] != one.facts["to"]:
        yield _added("foreign_key_added", pair, one, "rows that refer to nothing fail")
        return
    was, now = old.facts["onDelete"], one.facts["onDelete"]
    if was in _LEAVES and now not in _LEAVES:
        yield _added("foreign_key_stricter", pair, one, "what was deleted with its parent holds it fast now")
    elif was != now and now in _LEAVES:
        yield Change(
            "foreign_key_changed",
            Effect.CHANGES_MEANING,
            one.entry.label,
            f"Where a row that {pair.name} refers to is deleted, its own row {_LEAVES[now]} now ({one.name}).",
            pair.name,
        )
    elif old.says != one.says.removesuffix(" DEFERRABLE INITIALLY DEFERRED"):
        yield _added("foreign_key_stricter", pair, one, f"before it was {old.says}", doubtful=True)


def _not_written(pair: Pair, one: _Constraint) -> bool:
    """Whether old code's own rows always satisfy it."""
    return bool(_left_null(pair, one)) or _only_new_columns(pair, one)


def _cascade_dropped(pair: Pair, one: _Constraint) -> Change:
    return Change(
        "foreign_key_dropped",
        Effect.CHANGES_MEANING,
        one.entry.label,
        f"The foreign key {one.name} of {pair.name} was dropped: its rows outlive those that they refer to.",
        pair.name,
    )


def compare_references(before: Structure, after: Structure, pairs: dict[int, Pair]) -> Iterator[Change]:
    """Foreign keys of new tables and of new columns, by the tables that they hold fast."""
    known = {pair.store.oid: pair for pair in pairs.values()}
    known = {pair.new.oid: pair for pair in pairs.values()} | known
    old_ones = {(entry.name, entry.definition, entry.oid) for entry in before.of_kinds(("constraint",))}
    for entry in after.of_kinds(("constraint",)):
        facts = facts_of(entry)
        if facts["type"] != "f":
            continue
        pair = pairs.get(facts["to"])
        table = after.relations_by_oid.get(facts["table"])
        if pair is None or table is None or (entry.name, entry.definition, entry.oid) in old_ones:
            continue
        if not _filled(table, after):
            continue
        what = f"The new table {table.name} refers"
        if (owner := known.get(table.oid)) is not None:
            if not _is_new(owner, one := _Constraint(entry, ())) or not _not_written(owner, one):
                continue
            columns = ", ".join(facts["columns"])
            what = f"The new column {columns} of {owner.name} refers"
            if facts["onDelete"] == "c":
                yield Change(
                    "foreign_key_changed",
                    Effect.CHANGES_MEANING,
                    entry.label,
                    f"Where a row of {pair.name} is deleted, so are the rows of {owner.name} whose new {columns} "
                    "refers to it: old code does not know of that.",
                    owner.name,
                )
        if facts["onDelete"] in _LEAVES:
            continue
        yield Change(
            "referenced",
            Effect.BREAKS_WRITES,
            entry.label,
            f"{what} to {pair.name}: deleting a row that it refers to fails, since old code does not know of it.",
            pair.name,
            remedy=f"ALTER TABLE {table.name} DROP CONSTRAINT {last_part(entry.name)}",
            doubtful=True,
            facts={"from": table.name},
        )


def _filled(table: CatalogEntry, after: Structure) -> bool:
    """Whether there is a row in it, or in its partitions."""
    filled: bool | None = facts_of(table)["filled"]
    if filled is not None:
        return filled
    parts = (other for other in after.of_kinds(("table",)) if table.name in parents(other))
    return table.kind != "table" or any(_filled(part, after) for part in parts)


def _is_new(pair: Pair, one: _Constraint) -> bool:
    old = _constraints(pair.before, pair.old)
    return one.enforced and not any(other.same(one, same_database=pair.same_database) for other in old)
