"""What an app needs of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from norn.domain.infraspec.spec import Dependency


@dataclass(frozen=True, slots=True)
class DependencyAnswer:
    dependency: Dependency
    status: int | None
    """Of the HTTP answer; None where there was none."""
    why: str = ""
    """For None: what happened instead."""

    @property
    def as_expected(self) -> bool:
        return self.status == self.dependency.expect


class Dependencies(Protocol):
    async def ask(self, dependencies: Sequence[Dependency]) -> Sequence[DependencyAnswer]:
        """All at the same time, each for a second and a half at most. Never raises."""
        ...
