"""The two ways to write: taking a request (`AcceptingTransaction`), and working on a claim (`FencedTransaction`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from norn.adapters.postgres import queries
from norn.adapters.postgres.connections import Connection, Cursor
from norn.adapters.postgres.outbox import ending_of, note_end
from norn.adapters.postgres.publishing import Publishing, to_columns, to_json
from norn.adapters.postgres.rows import pack, to_claim, to_deployment, to_operation
from norn.domain import audit
from norn.domain.audit import Who
from norn.domain.claims import Begun, Claim
from norn.domain.configuration import Digests
from norn.domain.deployments import Deployment
from norn.domain.operations import Operation, OperationKind, OperationStatus, StepStatus
from norn.domain.snapshots import Snapshot
from norn.domain.store import NOW, AppState
from norn.domain.surroundings import DatabaseState, Noted
from norn.errors import NotPossible


class AcceptingTransaction(Publishing):
    """Takes a request for one app; whoever else asks for that app waits until this one has ended."""

    def __init__(self, connection: Connection, app: str, place: str | None, who: Who | None) -> None:
        super().__init__(connection, app, who)
        self._place = place
        self._begun: tuple[Cursor, Cursor] | None = None
        self._active: Sequence[Operation] = ()
        self._live_id: str | None = None

    async def lock(self, seen: AppState | None = None) -> None:
        """Returns once it is alone, and has learnt, with the same message, what every request has to know then.

        Where the caller has `seen` that already, it returns at once, and the transaction fails where that has changed.
        """
        await self._connection.execute(queries.LOCK_APP, {"app": self._app})
        if seen is not None:
            under_way = sorted(f"{operation.id} {str(operation.committed).lower()}" for operation in seen.active)
            self._active = seen.active
            if seen.live is not None:
                self._live_id, self._live_tag = seen.live.id, seen.live.image_tag
            values = {"app": self._app, "active": under_way, "live": self._live_id}
            await self._connection.execute(queries.EXPECT, values)
            return
        active = await self._connection.execute(queries.ACTIVE_OF_APP, {"app": self._app})
        live = await self._connection.execute(queries.LIVE_DEPLOYMENT, {"app": self._app})
        self._active = [to_operation(row) for row in await active.fetchall()]
        if (row := await live.fetchone()) is not None:
            self._live_id, self._live_tag = row["id"], row["image_tag"]

    async def active(self) -> Sequence[Operation]:
        return self._active

    async def live_deployment_id(self) -> str | None:
        return self._live_id

    async def add_operation(
        self, operation_id: str, kind: OperationKind, params: Mapping[str, Any], requested_by: str, reason: str
    ) -> None:
        await self._connection.execute(
            queries.ADD_OPERATION,
            {
                "id": operation_id,
                "app": self._app,
                "kind": kind.value,
                "params": Jsonb(params),
                "requested_by": requested_by,
                "reason": reason,
                "place": self._place,
            },
        )
        self._publish_queued(operation_id, kind)
        self._requested(operation_id, kind, params, requested_by, reason)

    async def add_begun(
        self,
        operation_id: str,
        kind: OperationKind,
        params: Mapping[str, Any],
        requested_by: str,
        reason: str,
        begun: Begun,
    ) -> None:
        operation = await self._connection.execute(
            queries.ADD_BEGUN,
            {
                "id": operation_id,
                "app": self._app,
                "kind": kind.value,
                "params": Jsonb(params),
                "requested_by": requested_by,
                "reason": reason,
                "state": Jsonb(begun.state),
                "server": begun.server_id,
                "lease_s": begun.lease_s,
                "place": self._place,
            },
        )
        steps = [{"step": step, "status": "done", "output": output} for step, output in begun.done]
        steps.append({"step": begun.next, "status": "running", "output": ""})
        values = {"id": operation_id, "steps": Jsonb([{"ordinal": n} | step for n, step in enumerate(steps)])}
        self._begun = operation, await self._connection.execute(queries.ADD_BEGUN_STEPS, values)
        self._publish("operation", operation_id, {"id": operation_id, "kind": kind.value, "status": "running"})
        self._requested(operation_id, kind, params, requested_by, reason)
        for step, output in begun.done:
            self._publish("step", operation_id, {"step": step, "status": "running"})
            self._publish("output", operation_id, {"step": step, "text": output})
            self._publish("step", operation_id, {"step": step, "status": "done"})
        self._publish("step", operation_id, {"step": begun.next, "status": "running"})

    async def deployment(self) -> Deployment:
        assert self._added is not None
        row = await self._added.fetchone()
        assert row is not None
        return to_deployment(row)

    async def claim(self) -> Claim:
        assert self._begun is not None
        operation, steps = self._begun
        row = await operation.fetchone()
        assert row is not None
        return to_claim(row, sorted(await steps.fetchall(), key=lambda step: int(step["ordinal"])))

    async def cancel(self, operation_id: str, by: str, reason: str, *, preempted_by: str | None = None) -> bool:
        cancel = {"by": by, "reason": reason} | ({"preemptedBy": preempted_by} if preempted_by else {})
        cursor = await self._connection.execute(queries.CANCEL, {"id": operation_id, "cancel": Jsonb(cancel)})
        if await cursor.fetchone() is None:
            if preempted_by is not None:
                return False  # it has ended by itself, or is being cancelled already
            raise NotPossible("The operation has ended, or is being cancelled already.", operationId=operation_id)
        self._publish("operation", operation_id, {"id": operation_id, "cancel": cancel})
        self._notify(f"cancel:{operation_id}")
        after = {"preemptedBy": preempted_by} if preempted_by else None
        self._did(by, "operation.cancel", operation_id, reason, after=after)
        return True

    async def confirm(self, operation_id: str, by: str) -> bool:
        values = {"id": operation_id, "app": self._app, "confirmed": Jsonb({"by": by})}
        row = await (await self._connection.execute(queries.CONFIRM, values)).fetchone()
        if row is None:
            return False
        about = {"about": row["asks"].get("about"), "message": row["asks"].get("message")}
        self._did(by, f"{row['kind']}.confirm", operation_id, after=about)
        return True

    async def remember(self, key: str, request_hash: str, operation_id: str) -> None:
        values = {"key": key, "request_hash": request_hash, "operation_id": operation_id}
        await self._connection.execute(queries.FORGET_OLD_KEYS)
        await self._connection.execute(queries.REMEMBER_KEY, values)


class FencedTransaction(Publishing):
    """Writes of one claimed operation; its row is locked, so that nobody takes it over in between."""

    def __init__(self, connection: Connection, app: str, operation_id: str) -> None:
        super().__init__(connection, app)
        self._id = operation_id

    async def begin_step(self, ordinal: int, step: str) -> None:
        await self._connection.execute(queries.BEGIN_STEP, {"id": self._id, "ordinal": ordinal, "step": step})
        self._publish("step", self._id, {"step": step, "status": "running"})

    async def end_step(self, ordinal: int, status: StepStatus, output: str, text: str = "") -> None:
        values = {"id": self._id, "ordinal": ordinal, "status": status.value, "output": output}
        cursor = await self._connection.execute(queries.END_STEP, values)
        row = await cursor.fetchone()
        step = row["step"] if row else None
        if text:
            self._publish("output", self._id, {"step": step, "text": text})
        self._publish("step", self._id, {"step": step, "status": status.value})

    async def append_output(self, ordinal: int, step: str, output: str, text: str) -> None:
        await self._connection.execute(queries.STEP_OUTPUT, {"id": self._id, "ordinal": ordinal, "output": output})
        self._publish("output", self._id, {"step": step, "text": text})

    async def save(self, state: Mapping[str, Any]) -> None:
        await self._connection.execute(queries.SAVE_STATE, {"id": self._id, "state": Jsonb(state)})

    async def mark(
        self, *, accepted: bool | None = None, committed: bool | None = None, undoing: Mapping[str, Any] | None = None
    ) -> None:
        values = {"id": self._id, "accepted": accepted, "committed": committed, "undoing": to_json(undoing)}
        await self._connection.execute(queries.MARK, values)
        passed = {name: True for name, at in (("accepted", accepted), ("committed", committed)) if at}
        if passed:
            self._publish("operation", self._id, {"id": self._id} | passed)
            self._notify(f"passed:{self._id}")

    async def end(
        self, status: OperationStatus, error: Mapping[str, Any] | None, result: Mapping[str, Any] | None
    ) -> None:
        values = {"id": self._id, "status": status.value, "error": to_json(error), "result": to_json(result)}
        await self._connection.execute(queries.END_OPERATION, values)
        ending = await ending_of(self._connection, self._id)
        await note_end(self._connection, ending)
        self._entries[f"end {self._id}"] = audit.end(
            self._id,
            self._app,
            ending.kind.value,
            status.value,
            ending.requested_by,
            ending.error,
            ending.image_tag,
            ending.from_image_tag,
        )
        self._publish("operation", self._id, {"id": self._id, "status": status.value})
        self._notify(f"passed:{self._id}")
        self._notify("operations")  # the next one of this app may start

    async def follow_with(
        self, operation_id: str, kind: OperationKind, params: Mapping[str, Any], requested_by: str, reason: str
    ) -> bool:
        values = {"id": operation_id, "own": self._id, "kind": kind.value, "params": Jsonb(params)}
        cursor = await self._connection.execute(
            queries.FOLLOW_WITH, values | {"requested_by": requested_by, "reason": reason}
        )
        if await cursor.fetchone() is None:
            return False
        self._publish_queued(operation_id, kind)
        self._requested(operation_id, kind, params, requested_by, reason)
        return True

    async def update_deployment(self, **columns: Any) -> None:
        values = to_columns(columns)
        await self._connection.execute(
            sql.SQL("UPDATE deployments SET {} WHERE id = {}").format(
                sql.SQL(", ").join(
                    sql.SQL("{} = {}").format(
                        sql.Identifier(name), sql.SQL("clock_timestamp()") if value is NOW else sql.Placeholder(name)
                    )
                    for name, value in values.items()
                ),
                sql.Placeholder("own_id"),
            ),
            {name: value for name, value in values.items() if value is not NOW} | {"own_id": self._id},
        )
        await self._publish_deployment(self._id)

    async def make_live(self) -> None:
        values = {"id": self._id, "app": self._app}
        await self._connection.execute(queries.END_LIVE, values)
        await self._connection.execute(queries.MAKE_LIVE, values)
        self._publish("live", self._id, {"deploymentId": self._id})

    async def mark_rolled_back(self, deployment_id: str, why: str) -> None:
        values = {"by": self._id, "replaced": deployment_id, "why": why}
        await self._connection.execute(queries.MARK_ROLLED_BACK, values)
        await self._connection.execute(queries.QUARANTINE, values)
        await self._publish_deployment(deployment_id)

    async def ask(self, asks: Mapping[str, Any]) -> None:
        await self._connection.execute(queries.ASK, {"id": self._id, "asks": Jsonb(asks)})
        self._publish("operation", self._id, {"id": self._id, "asks": dict(asks)})

    async def add_snapshot(self, snapshot: Snapshot) -> None:
        await self._connection.execute(
            queries.ADD_SNAPSHOT,
            {
                "name": snapshot.name,
                "app": self._app,
                "database": snapshot.database,
                "commit_sha": snapshot.commit_sha,
                "id": self._id,
                "reason": snapshot.reason,
                "size_bytes": snapshot.size_bytes,
                "taken_at": snapshot.taken_at,
                "kept": snapshot.kept,
                "host": snapshot.host,
                "sha256": snapshot.sha256,
            },
        )
        self._publish("snapshot", self._id, {"name": snapshot.name})

    async def verified(self, name: str, verification: Mapping[str, Any]) -> None:
        values = {"app": self._app, "name": name, "verification": Jsonb(verification)}
        await self._connection.execute(queries.SNAPSHOT_VERIFIED, values)
        self._publish("snapshot", self._id, {"name": name, "verified": bool(verification["ok"])})

    async def snapshot_removed(self, name: str, why: str) -> None:
        await self._connection.execute(queries.SNAPSHOT_REMOVED, {"app": self._app, "name": name, "why": why})
        self._publish("snapshot", self._id, {"name": name, "removed": True})

    async def image_built(self, image_tag: str, digest: str) -> None:
        values = {"app": self._app, "image_tag": image_tag, "digest": digest}
        await self._connection.execute(queries.IMAGE_BUILT, values)

    async def image_removed(self, image_tag: str, digest: str) -> None:
        values = {"app": self._app, "image_tag": image_tag, "digest": digest}
        await self._connection.execute(queries.IMAGE_REMOVED, values)
        self._publish("artifact", self._id, {"imageTag": image_tag, "removed": True})

    async def add_restore(
        self, database: str, former: str, snapshot: str | None, undoes: str | None, moment: Mapping[str, Any]
    ) -> None:
        values = {"id": self._id, "app": self._app, "database": database, "former": former, "snapshot": snapshot}
        await self._connection.execute(queries.ADD_RESTORE, values | {"undoes": undoes, "moment": Jsonb(moment)})
        self._publish("restore", self._id, {"database": database, "snapshot": snapshot, "undoes": undoes})

    async def former_dropped(self, restore_id: str) -> None:
        await self._connection.execute(queries.FORMER_DROPPED, {"app": self._app, "restore": restore_id})

    async def note_surroundings(
        self, noted: Noted, database: DatabaseState | None, configuration: Digests | None, *, again: bool
    ) -> None:
        values = {
            "id": self._id,
            "app": self._app,
            "moment": noted.moment,
            "at": noted.at,
            "database_id": noted.database,
            "losses": Jsonb([loss.to_json() for loss in noted.losses]),
            "rewritten": Jsonb([one.to_json() for one in noted.rewritten]),
            "database": pack(database.to_json()) if database is not None else None,
            "configuration": to_json(configuration),
        }
        query = queries.NOTE_SURROUNDINGS_AGAIN if again else queries.NOTE_SURROUNDINGS
        await self._connection.execute(query, values)

    async def note_configuration(self, moment: str, configuration: Digests | None) -> None:
        values = {"id": self._id, "moment": moment, "configuration": to_json(configuration)}
        await self._connection.execute(queries.NOTE_CONFIGURATION, values)
