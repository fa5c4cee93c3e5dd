"""The apps' databases, and snapshots of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from norn.domain.infraspec import PostgresService
from norn.domain.ports.output import Output


@dataclass(frozen=True, slots=True)
class AppDatabase:
    """The database of an app, as the app and as Norn reach it."""

    app: str
    name: str
    url: str = field(repr=False)
    """What the app gets as DATABASE_URL: its own role."""
    admin_url: str = field(repr=False)
    """The same database with the rights that a dump needs."""
    server_version: int
    """As `server_version_num`: 160014 is 16.14."""

    @property
    def major(self) -> int:
        return self.server_version // 10000


class Databases(Protocol):
    async def ensure(self, app: str, service: PostgresService) -> AppDatabase:
        """The app's database and role; made where they are missing, left as they are where not."""
        ...

    def alone(self, database: AppDatabase, output: Output) -> AbstractAsyncContextManager[None]:
        """Within: no other operation is at work on that database, of another app that shares it, say."""
        ...

    async def identity(self, url: str) -> str | None:
        """What is the same for two URLs only where they lead to the same database; None where it cannot be reached."""
        ...

    async def end_sessions(self, database: AppDatabase, application_name: str) -> int:
        """End what an earlier attempt left behind; the number of sessions ended."""
        ...


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    name: str
    """`<db>_<sha>_<timestamp>.dump`"""
    database: str
    commit_sha: str
    """The first 12 digits of the commit before whose migration it was taken."""
    taken_at: datetime
    size_bytes: int


class Snapshots(Protocol):
    async def take(self, database: AppDatabase, commit_sha: str, taken_at: datetime, output: Output) -> SnapshotFile:
        """Dump, read in full, and only then give it its name; never over an existing file. Raises SnapshotFailed."""
        ...

    async def files(self) -> Sequence[SnapshotFile]:
        """Those that are there, newest first."""
        ...
