"""Functions, and what the database does by itself when a table is written: triggers, rules, policies."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from norn.domain.catalog import CatalogEntry
from norn.domain.schema.access import Access
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.columns import Pair
from norn.domain.schema.structure import ROUTINES, Structure, facts_of, last_part

_BY_ITSELF = ("trigger", "event_trigger")


def compare_routines(before: Structure, after: Structure, *, same_database: bool) -> Iterator[Change]:
    """Functions, procedures and aggregates, by name and arguments."""
    now = after.named(*ROUTINES)
    by_oid = {entry.oid: entry for entry in now.values()} if same_database else {}
    for name, old in before.named(*ROUTINES).items():
        new = now.get(name)
        of_trigger = facts_of(old).get("returns") in _BY_ITSELF
        if new is None and not of_trigger:
            moved = by_oid.get(old.oid)
            what = "was dropped" if moved is None else f"is called {moved.name} now"
            yield Change(
                "function_dropped",
                Effect.BREAKS_READS,
                old.label,
                f"The {old.kind} {name} {what}: what calls it fails.",
                facts={"name": facts_of(old).get("name", name)},
            )
        elif new is not None and (new.kind, new.definition) != (old.kind, old.definition):
            yield Change(
                "function_changed",
                Effect.CHANGES_MEANING,
                old.label,
                f"The {old.kind} {name} does something else now.",
                facts={"name": facts_of(old).get("name", name)},
            )
    yield from _overloaded(before, after, by_oid)


def _overloaded(before: Structure, after: Structure, by_oid: Mapping[int | None, CatalogEntry]) -> Iterator[Change]:
    """New ones that a call of an old one may go to, or that leave it open which of them is meant."""
    now, routines = after.named(*ROUTINES), before.of_kinds(ROUTINES)
    known = {entry.name for entry in routines} | {by_oid[entry.oid].name for entry in routines if entry.oid in by_oid}
    still: dict[str, list[CatalogEntry]] = defaultdict(list)
    for entry in routines:
        if entry.name in now:
            still[facts_of(entry).get("name", entry.name)].append(entry)
    for new in now.values():
        if new.name in known:
            continue
        for old in still.get(facts_of(new).get("name", new.name), ()):
            if _alike(old, new):
                yield Change(
                    "function_changed",
                    Effect.CHANGES_MEANING,
                    old.label,
                    f"There is {new.name} beside the {old.kind} {old.name} now: a call may go to it, or be refused "
                    "since both fit.",
                    facts={"name": facts_of(old).get("name", old.name)},
                )


def _alike(old: CatalogEntry, new: CatalogEntry) -> bool:
    """Whether both take as many arguments, or one of them may take more or fewer."""
    counts = [entry.name.partition("(")[2].count(",") for entry in (old, new)]
    empty = [entry.name.endswith("()") for entry in (old, new)]
    varied = any(re.search(r" DEFAULT |VARIADIC ", one.definition.partition("\n")[0]) for one in (old, new))
    return varied or (counts[0] == counts[1] and empty[0] == empty[1])


def compare_triggers(pair: Pair) -> Iterator[Change]:
    """Triggers and rules of a table that old code knows."""
    for kind in ("trigger", "rule"):
        old = {last_part(entry.name): entry for entry in pair.before.parts(kind, pair.old)}
        new = {last_part(entry.name): entry for entry in pair.after.parts(kind, pair.store)}
        for name in sorted(old.keys() | new.keys()):
            what = _what(old.get(name), new.get(name), pair)
            if what is not None:
                yield Change(
                    "trigger_changed",
                    Effect.CHANGES_MEANING,
                    (old.get(name) or new[name]).label,
                    f"The {kind} {name} of {pair.name} {what}: writing to it does something else now.",
                    pair.name,
                    facts={"trigger": name},
                )


def _what(old: CatalogEntry | None, new: CatalogEntry | None, pair: Pair) -> str | None:
    if old is None:
        assert new is not None
        return "is new" if facts_of(new).get("enabled", True) else None
    if new is None:
        return "was dropped"
    was = old.definition.replace(pair.name, pair.store.name)
    return "is another one" if was != new.definition else None


def compare_policies(pair: Pair, then: Access, now: Access) -> Iterator[Change]:
    """Row security, where it applies to the app."""
    old, new = facts_of(pair.old), facts_of(pair.store)
    if not now.restricted(new):
        return
    if not then.restricted(old):
        yield Change(
            "row_security_added",
            Effect.BREAKS_READS,
            pair.old.label,
            f"Row security is on for {pair.name} now: old code sees and writes only what the policies let pass.",
            pair.name,
            remedy=f"ALTER TABLE {pair.store.name} DISABLE ROW LEVEL SECURITY",
        )
        return
    policies, others = (
        sorted((last_part(entry.name), entry.definition) for entry in structure.parts("policy", relation))
        for structure, relation in ((pair.before, pair.old), (pair.after, pair.store))
    )
    if policies != others:
        yield Change(
            "policy_changed",
            Effect.CHANGES_MEANING,
            pair.old.label,
            f"The policies of {pair.name} are others: old code may see and write other rows.",
            pair.name,
        )
