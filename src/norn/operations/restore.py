"""Restore: a snapshot beside the live database, checked, what would be lost shown, then swapped; and the undo."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from norn.domain.audit import Asked
from norn.domain.durations import format_duration
from norn.domain.loss import Loss
from norn.domain.operations import Operation, OperationKind
from norn.domain.ports import AppDatabase, AppDirectory, Moment
from norn.domain.retention import was_live
from norn.domain.snapshot_names import NAME_BYTES, copy_name, former_name
from norn.domain.snapshots import SPARE, Snapshot
from norn.domain.store import Fenced, Restore
from norn.errors import Invalid, NornError, NoRoom, NotPossible, SchemaDiffers, SharedDatabase
from norn.operations.app_databases import database_of, service_of, sharing, snapshot_of
from norn.operations.asking import ask
from norn.operations.exclusive import Exclusive
from norn.operations.procedures import Procedure, Run, Step
from norn.operations.services import Caller, Services, once_operation, take_alone

_HISTORY = 1_000


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    app: str
    name: str | None
    """The snapshot; None: take the last restore back."""
    into: str | None = None
    """A new database of this name instead of the live one."""
    affects: tuple[str, ...] = ()
    """The other apps that use the database, as the caller knows them."""
    confirm: bool = False
    """Yes to what would be lost, beforehand."""
    reason: str = ""


# ---- taking the request ------------------------------------------------------------------------------------------


async def request_restore(services: Services, request: RestoreRequest, caller: Caller) -> Operation:
    """Accept a restore, or its undo.

    Raises UnknownApp, SnapshotMissing, SnapshotDamaged, SchemaDiffers, SharedDatabase, NoRoom, NotPossible, Busy.
    """

    async def take() -> str:
        app = await services.source.app(request.app)
        database = await database_of(services, app.name)
        params: dict[str, Any] = {"snapshot": request.name, "into": request.into, "confirm": request.confirm}
        params["affects"] = list(request.affects)
        if request.name is None:
            last = await last_restore(services, app.name, database)
            params["undo"] = last.id
            hint = (
                f"Restore a snapshot taken since: `norn snapshots list {app.name}`; {last.former} can be read by hand."
            )
            await _refuse_other_schema(services, database, last.former, hint)
        else:
            snapshot = await snapshot_of(services, app.name, database.name, request.name)
            await make_sure_of_room(services, database, snapshot)
            if request.into is not None:
                await _refuse_name(services, database, request.into)
            else:
                hint = await _way_with_code(services, app.name, snapshot)
                await _refuse_other_schema(services, database, snapshot, hint)
        if request.into is None:
            await make_sure_of_swap(services, app, database, request.affects)
        return await take_alone(services, app.name, OperationKind.RESTORE, caller, request.reason, params)

    asked = Asked.request(OperationKind.RESTORE, request.app, request.name or "undo", request.reason)
    return await once_operation(services, caller, asked, take)


async def last_restore(services: Services, app: str, database: AppDatabase) -> Restore:
    """The one that an undo takes back. Raises NotPossible."""
    restore = undoable(await services.store.restores(app), database.name)
    if restore is not None:
        if restore.dropped_at is not None or not await services.restores.exists(database, restore.former):
            raise NotPossible(
                f"The last restore cannot be taken back: what was live before it ({restore.former}) has been removed.",
                hint="Restore a snapshot instead: `norn snapshots list`.",
            )
        return restore
    raise NotPossible(f"There is no restore of {app} to take back.", hint=f"`norn snapshots list {app}`")


def undoable(restores: Sequence[Restore], database: str) -> Restore | None:
    """The newest one that is none itself of an undo, and has not been taken back; None where there is none."""
    return next(
        (
            restore
            for restore in restores
            if restore.undoes is None and restore.undone_by is None and restore.database == database
        ),
        None,
    )


async def make_sure_of_swap(
    services: Services, app: AppDirectory, database: AppDatabase, affects: Sequence[str]
) -> None:
    """Raises SharedDatabase where others would be taken by surprise, NotPossible where something is in the way."""
    _refuse_surprise(database, await sharing(services, app.name, await service_of(services, app)), affects)
    obstacles = await services.restores.obstacles(database)
    if obstacles:
        raise NotPossible(f"{database.name} cannot be swapped now: {'; '.join(obstacles)}.", obstacles=list(obstacles))


def _refuse_surprise(database: AppDatabase, others: Sequence[str], affects: Sequence[str]) -> None:
    """Whoever restores a shared database has to know whose it is, too. Raises SharedDatabase."""
    missing = [other for other in others if other not in affects]
    if missing:
        flags = " ".join(f"--affects {other}" for other in missing)
        raise SharedDatabase(
            f"{', '.join(missing)} {'uses' if len(missing) == 1 else 'use'} the database {database.name}, too, and "
            "would go back with it.",
            hint=f"Where that is meant: {flags}",
            apps=missing,
        )


async def _refuse_other_schema(services: Services, database: AppDatabase, other: Snapshot | str, hint: str) -> None:
    difference = await services.restores.differences(database, other)
    if difference:
        raise SchemaDiffers(
            f"{other if isinstance(other, str) else other.name} has another schema than what is live, which could not "
            f"run on it: {difference.summary()}.",
            hint=hint,
            differences=difference.summary(50),
        )


async def _way_with_code(services: Services, app: str, snapshot: Snapshot) -> str:
    """The command that brings the version of that time back together with its data, where there is one."""
    history = await services.store.deployments(app=app, limit=_HISTORY)
    then = next((found.image_tag for found in history if was_live(found, snapshot.taken_at)), None)
    version = f" --to {then}" if then is not None else ""
    return (
        f"`norn rollback {app}{version} --restore-snapshot` brings back the version of that time and its data; "
        "`--into DATABASE` restores it beside the live one."
    )


async def make_sure_of_room(services: Services, database: AppDatabase, snapshot: Snapshot) -> None:
    """Raises NoRoom where the database server is known to have too little for the copy."""
    free, needed = await services.restores.free_bytes(database), round(snapshot.database_bytes * SPARE)
    if free is not None and free < needed:
        raise NoRoom(
            f"The restored copy of {database.name} takes about {needed / 1e6:,.0f} MB beside the live one, and the "
            f"database server has {free / 1e6:,.0f} MB left.",
            hint="Make room there first: former databases of earlier restores, say (`norn prune`).",
            neededBytes=needed,
            freeBytes=free,
        )


async def _refuse_name(services: Services, database: AppDatabase, name: str) -> None:
    if not name or "\0" in name or len(name.encode()) > NAME_BYTES:
        raise Invalid(f"{name!r} cannot be the name of a database.", hint=f"1 to {NAME_BYTES} bytes.")
    if await services.restores.exists(database, name):
        raise NotPossible(f"There is a database {name!r} already.", hint="Choose another name.")


# ---- the steps ---------------------------------------------------------------------------------------------------


def restore_procedure(services: Services) -> Procedure:
    steps = RestoreSteps(services)
    return Procedure(
        (
            Step("restore", steps.restore, undo=steps.discard),
            Step("compare", steps.compare),
            Step("swap", steps.swap, undo=steps.swap_back),
        ),
        whole=True,  # a swap that is not taken back must not be passed over
    )


_ALONE_S = 60.0
"""How long the last moment may wait for others who are at work on the same database."""


class RestoreSteps:
    """Each may be run again: it looks at the world first, then acts."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._exclusive = Exclusive(services)

    async def _database(self, run: Run) -> AppDatabase:
        """The app's; the same one from the first step to the last. Raises NotPossible where it has become another."""
        database = await database_of(self._services, run.app)
        if run.state.get("database", database.name) != database.name:
            raise NotPossible(
                f"{run.app} has the database {database.name} now, and had {run.state['database']} when this began.",
                hint="Put services.postgres of its infraspec back until this has ended.",
            )
        return database

    async def restore(self, run: Run) -> None:
        """Bring the snapshot into a database beside the live one, and check that all of it is there."""
        params, database = run.operation.params, await self._database(run)
        await self._exclusive.have(run, database)
        if "former" not in run.state:  # the names come first: whoever goes on after a crash finds what there is
            if params["into"]:  # from the next line on a database of that name is this operation's to remove
                await _refuse_name(self._services, database, params["into"])
            now = await self._services.store.now()
            copy = params["into"] or copy_name(database.name, now)
            if params.get("undo"):
                copy = (await self._undone(run)).former
            await run.checkpoint(copy=copy, former=former_name(database.name, now), database=database.name)
        if params.get("undo"):
            run.output.line(f"{run.state['copy']} is what was live before the restore")
            return
        if run.state.get("copied"):
            return
        snapshot = await snapshot_of(self._services, run.app, database.name, params["snapshot"])
        if await self._services.restores.free_bytes(database) is None:
            needed = round(snapshot.database_bytes * SPARE)
            await ask(run, self._services, {"about": "room", "neededBytes": needed, "message": _room(needed)})
        await self._services.restores.make_copy(database, snapshot, run.state["copy"], run.output.write)
        await run.checkpoint(copied=True)

    async def discard(self, run: Run) -> None:
        """Remove the copy, where it has not become the live database."""
        try:
            if not run.operation.params.get("undo") and "copy" in run.state and not run.state.get("swapped"):
                await self._remove(run, await self._database(run), run.state["copy"])
        finally:
            await self._exclusive.let_go(run)

    async def _remove(self, run: Run, database: AppDatabase, copy: str) -> None:
        if not run.state.get("written"):
            await self._services.restores.drop(database, copy)
            run.output.line(f"{copy} is removed; {database.name} is as it was")
            return
        # While it was live somebody has written to it: kept as a restore that has taken itself back.
        async with run.transaction() as transaction:
            await transaction.add_restore(database.name, copy, None, run.id, run.state["moment"])
        run.output.line(f"{copy} was written to while it was live: it is kept for a while beside {database.name}")

    async def compare(self, run: Run, downtime_s: float | None = None) -> None:
        """Say what would be lost, and how long the app would be down, and wait for a yes."""
        database = await self._database(run)
        if run.operation.params["into"] is not None:
            run.output.line("the live database stays: nothing is lost")
            return
        await self._exclusive.have(run, database)
        loss = await self._loss(run, database)
        moment = await self._services.restores.moment(database, run.state["copy"])
        await run.checkpoint(loss=loss.to_json(), moment=moment.to_json())
        run.output.write(f"{loss.text()}\n")
        facts: dict[str, Any] = {"about": "loss", "loss": loss.to_json(), "message": loss.text()}
        if downtime_s is not None:
            facts["expectedDowntimeS"] = downtime_s
            run.output.line(f"{run.app} is to be stopped for about {format_duration(round(downtime_s))}")
        await ask(run, self._services, facts)

    async def _loss(self, run: Run, database: AppDatabase) -> Loss:
        if run.operation.params.get("undo"):
            undone = await self._undone(run)
            assert undone.moment is not None
            return await self._services.restores.loss_since(database, Moment.from_json(undone.moment))
        name = run.operation.params["snapshot"]
        snapshot = await snapshot_of(self._services, run.app, database.name, name)
        return await self._services.restores.loss(database, run.state["copy"], snapshot)

    async def swap(self, run: Run) -> None:
        """Put the copy in the live database's place."""
        into = run.operation.params["into"]
        if into is not None:
            run.state["result"] = {"database": into, "snapshot": run.operation.params["snapshot"]}
            await self._exclusive.let_go(run)
            return
        await self.put_in_place(run)
        async with run.transaction() as transaction:
            await transaction.save(run.state)
            await self.note(run, transaction)
            await transaction.mark(accepted=True, committed=True)
        self.tell(run)
        await self.let_go(run)

    async def put_in_place(self, run: Run) -> None:
        """Swap the databases; nobody has heard of it yet."""
        database = await self._database(run)
        await self._exclusive.have(run, database, _ALONE_S)
        former = run.state["former"]
        await self._services.restores.swap(database, run.state["copy"], former, run.output.write)
        run.state["swapped"] = True
        run.state["result"] = {
            "database": database.name,
            "former": former,
            "snapshot": run.operation.params["snapshot"],
            "loss": run.state["loss"],
        }

    def tell(self, run: Run) -> None:
        """Say how to take back what stays now."""
        former = run.state["result"]["former"]
        run.output.line(f"`norn snapshots undo {run.app}` takes it back; what was live is kept as {former} for a while")

    async def note(self, run: Run, transaction: Fenced) -> None:
        """The swap stays: it can be undone from now on."""
        params, result = run.operation.params, run.state["result"]
        await transaction.add_restore(
            result["database"], result["former"], params["snapshot"], params.get("undo"), run.state["moment"]
        )

    async def have(self, run: Run) -> None:
        """The database to oneself, after a crash, too. Raises NotPossible."""
        await self._exclusive.have(run, await self._database(run), _ALONE_S)

    async def let_go(self, run: Run) -> None:
        """Others may be at work on the database again."""
        await self._exclusive.let_go(run)

    async def swap_back(self, run: Run) -> None:
        """Where the databases have been swapped and nobody has heard of it yet: as it was."""
        if run.operation.params["into"] is None and "former" in run.state:
            database, copy, former = await self._database(run), run.state["copy"], run.state["former"]
            await self.have(run)
            if await self._services.restores.exists(database, former):
                await run.checkpoint(written=True)  # until it is known better: somebody may have written to it
                await self._services.restores.swap(database, former, copy, run.output.write)
                moment = Moment.from_json(run.state["moment"])
                with contextlib.suppress(NornError):
                    run.state["written"] = bool(
                        (await self._services.restores.loss_since(database, moment, copy)).tables
                    )
            run.state.pop("result", None)
            await run.checkpoint(swapped=False)

    async def _undone(self, run: Run) -> Restore:
        undo = run.operation.params["undo"]
        for restore in await self._services.store.restores(run.app):
            if restore.id == undo:
                return restore
        raise NotPossible(f"The restore {undo} is not known any more.")


def _room(needed: int) -> str:
    return (
        f"How much room the database server has left is not known from here; the copy takes about {needed / 1e6:,.0f} "
        "MB beside the live database."
    )
