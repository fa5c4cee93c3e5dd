"""One change of a schema, and what it means for code that was written for the schema before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from norn.domain.verdict import Level


class Effect(StrEnum):
    """What the change does to old code; the most serious first."""

    BREAKS_READS = "breaks reads"
    BREAKS_WRITES = "breaks writes"
    CONTENTS_LOST = "contents lost"
    """No statement fails, but what was there is gone."""
    CHANGES_MEANING = "changes meaning"
    SLOWER = "slower"
    HARMLESS = "harmless"

    @property
    def level(self) -> Level:
        """How serious it is by itself."""
        if self in (Effect.BREAKS_READS, Effect.BREAKS_WRITES):
            return Level.UNSAFE
        return Level.SAFE if self is Effect.HARMLESS else Level.CAUTION


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between the schema that old code knows and the one that it would find."""

    code: str
    """Stable, and documented: `column_dropped`."""
    effect: Effect
    subject: str
    """What has changed, by the name that old code knows it by: `column public.notes.title`."""
    message: str
    """A whole sentence for a person."""
    relation: str = ""
    """The table or view whose statements it touches, as old code knows it: `public.notes`; empty where it is none."""
    remedy: str = ""
    """The SQL statement that lets old code work again, where there is one."""
    doubtful: bool = False
    """It breaks something only for some statements or some rows: a caution."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        level = self.effect.level
        return Level.CAUTION if self.doubtful and level is Level.UNSAFE else level
