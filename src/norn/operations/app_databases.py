"""Which database an app has, who else uses it, and which snapshots are of it."""

from __future__ import annotations

from collections.abc import Sequence

from norn.domain.infraspec import PostgresService
from norn.domain.ports import AppDatabase, AppDirectory
from norn.domain.snapshots import Snapshot
from norn.errors import InfraspecInvalid, NotPossible, SnapshotMissing
from norn.operations.services import Services


async def service_of(services: Services, app: AppDirectory) -> PostgresService:
    """Raises NotPossible: it has none."""
    spec = await services.source.infraspec(app)
    if spec.postgres is None:
        raise NotPossible(f"{app.name} has no database.", hint="It would say `services: {postgres: …}`.")
    return spec.postgres


async def database_of(services: Services, app_name: str) -> AppDatabase:
    """Raises UnknownApp, NotPossible (it has none), Unavailable."""
    app = await services.source.app(app_name)
    return await services.databases.ensure(app.name, await service_of(services, app))


async def sharing(services: Services, app: str, service: PostgresService) -> Sequence[str]:
    """The other apps whose infraspecs name the same database."""
    found = []
    for other in await services.source.apps():
        if other.name == app:
            continue
        try:
            theirs = (await services.source.infraspec(other)).postgres
        except InfraspecInvalid:
            continue
        if theirs is not None and (theirs.database, theirs.url) == (service.database, service.url):
            found.append(other.name)
    return found


async def snapshot_of(services: Services, app: str, database: str, name: str) -> Snapshot:
    """Raises SnapshotMissing, SnapshotDamaged."""
    snapshot = await services.snapshots.record(name)
    if snapshot.database != database:
        raise SnapshotMissing(
            f"{name} is a snapshot of the database {snapshot.database!r}, not of {database!r}.",
            hint=f"`norn snapshots list {app}` lists those that are.",
        )
    return snapshot
