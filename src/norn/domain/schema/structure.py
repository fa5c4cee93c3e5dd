"""A catalog by what belongs together: the columns, keys and triggers of each relation."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from norn.domain.catalog import Catalog, CatalogEntry

RELATIONS = ("table", "foreign table", "view", "materialized view")
ROUTINES = ("function", "procedure", "aggregate")
TYPES = ("enum", "domain", "type")

_PLAIN_VIEW = re.compile(r"^ SELECT (?P<items>[^()]+?)\n   FROM (?P<table>[^\s();]+(?: [^\s();]+\")?);$", re.DOTALL)

Facts = Mapping[str, Any]


def facts_of(entry: CatalogEntry) -> Facts:
    """What is known of an object beside its definition; empty where nothing is."""
    facts: Facts = json.loads(entry.facts) if entry.facts else {}
    return facts


class Structure:
    """The objects of one catalog, by name, by OID, and by the relation that they belong to."""

    def __init__(self, catalog: Catalog) -> None:
        by_kind: dict[str, list[CatalogEntry]] = defaultdict(list)
        for entry in catalog:
            by_kind[entry.kind].append(entry)
        self.catalog = catalog
        self._by_kind = by_kind
        relations = self.of_kinds(RELATIONS)
        self.relations = {entry.name: entry for entry in relations}
        self.relations_by_oid = {entry.oid: entry for entry in relations}

    def of_kinds(self, kinds: Iterable[str]) -> list[CatalogEntry]:
        return [entry for kind in kinds for entry in self._by_kind.get(kind, ())]

    def named(self, *kinds: str) -> dict[str, CatalogEntry]:
        return {entry.name: entry for entry in self.of_kinds(kinds)}

    @cached_property
    def _columns(self) -> dict[int | None, list[CatalogEntry]]:
        found: dict[int | None, list[CatalogEntry]] = defaultdict(list)
        for entry in self._by_kind.get("column", ()):
            found[entry.oid].append(entry)
        return found

    def columns(self, relation: CatalogEntry) -> dict[str, CatalogEntry]:
        """By name, quoted where SQL wants it."""
        start = len(relation.name) + 1
        return {entry.name[start:]: entry for entry in self._columns.get(relation.oid, ())}

    @cached_property
    def _parts(self) -> dict[tuple[str, int], list[CatalogEntry]]:
        found: dict[tuple[str, int], list[CatalogEntry]] = defaultdict(list)
        for entry in self.of_kinds(("constraint", "index", "trigger", "rule", "policy")):
            facts = facts_of(entry)
            owner = facts.get("table", facts.get("domain"))
            if owner is not None:
                found[entry.kind, owner].append(entry)
        return found

    def parts(self, kind: str, owner: CatalogEntry) -> list[CatalogEntry]:
        """The constraints, indexes, triggers, rules or policies of a relation; the constraints of a domain."""
        return self._parts.get((kind, owner.oid or 0), [])

    @cached_property
    def privileges(self) -> dict[str, CatalogEntry]:
        """By what they are on: `public.notes` for any kind of relation, else `function public.f()`."""
        found = {}
        for entry in self._by_kind.get("privileges", ()):
            kind = next((kind for kind in RELATIONS if entry.name.startswith(f"{kind} ")), None)
            found[entry.name[len(kind) + 1 :] if kind else entry.name] = entry
        return found

    @cached_property
    def enums(self) -> dict[str, CatalogEntry]:
        return self.named("enum")

    @cached_property
    def domains(self) -> dict[str, CatalogEntry]:
        return self.named("domain")


def parents(relation: CatalogEntry) -> list[str]:
    """The tables that it is a partition of, or that it inherits from: their rows are its own, too."""
    lines = (line for line in relation.definition.split("\n") if line.startswith("inherits "))
    return [name for line in lines for name in line.removeprefix("inherits ").split(", ")]


def shown_columns(view: CatalogEntry) -> tuple[str, dict[str, str]] | None:
    """Which table a view shows all rows of, and which of its columns under which name; None where it does not."""
    found = _PLAIN_VIEW.match(str(facts_of(view).get("definition", "")))
    if found is None or "check_option" in view.definition:
        return None
    shown = {}
    for item in found["items"].split(",\n"):
        source, _, alias = item.strip().partition(" AS ")
        shown[alias or source.rpartition(".")[2]] = source.rpartition(".")[2]
    return found["table"], shown


def last_part(name: str) -> str:
    """The name itself of a qualified one: `notes` of `public.notes`, quoted where it was."""
    if name.endswith('"'):
        return name[name.rfind('."') + 1 :] if '."' in name else name
    return name.rpartition(".")[2]
