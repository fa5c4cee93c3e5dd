"""Norn's own store on PostgreSQL (the protocol is `norn.domain.store.Store`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import structlog
from psycopg import errors as pg

from norn.adapters.postgres import notification_queries, queries
from norn.adapters.postgres.audit import PostgresAudit
from norn.adapters.postgres.connections import Connections
from norn.adapters.postgres.rows import (
    to_change,
    to_claim,
    to_deployment,
    to_event,
    to_noted,
    to_operation,
    to_quarantine,
    to_restore,
    to_surroundings,
)
from norn.adapters.postgres.transactions import AcceptingTransaction, FencedTransaction
from norn.adapters.processes import boot_id, is_running, start_time
from norn.domain.audit import Who
from norn.domain.claims import Beat, Claim
from norn.domain.deployments import Deployment
from norn.domain.health import HealthCheck
from norn.domain.operations import Operation, Remembered
from norn.domain.ports import Health
from norn.domain.retention import BuiltImages, StoredImage
from norn.domain.servers import ServerSeen, StaleLease
from norn.domain.store import AppState, Changed, Event, Quarantine, Restore
from norn.domain.surroundings import Noted, Surroundings
from norn.errors import DatabaseUnavailable, LeaseLost

log = structlog.get_logger(__name__)
_NEWEST = 2**63 - 1
_SILENT_S = 1.5
"""A server whose connection has gone and that was not heard of for so long is dead: three heartbeats."""
_HELD_S = 5.0
"""How often a server makes sure that it still has the connection that says it lives."""
_RECONNECT_S = (0.1, 0.2, 0.5, 1.0)


def machine() -> str:
    """This machine as other servers see it; stays the same over restarts of Norn."""
    with contextlib.suppress(OSError):
        return Path("/etc/machine-id").read_text(encoding="ascii").strip() or platform.node()
    return platform.node()


class PostgresStore:
    def __init__(self, connections: Connections, place: str | None = None) -> None:
        """`place`: what is asked for here is worked on here alone, since only here is what it needs; None: anywhere."""
        self._connections = connections
        self.audit = PostgresAudit(connections)
        self._place = place
        self._key: bytes | None = None

    async def _all(self, query: LiteralString, **values: Any) -> list[dict[str, Any]]:
        return await self._connections.all(query, **values)

    async def _one(self, query: LiteralString, **values: Any) -> dict[str, Any] | None:
        rows = await self._all(query, **values)
        return rows[0] if rows else None

    async def _do(self, query: LiteralString, **values: Any) -> None:
        await self._connections.do(query, **values)

    # ---- writing -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def accepting(
        self, app: str, who: Who | None = None, seen: AppState | None = None
    ) -> AsyncIterator[AcceptingTransaction]:
        try:
            async with self._connections.transaction() as connection:
                transaction = AcceptingTransaction(connection, app, self._place, who)
                await transaction.lock(seen)
                yield transaction
                await transaction.flush()
        except pg.DivisionByZero as error:  # queries.EXPECT
            raise Changed from error
        except pg.UniqueViolation as error:
            if seen is None or error.diag.constraint_name != "idempotency_keys_pkey":
                raise
            raise Changed from error

    @asynccontextmanager
    async def fenced(self, claim: Claim) -> AsyncIterator[FencedTransaction]:
        operation = claim.operation
        async with self._connections.transaction() as connection:
            cursor = await connection.execute(queries.HOLD_FENCE, {"id": operation.id, "fence": claim.fence})
            if await cursor.fetchone() is None:
                raise LeaseLost(f"Operation {operation.id} has been taken over.", operationId=operation.id)
            transaction = FencedTransaction(connection, operation.app, operation.id)
            yield transaction
            await transaction.flush()

    # ---- the engine ----------------------------------------------------------------------------------------------

    async def now(self) -> datetime:
        row = await self._one(queries.NOW)
        assert row is not None
        now: datetime = row["now"]
        return now

    async def register(self, server_id: str) -> None:
        host = machine()
        await self._do(
            queries.REGISTER_SERVER,
            id=server_id,
            host=host,
            boot_id=boot_id(),
            pid=os.getpid(),
            pid_start=start_time(os.getpid()) or 0,
            place=self._place or "",
        )
        for row in await self._all(queries.SERVERS_OF_HOST, id=server_id, host=host):
            if row["boot_id"] != boot_id() or not is_running(row["pid"], row["pid_start"]):
                await self._do(queries.EXPIRE_LEASES_OF, id=row["id"])
                await self._do(queries.REMOVE_SERVER, id=row["id"])

    async def unregister(self, server_id: str) -> None:
        await self._do(queries.REMOVE_SERVER, id=server_id)

    async def claim(self, server_id: str, lease_s: float, running: Sequence[str]) -> Claim | None:
        values = {"server": server_id, "lease_s": lease_s, "running": list(running), "place": self._place or ""}
        values |= {"silent_s": _SILENT_S}
        async with self._connections.connection() as connection:
            for query in (queries.CLAIM_ORPHAN, queries.CLAIM_QUEUED):
                try:
                    cursor = await connection.execute(query, values)
                except pg.UniqueViolation:
                    return None  # another server has just started one of the same app; the next look finds another
                row = await cursor.fetchone()
                if row is not None:
                    steps = await connection.execute(queries.STEPS, {"id": row["id"]})
                    return to_claim(row, await steps.fetchall())
        return None

    async def beat(self, server_id: str, claims: Mapping[str, int], lease_s: float) -> Beat:
        seen = await self._one(queries.SERVER_SEEN, id=server_id)
        others = int(seen["others"]) if seen else 0
        if not claims:
            return Beat(frozenset(), frozenset(), others)
        rows = await self._all(queries.BEAT, ids=list(claims), fences=list(claims.values()), lease_s=lease_s)
        held = frozenset(row["id"] for row in rows)
        return Beat(held, frozenset(row["id"] for row in rows if row["cancelled"]), others)

    async def release(self, claim: Claim) -> None:
        await self._do(queries.RELEASE, id=claim.operation.id, fence=claim.fence)

    async def servers(self) -> Sequence[ServerSeen]:
        rows = await self._all(queries.SERVERS)
        return [ServerSeen(row["id"], row["host"], row["started_at"], row["silent"].total_seconds()) for row in rows]

    async def stale_leases(self) -> Sequence[StaleLease]:
        return [
            StaleLease(row["id"], row["app"], row["kind"], row["owner"], row["overdue"].total_seconds())
            for row in await self._all(queries.STALE_LEASES)
        ]

    async def hold(self, server_id: str) -> None:
        while True:
            try:
                connection = await self._connections.dedicated()
            except DatabaseUnavailable:
                await asyncio.sleep(_RECONNECT_S[-1])
                continue
            try:
                # Waits for a connection of before that PostgreSQL does not know yet to be dead.
                await connection.execute(queries.HOLD_SERVER, {"id": server_id})
                await connection.execute(queries.SERVER_HOLDS, {"id": server_id})
                while True:
                    await asyncio.sleep(_HELD_S)
                    await connection.execute(queries.NOW)
            except psycopg.OperationalError:
                await asyncio.sleep(_RECONNECT_S[0])
            finally:
                await connection.close()

    async def notifications(self) -> AsyncIterator[str]:
        attempt = 0
        while True:
            try:
                connection = await self._connections.dedicated()
            except DatabaseUnavailable as error:
                if attempt == 0:
                    log.warning("database_lost", error=error.message)
                await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
                attempt += 1
                continue
            try:
                await connection.execute("LISTEN norn")
                attempt = 0
                yield "operations"  # whatever was said while nobody listened
                yield "events"
                yield "access:"
                async for notification in connection.notifies():
                    yield notification.payload
            except psycopg.OperationalError as error:
                log.warning("database_lost", error=str(error).strip())
                await asyncio.sleep(_RECONNECT_S[0])
            finally:
                await connection.close()

    async def tidy(self) -> None:
        """Forget what nobody needs any more: events and notifications after 7 days (undelivered ones after
        30), what was around old versions after 90."""
        await self._do(queries.FORGET_OLD_EVENTS)
        await self._do(queries.FORGET_OLD_SURROUNDINGS)
        await self._do(queries.FORGET_OLD_HEALTH)
        await self._do(queries.FORGET_DEAD_SERVERS)
        await self._do(notification_queries.FORGET_OLD)

    # ---- health --------------------------------------------------------------------------------------------------

    async def note_health(self, app: str, health: Health) -> None:
        message = health.message.replace("\x00", "\ufffd")  # PostgreSQL's text cannot hold it
        await self._do(queries.NOTE_HEALTH, app=app, wanted=health.wanted, ready=health.ready,
                       restarts=health.restarts, response_ms=health.response_ms, message=message)  # fmt: skip

    async def health_asked(self, within_s: float) -> frozenset[str]:
        return frozenset(row["app"] for row in await self._all(queries.HEALTH_ASKED, within_s=within_s))

    async def health_checks(self, app: str, within_s: float, limit: int) -> Sequence[HealthCheck]:
        rows = await self._all(queries.HEALTH, app=app, within_s=within_s, limit=limit)
        return [
            HealthCheck(
                row["at"],
                Health(row["wanted"], row["ready"], row["restarts"], row["message"], row["response_ms"]),
            )
            for row in rows
        ]

    # ---- operations and history ----------------------------------------------------------------------------------

    async def operation(self, operation_id: str) -> Operation | None:
        async with self._connections.connection() as connection:
            cursor = await connection.execute(queries.OPERATION, {"id": operation_id})
            row = await cursor.fetchone()
            if row is None:
                return None
            steps = await connection.execute(queries.STEPS, {"id": operation_id})
            return to_operation(row, await steps.fetchall())

    async def active_operations(self, app: str | None = None) -> Sequence[Operation]:
        if app is None:
            return [to_operation(row) for row in await self._all(queries.ACTIVE)]
        return [to_operation(row) for row in await self._all(queries.ACTIVE_OF_APP, app=app)]

    async def deployment(self, deployment_id: str) -> Deployment | None:
        row = await self._one(queries.DEPLOYMENT, id=deployment_id)
        return to_deployment(row) if row else None

    async def deployments(
        self,
        *,
        app: str | None = None,
        apps: Collection[str] | None = None,
        status: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Sequence[Deployment]:
        values = {"status": status, "before": _NEWEST if before is None else before, "limit": limit}
        if app is None:
            rows = await self._all(queries.DEPLOYMENTS, apps=None if apps is None else list(apps), **values)
        else:
            rows = await self._all(queries.DEPLOYMENTS_OF_APP, app=app, **values)
        return [to_deployment(row) for row in rows]

    async def rolled_out(self, app: str, limit: int) -> Sequence[Deployment]:
        return [to_deployment(row) for row in await self._all(queries.ROLLED_OUT, app=app, limit=limit)]

    async def app_state(self, app: str) -> AppState:
        async with self._connections.connection() as connection, connection.pipeline():
            active = await connection.execute(queries.ACTIVE_OF_APP, {"app": app})
            live = await connection.execute(queries.LIVE_DEPLOYMENT, {"app": app})
            change = await connection.execute(queries.NEWEST_CHANGE)
            operations, recorded = await active.fetchall(), await live.fetchone()
            newest = await change.fetchone()
        assert newest is not None
        return AppState(
            [to_operation(row) for row in operations],
            to_deployment(recorded) if recorded else None,
            newest["now"],
            to_change(newest),
        )

    async def deployment_of_digest(self, app: str, digest: str) -> Deployment | None:
        row = await self._one(queries.DEPLOYMENT_OF_DIGEST, app=app, digest=digest)
        return to_deployment(row) if row else None

    async def versions(self, app: str, commit_prefix: str, limit: int = 10) -> Sequence[Deployment]:
        # The prefix is hexadecimal (norn.domain.images): nothing in it means anything to LIKE.
        rows = await self._all(queries.VERSIONS, app=app, prefix=f"{commit_prefix}%", limit=limit)
        return [to_deployment(row) for row in rows]

    async def versions_of_tag(self, app: str, image_tag: str) -> Sequence[Deployment]:
        rows = await self._all(queries.VERSIONS_OF_TAG, app=app, image_tag=image_tag)
        return [to_deployment(row) for row in rows]

    async def quarantined(self, app: str) -> Sequence[Quarantine]:
        return [to_quarantine(row) for row in await self._all(queries.QUARANTINED, app=app)]

    async def snapshots(self, app: str) -> Sequence[Mapping[str, Any]]:
        return await self._all(queries.SNAPSHOTS, app=app)

    async def built_images(self, app: str) -> BuiltImages:
        rows = await self._all(queries.BUILT_IMAGES, app=app)
        present = [StoredImage(row["image_tag"], row["digest"]) for row in rows if row["removed_at"] is None]
        return BuiltImages(present, frozenset(row["image_tag"] for row in rows))

    async def restores(self, app: str) -> Sequence[Restore]:
        return [to_restore(row) for row in await self._all(queries.RESTORES, app=app)]

    async def newest_change(self) -> tuple[str, bool]:
        row = await self._one(queries.NEWEST_CHANGE)
        assert row is not None
        return to_change(row)

    async def installation_key(self) -> bytes:
        if self._key is None:  # it never changes, and asking for it is a write
            row = await self._one(queries.INSTALLATION_KEY, new=secrets.token_bytes(32))
            assert row is not None
            self._key = bytes(row["key"])
        return self._key

    async def surroundings_noted(self, app: str) -> Sequence[Noted]:
        return [to_noted(row) for row in await self._all(queries.SURROUNDINGS_NOTED, app=app)]

    async def surroundings(self, deployment_id: str, moment: str) -> Surroundings | None:
        row = await self._one(queries.SURROUNDINGS, id=deployment_id, moment=moment)
        return await asyncio.to_thread(to_surroundings, row) if row is not None else None

    async def remembered(self, key: str) -> Remembered | None:
        row = await self._one(queries.REMEMBERED, key=key)
        return Remembered(**row) if row else None

    async def remember_answer(self, key: str, request_hash: str, operation_id: str) -> bool:
        values = {"key": key, "request_hash": request_hash, "operation_id": operation_id}
        return await self._one(queries.REMEMBER_ANSWER, **values) is not None

    # ---- events --------------------------------------------------------------------------------------------------

    async def events_after(
        self, seq: int, *, app: str | None = None, operation: str | None = None, limit: int = 500
    ) -> Sequence[Event]:
        if operation is not None:
            rows = await self._all(queries.EVENTS_OF_OPERATION_AFTER, seq=seq, operation=operation, limit=limit)
        elif app is not None:
            rows = await self._all(queries.EVENTS_OF_APP_AFTER, seq=seq, app=app, limit=limit)
        else:
            rows = await self._all(queries.EVENTS_AFTER, seq=seq, limit=limit)
        return [to_event(row) for row in rows]

    async def kept_events(self) -> tuple[int, int]:
        row = await self._one(queries.KEPT_EVENTS)
        assert row is not None
        return row["oldest"], row["newest"]
