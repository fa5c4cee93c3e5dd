"""What it means for old code when rows have to satisfy other conditions than it knows.

Uniqueness is the subject of `norn.domain.schema.keys`, since ON CONFLICT goes by indexes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from norn.domain.catalog import CatalogEntry
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.columns import Pair, fills
from norn.domain.schema.structure import Facts, Structure, facts_of, last_part

_NOT_NULL = re.compile(r"^\((?P<column>[^ ]+) IS NOT NULL\)$")
_ONE_OF = re.compile(r"^\((?P<what>.+) = ANY \((?:ARRAY\[(?P<items>.*)\]|\(ARRAY\[(?P<cast>.*)\]\)::[^()]+)\)\)$")
_BOUND = re.compile(r"^\((?P<what>.+) (?P<operator><=|<|>=|>) \(?'?(?P<number>-?\d+(?:\.\d+)?)'?\)?(?:::[a-z ]+)?\)$")
_ITEM = re.compile(r"'(?:[^']|'')*'|[^,\s][^,]*")
_LEAVES = {"c": "is deleted with it", "n": "gets null there", "d": "gets the default there"}


def compare_constraints(pair: Pair) -> Iterator[Change]:
    """Checks, foreign keys and exclusions of a table."""
    old = [_Constraint(entry) for entry in pair.before.parts("constraint", pair.old)]
    new = [_Constraint(entry) for entry in pair.after.parts("constraint", pair.store)]
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
    def __init__(self, entry: CatalogEntry) -> None:
        self.entry = entry
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
        return self.says == other.says or (self.type == other.type == "c" and _plain(self.says) == _plain(other.says))

    def replaces(self, other: _Constraint) -> bool:
        """Whether it is a foreign key on the same columns."""
        return self.type == other.type == "f" and self.facts["columns"] == other.facts["columns"]


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


def _plain(text: str) -> str:
    """Without casts, parentheses and blanks."""
    return re.sub(r"[() ]", "", re.sub(r"::[a-z ]+(?:\(\d+(?:,\d+)?\))?(?:\[\])?", "", text))


def _only_new_columns(pair: Pair, one: _Constraint) -> bool:
    known = set(pair.new_names().values())
    return bool(one.facts["columns"]) and not known & set(one.facts["columns"])


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
    yield _added("check_added", pair, one, "rows that do not satisfy it fail")


def _check_of_new_columns(pair: Pair, one: _Constraint, expression: str) -> Iterator[Change]:
    """Old code leaves the columns to their defaults: do these satisfy it?"""
    columns = pair.after.columns(pair.store)
    facts = [facts_of(columns[name]) for name in one.facts["columns"] if name in columns]
    left_null = [known for known in facts if not fills(known, pair.after) and not known.get("generated")]
    if left_null and _NOT_NULL.match(expression):
        yield _added("check_added", pair, one, "old code leaves it null, and its INSERT fails")
    elif any(known.get("generated") for known in facts) or (left_null and " IS " in f"{expression} "):
        yield _added("check_added", pair, one, "rows of old code may not satisfy it", doubtful=True)
    elif not left_null and not one.facts["valid"]:
        yield _added("check_added", pair, one, "the default may not satisfy it", doubtful=True)


def is_looser(old: str, new: str) -> bool:
    """Whether a check lets pass all that the old one did, in the two forms of which it is certain.

    >>> is_looser("(a = ANY (ARRAY['x'::text, 'y'::text]))", "(a = ANY (ARRAY['y'::text, 'x'::text, 'z'::text]))")
    True
    >>> is_looser("(age >= 18)", "(age >= 21)")
    False
    """
    was, now = _ONE_OF.match(old), _ONE_OF.match(new)
    if was and now and was["what"] == now["what"]:
        return _items(was) <= _items(now)
    low, high = _BOUND.match(old), _BOUND.match(new)
    if low and high and (low["what"], low["operator"]) == (high["what"], high["operator"]):
        before, after = float(low["number"]), float(high["number"])
        return after >= before if low["operator"].startswith("<") else after <= before
    return False


def _items(found: re.Match[str]) -> set[str]:
    return {item.partition("::")[0].strip("()") for item in _ITEM.findall(found["items"] or found["cast"] or "")}


# ---- foreign keys --------------------------------------------------------------------------------------------------


def _foreign_key_added(pair: Pair, one: _Constraint, lost: list[_Constraint]) -> Iterator[Change]:
    known = set(pair.new_names().values())
    columns = {name: facts_of(entry) for name, entry in pair.after.columns(pair.store).items()}
    left_null = [
        name
        for name in one.facts["columns"]
        if name not in known and name in columns and not fills(columns[name], pair.after)
    ]
    if left_null or _only_new_columns(pair, one):
        return
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


def _cascade_dropped(pair: Pair, one: _Constraint) -> Change:
    return Change(
        "foreign_key_dropped",
        Effect.CHANGES_MEANING,
        one.entry.label,
        f"The foreign key {one.name} of {pair.name} was dropped: its rows outlive those that they refer to.",
        pair.name,
    )


def compare_references(before: Structure, after: Structure, pairs: dict[int, Pair]) -> Iterator[Change]:
    """Foreign keys of new tables, by the tables that they hold fast."""
    known = {pair.store.oid for pair in pairs.values()} | {pair.new.oid for pair in pairs.values()}
    for entry in after.of_kinds(("constraint",)):
        facts = facts_of(entry)
        if facts["type"] != "f" or facts["table"] in known or facts["onDelete"] in _LEAVES:
            continue
        pair = pairs.get(facts["to"])
        table = after.relations_by_oid.get(facts["table"])
        if pair is None or table is None:
            continue
        if facts_of(table)["filled"]:
            yield Change(
                "referenced",
                Effect.BREAKS_WRITES,
                entry.label,
                f"The new table {table.name} refers to {pair.name}: deleting a row that it refers to fails, since old "
                "code does not know of it.",
                pair.name,
                remedy=f"ALTER TABLE {table.name} DROP CONSTRAINT {last_part(entry.name)}",
                doubtful=True,
                facts={"from": table.name},
            )
