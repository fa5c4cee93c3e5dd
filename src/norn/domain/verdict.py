"""Is rolling back the code enough? A verdict is the most serious of its findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    SAFE = "safe"
    CAUTION = "caution"
    UNSAFE = "unsafe"

    @property
    def weight(self) -> int:
        return (Level.SAFE, Level.CAUTION, Level.UNSAFE).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, with the facts that a script may want."""

    code: str
    level: Level
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "level": self.level.value, "message": self.message} | dict(self.facts)


@dataclass(frozen=True, slots=True)
class Verdict:
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        return max((finding.level for finding in self.findings), key=lambda level: level.weight, default=Level.SAFE)

    def to_json(self) -> dict[str, Any]:
        return {"level": self.level.value, "findings": [finding.to_json() for finding in self.findings]}


NOT_CHECKED = Finding(
    "not_checked",
    Level.CAUTION,
    "Whether the older code can work with the database and the settings as they are now was not checked.",
)


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """The verdict of a rollback; what nobody has checked is a caution, never "safe"."""
    return Verdict((NOT_CHECKED, *findings))
