"""Runs operations so that they survive: claim, heartbeat, fence, cancel, recover.

An operation is a row. A server claims it for the length of a lease and renews that while it works; each claim raises
the fence number, and each write checks it, so that a server that was paused cannot write over its successor. After a
crash the next server claims the row and goes on with the step that was under way: steps look at the world first, then
act. A failed or cancelled operation undoes its steps backwards, unless it is committed (a version has rolled out).

The engine knows nothing of apps; steps know nothing of leases.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import structlog

from norn.domain.claims import Claim
from norn.domain.operations import Operation, OperationStatus
from norn.domain.store import Store
from norn.errors import DatabaseUnavailable, LeaseLost
from norn.operations.execution import Executor, Point, ScrubberOf, knowing_nothing
from norn.operations.procedures import Procedures, Run
from norn.waiting import wait_set

log = structlog.get_logger(__name__)

LEASE_S = 6.0
BEAT_S = 0.5
POLL_S = 0.5
HURRIED = 256
"""A rollback is a patch and a look now and then: many more of them than builds and dumps fit into a server."""
_OWN_SHARE = 0.75
"""How much of a lease a server that cannot renew it still works, where there are others."""

Ended = Callable[[Operation, OperationStatus, float], None]
"""Told of each operation that ended here, and the seconds since it was claimed."""


class Engine:
    def __init__(
        self,
        store: Store,
        procedures: Procedures,
        server_id: str,
        *,
        capacity: int = 16,
        lease_s: float = LEASE_S,
        point: Point = lambda _name: None,
        ended: Ended = lambda _operation, _status, _seconds: None,
        scrubber_of: ScrubberOf = knowing_nothing,
    ) -> None:
        self._store = store
        self._executor = Executor(store, procedures, point, scrubber_of)
        self.server_id = server_id
        self._capacity = capacity
        self.lease_s = lease_s
        self._ended = ended
        self._wake = asyncio.Event()
        self._claims: dict[str, Claim] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []

    # ---- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self._store.register(self.server_id)
        self._loops = [asyncio.create_task(self._claim_loop()), asyncio.create_task(self._beat_loop())]

    async def stop(self) -> None:
        """Stop working; what is under way is given back as it stands, and the next server goes on with it."""
        self._stopping = True
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(DatabaseUnavailable):
            for claim in self._claims.values():
                await self._store.release(claim)
            await self._store.unregister(self.server_id)

    def wake(self) -> None:
        """There may be something to claim."""
        self._wake.set()

    def ready(self) -> bool:
        """Whether it could work on one more operation at once that is in a hurry, whatever else is under way."""
        return bool(self._loops) and not self._stopping and len(self._tasks) < HURRIED

    def take(self, claim: Claim) -> None:
        """Work on an operation that was claimed as it was accepted."""
        self._take(claim)

    def cancel(self, operation_id: str) -> None:
        """The operation is to be cancelled; does nothing where this server does not run it, or it is ending anyway."""
        if (task := self._tasks.get(operation_id)) is not None:
            self._executor.cancel(operation_id, task)

    async def _claim_loop(self) -> None:
        while True:
            self._wake.clear()
            try:
                while len(self._tasks) < self._capacity:
                    claim = await self._store.claim(self.server_id, self.lease_s, list(self._tasks))
                    if claim is None:
                        break
                    self._take(claim)
            except DatabaseUnavailable as error:
                log.warning("claim_failed", error=error.message)
            await wait_set(self._wake, POLL_S)

    async def _beat_loop(self) -> None:
        loop = asyncio.get_running_loop()
        heard, others = loop.time(), 0
        while True:
            await asyncio.sleep(BEAT_S)
            claims = {id_: claim.fence for id_, claim in self._claims.items()}
            asked = loop.time()
            try:
                async with asyncio.timeout(self.lease_s / 4):  # a network that swallows packets fails nothing
                    beat = await self._store.beat(self.server_id, claims, self.lease_s)
            except (DatabaseUnavailable, TimeoutError) as error:
                log.warning("heartbeat_failed", error=str(error))
                if others and loop.time() - heard > self.lease_s * _OWN_SHARE:
                    self._let_go_of(claims, "it cannot be renewed, and another server may take it over")
                continue
            heard, others = asked, beat.others
            for id_ in beat.cancelled:
                self.cancel(id_)
            self._let_go_of(claims.keys() - beat.held, "another server has taken it over")

    def _let_go_of(self, operation_ids: Iterable[str], why: str) -> None:
        """Stop working on them, and leave them as they stand."""
        for id_ in operation_ids:
            if self._executor.is_ending(id_):
                continue
            if (task := self._tasks.get(id_)) is not None and id_ in self._claims:
                log.warning("lease_lost", operation=id_, why=why)
                task.cancel()

    def _take(self, claim: Claim) -> None:
        id_ = claim.operation.id
        self._claims[id_] = claim
        task = asyncio.create_task(self._work(claim))
        self._tasks[id_] = task
        task.add_done_callback(lambda _: self._forget(id_))

    def _forget(self, id_: str) -> None:
        self._tasks.pop(id_, None)
        if not self._stopping:
            self._claims.pop(id_, None)
            self.wake()

    # ---- one operation -------------------------------------------------------------------------------------------

    async def _work(self, claim: Claim) -> None:
        """In a task of its own: each line of the log that is written within says of which operation it is."""
        operation = claim.operation
        structlog.contextvars.bind_contextvars(
            operation=operation.id, app=operation.app, kind=operation.kind.value, server=self.server_id
        )
        began = asyncio.get_running_loop().time()
        log.info("claimed", fence=claim.fence, claims=operation.claims)
        run = Run(self._store, claim)
        try:
            outcome = await self._executor.run(run, claim)
        except LeaseLost as lost:
            log.warning("lease_lost", error=lost.message)
        except DatabaseUnavailable as error:
            # As after a crash: whoever claims it next goes on with the step that was under way.
            log.warning("given_back", error=error.message)
        except asyncio.CancelledError:
            log.info("interrupted")
            raise
        except Exception:
            log.exception("defect")
        else:
            seconds = asyncio.get_running_loop().time() - began
            structlog.contextvars.unbind_contextvars("step")
            self._ended(operation, outcome.status, seconds)
            log.info("ended", status=outcome.status.value, seconds=round(seconds, 3))
            self._claims.pop(operation.id, None)
        finally:
            await run.leave()
