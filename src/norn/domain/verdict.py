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
class Way:
    """Something that helps."""

    text: str
    """What it does, and at what price."""
    command: str = ""
    """To type into a shell; empty where it is none."""
    statement: str = ""
    """To run in the app's database; empty where it is none."""

    def to_json(self) -> dict[str, str]:
        return {"text": self.text, "command": self.command, "statement": self.statement}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, with what helps, and the facts that a script may want."""

    code: str
    level: Level
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    ways: tuple[Way, ...] = ()

    def to_json(self) -> dict[str, Any]:
        ways = {"ways": [way.to_json() for way in self.ways]} if self.ways else {}
        return {"code": self.code, "level": self.level.value, "message": self.message} | dict(self.facts) | ways


@dataclass(frozen=True, slots=True)
class Verdict:
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        return max((finding.level for finding in self.findings), key=lambda level: level.weight, default=Level.SAFE)

    def to_json(self) -> dict[str, Any]:
        return {"level": self.level.value, "findings": [finding.to_json() for finding in self.findings]}


_LOOK_AGAIN = Way("Look at that yourself, or ask again: what did not answer may do so in a moment.")


def not_checked(part: str, why: str, way: Way = _LOOK_AGAIN) -> Finding:
    """What nobody has checked is a caution, never "safe"."""
    message = f"{part[0].upper()}{part[1:]} was not checked: {why}."
    return Finding("not_checked", Level.CAUTION, message, {"part": part, "why": why}, (way,))


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """The verdict of a rollback, the most serious findings first."""
    return Verdict(tuple(sorted(findings, key=lambda finding: -finding.level.weight)))
