"""What a version had around it: its database's schema and ledgers, and the configuration that it ran with.

Written down at each deploy, before its migration (so as the version before left it) and after. What is different by
now, a rollback of the image alone does not bring back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from norn.domain.configuration import Digests
from norn.domain.contents import Rewritten, TableContents
from norn.domain.deployments import Deployment, Kind
from norn.domain.ledgers import Ledger
from norn.domain.schema import Schema, StepLoss
from norn.domain.snapshots import Anchor


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """An app's database at one moment."""

    schema: Schema
    ledgers: tuple[Ledger, ...]
    anchor: Anchor
    files: Mapping[str, int]
    """The relfilenode of each table, by qualified name: with another one later it was rewritten."""
    statements: tuple[str, ...] | None = None
    """What the app's role had run by then, and could be prepared; None where the server does not keep that."""
    unprepared: tuple[str, ...] = ()
    """What it had run and could not be prepared: names that only its own sessions know, say."""

    contents: Mapping[str, TableContents] = field(default_factory=dict)
    """What its tables held, as far as there was time to look."""

    def to_json(self) -> dict[str, Any]:
        return {
            "contents": {name: held.to_json() for name, held in self.contents.items()},
            "schema": self.schema.to_json(),
            "ledgers": [ledger.to_json() for ledger in self.ledgers],
            "anchor": self.anchor.to_json(),
            "files": dict(self.files),
            "unprepared": list(self.unprepared),
            "statements": list(self.statements) if self.statements is not None else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DatabaseState:
        """Raises KeyError, ValueError, TypeError where it is none."""
        statements = value["statements"]
        return cls(
            Schema.from_json(value["schema"]),
            tuple(Ledger.from_json(ledger) for ledger in value["ledgers"]),
            Anchor.from_json(value["anchor"]),
            dict(value["files"]),
            tuple(map(str, statements)) if statements is not None else None,
            tuple(map(str, value["unprepared"])),
            {name: TableContents.from_json(held) for name, held in value["contents"].items()},
        )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One record: of a deploy, before its migration or after."""

    deployment_id: str
    moment: str
    """`before` or `after` the migration."""
    at: datetime
    database: DatabaseState | None
    """None where the app has no database, or it did not answer."""
    configuration: Digests | None


@dataclass(frozen=True, slots=True)
class Noted:
    """What can be had of a record without reading all of it."""

    deployment_id: str
    moment: str
    at: datetime
    database: str = ""
    """Which one it was (`Schema.database`)."""
    losses: tuple[StepLoss, ...] = ()
    """Since the record before it."""
    rewritten: tuple[Rewritten, ...] = ()
    """After a migration: the tables of which it may have changed rows that were there."""
    looked: bool = True
    """Whether a database was looked at."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A restore that has not been taken back: what was lost between its snapshot and itself is there again."""

    taken_at: datetime
    restored_at: datetime

    def brings_back(self, at: datetime) -> bool:
        return self.taken_at <= at <= self.restored_at


BEFORE, AFTER = "before", "after"


def way_to_present(target: Deployment, history: Sequence[Deployment], recorded: Sequence[Noted]) -> list[Noted]:
    """Which records tell the way from a target to the present, the oldest first; the first is how the target left it.

    That is what the first deploy after the target's own has written down before its migration: what was changed by
    hand while the target was live, it could live with. Where no deploy has come since, it is what its own has written
    down last. Empty where there is none.

    Args:
        history: of the app, in any order.
        recorded: each record that there is.
    """
    there = {(noted.deployment_id, noted.moment): noted for noted in recorded}
    if all(found.seq > target.origin_seq for found in history):
        return []  # what came right after it is not known
    deploys = sorted(
        (found for found in history if found.kind is Kind.DEPLOY and found.seq >= target.origin_seq),
        key=lambda found: found.seq,
    )
    since = [found for found in deploys if found.seq > target.origin_seq]
    way = [there[found.id, moment] for found in since for moment in (BEFORE, AFTER) if (found.id, moment) in there]
    # One that came so far as to change something, and of which nothing was written down, hides what it has changed.
    changed = [found for found in since if found.rolled_out_at is not None or found.snapshot is not None
               or (found.id, BEFORE) in there]  # fmt: skip
    if way and (way[0].deployment_id, way[0].moment) == (changed[0].id, BEFORE):
        return way
    own = [(found.id, AFTER) for found in deploys[:1] if found.seq == target.origin_seq]
    return [there[own[0]], *way] if own and own[0] in there else []


def unseen(way: Sequence[Noted]) -> tuple[Noted, ...]:
    """The records behind which something may hide: nothing was looked at, or not again after the migration began."""
    there = {(one.deployment_id, one.moment) for one in way}
    return tuple(
        one for one in way if not one.looked or (one.moment == BEFORE and (one.deployment_id, AFTER) not in there)
    )


def replaced(way: Sequence[Noted], present: str, at: datetime, restored: Sequence[datetime]) -> bool:
    """Whether another database has come in the place of the one that was there, otherwise than by a restore.

    Args:
        present: which one it is (`Schema.database`).
        at: when that was looked at.
        restored: when a restore, or taking one back, has put another one there.
    """
    known = [(one.at, one.database) for one in way if one.database] + ([(at, present)] if present else [])
    return any(
        before != after and not any(since <= moment <= until for moment in restored)
        for (since, before), (until, after) in pairwise(known)
    )
