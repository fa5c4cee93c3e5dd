"""Values that apps get and nobody sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Secrets(Protocol):
    """Values that apps get and nobody sees."""

    async def names(self, app: str) -> Sequence[str]: ...

    async def values(self, app: str) -> Mapping[str, str]: ...

    async def set(self, app: str, name: str, value: str) -> None: ...

    async def unset(self, app: str, name: str) -> None:
        """Raises UnknownSecret."""
        ...
