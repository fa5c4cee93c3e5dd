"""Where the audit is kept. What an operation does gets in with the transaction that does it (`norn.domain.store`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from norn.domain.audit import Entry, Recorded


class Audit(Protocol):
    """Entries are added, and never changed or removed."""

    async def record(self, entry: Entry) -> None: ...

    async def entries(self, apps: Collection[str] | None, before: int | None, limit: int) -> Sequence[Recorded]:
        """Newest first, below `before`; of these apps alone. None: all, and what concerns no app as well."""
        ...

    def all(self, apps: Collection[str] | None) -> AsyncIterator[Recorded]:
        """Oldest first, a page at a time."""
        ...
