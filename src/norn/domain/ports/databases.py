"""The apps' databases, and snapshots of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from norn.domain.catalog import Difference
from norn.domain.infraspec import PostgresService
from norn.domain.loss import Loss
from norn.domain.ports.output import Output
from norn.domain.snapshots import Anchor, Snapshot, SnapshotOrder, TableState
from norn.domain.surroundings import DatabaseState
from norn.domain.written import Written


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

    async def find(self, app: str, service: PostgresService) -> AppDatabase | None:
        """The same, with nothing changed; None where it is missing. Raises Unavailable."""
        ...

    async def password(self, app: str) -> str:
        """What the app's own role logs in with: a secret. Empty where it has none yet."""
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
class Room:
    snapshots_bytes: int
    """What the dumps take."""
    free_bytes: int


class Snapshots(Protocol):
    """Files in one directory; what counts as a snapshot has been read in full and hashed."""

    async def take(self, database: AppDatabase, order: SnapshotOrder, output: Output) -> Snapshot:
        """Dump at an exported moment, read in full, and only then give it its name; never over an existing file.

        Raises SnapshotFailed, NoRoom, ProgramMissing.
        """
        ...

    async def names(self) -> Sequence[str]:
        """Of the dumps that are there, newest first."""
        ...

    async def record(self, name: str) -> Snapshot:
        """What is written down beside a dump. Raises SnapshotMissing, SnapshotDamaged."""
        ...

    async def check(self, snapshot: Snapshot, output: Output) -> None:
        """Read all of a dump and compare its hash. Raises SnapshotMissing, SnapshotDamaged."""
        ...

    async def remove(self, name: str) -> None:
        """The dump and what is beside it, where they are."""
        ...

    async def room(self) -> Room:
        """Of the directory's disk."""
        ...


@dataclass(frozen=True, slots=True)
class Moment:
    """What a database held at one moment: what came later can be told by it."""

    anchor: Anchor
    tables: Mapping[str, TableState]

    def to_json(self) -> dict[str, Any]:
        return {
            "anchor": self.anchor.to_json(),
            "tables": {name: state.to_json() for name, state in sorted(self.tables.items())},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Moment:
        tables = {name: TableState.from_json(state) for name, state in value["tables"].items()}
        return cls(Anchor.from_json(value["anchor"]), tables)


class Verification(Protocol):
    async def verify(self, snapshot: Snapshot, output: Output) -> None:
        """Hash, full read, and a test restore with rows and schema compared, on a server for that alone.

        Raises SnapshotMissing, SnapshotDamaged, and NotPossible where there is no such server.
        """
        ...


class Restores(Protocol):
    """Databases beside the live one, and putting one in its place. Each may be called again after a crash."""

    async def obstacles(self, database: AppDatabase) -> Sequence[str]:
        """What would be in the way of a swap, for people; empty: nothing."""
        ...

    async def free_bytes(self, database: AppDatabase) -> int | None:
        """On the disk of the database server; None where that is another machine."""
        ...

    async def differences(self, database: AppDatabase, other: Snapshot | str) -> Difference:
        """Between the schema in a snapshot, or of the database of that name beside it, and the live one's."""
        ...

    async def exists(self, database: AppDatabase, name: str) -> bool: ...

    async def make_copy(self, database: AppDatabase, snapshot: Snapshot, copy: str, output: Output) -> None:
        """Restore a snapshot into the new database `copy`, and check that all of it is there.

        One that an interrupted attempt began is made anew. Raises SnapshotMissing, SnapshotDamaged, RestoreFailed.
        """
        ...

    async def loss(self, database: AppDatabase, copy: str, snapshot: Snapshot) -> Loss:
        """What the live database has that the copy has not, by rows written and deleted since the snapshot."""
        ...

    async def loss_since(
        self, database: AppDatabase, moment: Moment, name: str = "", budget_s: float | None = None
    ) -> Loss:
        """What was written to and deleted from the live database, or the one of that name, since a moment of it.

        What could not be counted in that time, where there is one, is unknown.
        """
        ...

    async def swap(self, database: AppDatabase, copy: str, former: str, output: Output) -> None:
        """Rename: the live database to `former`, `copy` to the live name. Does nothing where that has happened.

        Raises RestoreFailed: the live database is as it was.
        """
        ...

    async def moment(self, database: AppDatabase, name: str) -> Moment:
        """Of the database of that name beside the live one, or the live one itself, now."""
        ...

    async def drop(self, database: AppDatabase, name: str) -> None:
        """Remove a database that a restore has made or put aside, where it is there. Never the live one."""
        ...


class Schemas(Protocol):
    """What an app's database looks like, and what that means for code that was there before."""

    async def state(self, database: AppDatabase) -> DatabaseState:
        """The present, to be kept: with what the tables hold. Raises Unavailable, NotPossible."""
        ...

    async def look(self, database: AppDatabase, statements: Sequence[str]) -> tuple[DatabaseState, Mapping[str, str]]:
        """The present, and which of the statements would fail on it, with why. Raises Unavailable, NotPossible."""
        ...

    async def written(
        self, database: AppDatabase, before: Anchor, after: Anchor | None, budget_s: float
    ) -> Sequence[Written] | None:
        """Rows written since `before`, and since `after`, as many as are found in that time; None where the database
        is another one than then. Raises Unavailable."""
        ...
