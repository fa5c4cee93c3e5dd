"""A database's schema as data: what objects there are, what each one is, and how two schemas differ."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from json.encoder import encode_basestring_ascii as _quoted

_DIGITS = 12
_RELATIONS = ("table", "foreign table", "view", "materialized view")
# The order in which differences are told: what others hang on first, what matters least last.
_FIRST = ("extension", "schema", *_RELATIONS)
_LAST = ("columns", "privileges", "default privileges", "comment")


def label(kind: str, name: str) -> str:
    """By what an object is called in differences and digests: `column public.notes.title`."""
    return f"{kind} {name}" if name else kind


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One object of a schema."""

    kind: str
    """"table", "column", "columns" (their order), "constraint", "function", "privileges" and so on; see
    `norn.adapters.snapshots.catalog`."""
    name: str
    """Qualified, and quoted as SQL has it: `public.notes.title`, `public.f(integer)`, `table public.notes` for its
    privileges; empty where there is only one of the kind."""
    definition: str
    """All that makes it what it is, as text that is the same in a restored copy."""
    oid: int | None = field(default=None, compare=False)
    """Of the object, or of a column's table. Counts within one database only, and not in comparing."""
    number: int | None = field(default=None, compare=False)
    """Of a column (`attnum`). Counts within one database only, and not in comparing."""
    facts: str = field(default="", compare=False, repr=False)
    """What the definition says, and how it is at the moment, as a JSON object; see `norn.domain.schema`. Empty for
    kinds of which nobody asks."""

    @property
    def label(self) -> str:
        return label(self.kind, self.name)

    @property
    def digest(self) -> str:
        """The first 12 hexadecimal digits of the definition's SHA-256."""
        return hashlib.sha256(self.definition.encode()).hexdigest()[:_DIGITS]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The objects of one database; made by `Catalog.of`, it has each once, in the order of kind and name."""

    entries: tuple[CatalogEntry, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[CatalogEntry]) -> Catalog:
        """From entries in any order. Those of one kind and name become one, so that neither goes unnoticed."""
        found: dict[tuple[str, str], CatalogEntry] = {}
        for entry in sorted(entries, key=lambda entry: (entry.kind, entry.name, entry.definition)):
            key = (entry.kind, entry.name)
            if key in found:
                entry = replace(found[key], definition=f"{found[key].definition}\n{entry.definition}")
            found[key] = entry
        return cls(tuple(found.values()))

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def by_key(self) -> dict[tuple[str, str], CatalogEntry]:
        """By kind and name."""
        return {(entry.kind, entry.name): entry for entry in self.entries}

    @property
    def fingerprint(self) -> str:
        """The SHA-256, in hexadecimal, of every kind, name and definition."""
        total = hashlib.sha256()
        for entry in self.entries:
            # A JSON array says where each part ends, whatever is in it.
            kind, name, definition = map(_quoted, (entry.kind, entry.name, entry.definition))
            total.update(f"[{kind}, {name}, {definition}]\n".encode())
        return total.hexdigest()

    def digests(self) -> dict[str, str]:
        """What is kept beside a snapshot: the digest of each definition, by `kind name`."""
        return {entry.label: entry.digest for entry in self.entries}


@dataclass(frozen=True, slots=True)
class Difference:
    """How a schema differs from the expected one: objects as `kind name`, in order. False where there is nothing."""

    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.added or self.changed)

    def summary(self, limit: int = 5) -> str:
        """One line for a person; empty where there is no difference.

        What belongs to a table or view that is itself missing or new is left out.

        Args:
            limit: so many differences are named, the others counted.

        >>> Difference(("column public.notes.title",), ("table public.audit", "column public.audit.id")).summary()
        'column public.notes.title is missing; table public.audit is new'
        """
        said = [
            (_weight(name), turn, name, what)
            for turn, (names, what) in enumerate(
                ((self.missing, "is missing"), (self.changed, "has changed"), (self.added, "is new"))
            )
            for name in _without_parts(names)
        ]
        # What is missing is told before what is new: it is what breaks.
        said.sort(key=lambda line: (line[1], *line))
        lines = [f"{name} {what}" for _, _, name, what in said]
        more = [f"…and {len(lines) - limit} more"] if len(lines) > limit else []
        return "; ".join(lines[:limit] + more)


Digests = Mapping[str, str]


def compare(expected: Catalog | Digests, found: Catalog | Digests, *, without: Collection[str] = ()) -> Difference:
    """How `found` differs from `expected`; either may be the digests that are kept beside a snapshot.

    Args:
        without: kinds that do not count, such as "large objects", which come and go with the data.
    """
    wanted, there = (_digests(side, without) for side in (expected, found))
    return Difference(
        missing=tuple(sorted(wanted.keys() - there.keys())),
        added=tuple(sorted(there.keys() - wanted.keys())),
        changed=tuple(sorted(name for name in wanted.keys() & there.keys() if wanted[name] != there[name])),
    )


def _digests(side: Catalog | Digests, without: Collection[str]) -> Digests:
    digests = side.digests() if isinstance(side, Catalog) else side
    if not without:
        return digests
    return {name: digest for name, digest in digests.items() if not any(_is_of(name, kind) for kind in without)}


def _is_of(name: str, kind: str) -> bool:
    return name == kind or name.startswith(f"{kind} ")


def _weight(name: str) -> int:
    for weight, kind in enumerate(_FIRST):
        if _is_of(name, kind):
            return weight
    return len(_FIRST) + any(_is_of(name, kind) for kind in _LAST)


def _without_parts(names: Iterable[str]) -> Iterator[str]:
    """Without the columns, constraints, privileges and so on of relations that are among them."""
    names = list(names)
    relations = {name[len(kind) + 1 :] for name in names for kind in _RELATIONS if _is_of(name, kind)}
    for name in names:
        if any(_is_of(name, kind) for kind in _RELATIONS) or not _names_any(name, relations):
            yield name


def _names_any(name: str, relations: Collection[str]) -> bool:
    """Whether one of them is named after a space, up to a dot or to the end."""
    starts = [place + 1 for place, letter in enumerate(name) if letter == " "]
    ends = [*(place for place, letter in enumerate(name) if letter == "."), len(name)]
    return any(name[start:end] in relations for start in starts for end in ends if end > start)
