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
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from norn.domain.operations import Operation, OperationStatus, StepStatus
from norn.domain.store import Claim, Fenced, Store
from norn.errors import Abandoned, Cancelled, DatabaseUnavailable, LeaseLost, NornError, StepFailed, Unavailable
from norn.operations.output import CHUNK_CHARS, StepOutput
from norn.operations.procedures import Action, Outcome, Procedure, Procedures, Run, Step

log = structlog.get_logger(__name__)

LEASE_S = 6.0
BEAT_S = 1.5
POLL_S = 1.0
MAX_CLAIMS = 25
"""An operation that has taken down its server so often is given up and undone."""
UNDO_PATIENCE_S = 600.0
UNDO_PAUSE_S = 15.0
_UNDONE = "undone"
"""In an operation's state: the ordinals of the steps that have been undone."""
WRITE_RETRIES_S = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 15.0)

Point = Callable[[str], None]
"""Told each moment at which the state on disk has changed: `deploy.build.begun` and the like. For tests that kill."""

Ended = Callable[[Operation, OperationStatus, float], None]
"""Told of each operation that ended here, and the seconds since it was claimed."""

Write = Callable[[Fenced], Awaitable[None]]


def _ending(run: Run, ordinal: int, status: StepStatus, output: str, rest: str = "") -> Write:
    """Writes the end of a step, and what its operation knows by then."""

    async def write(transaction: Fenced) -> None:
        await transaction.save(run.state)
        await transaction.end_step(ordinal, status, output, rest)

    return write


def _as_ours(error: Exception, operation_id: str) -> NornError:
    """What a step raised, as an error for people."""
    if isinstance(error, NornError):
        return error
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return StepFailed(f"{error.strerror or error}{where}.", hint="Look at the disk and the permissions there.")
    log.error("step_defect", operation=operation_id, exc_info=error)
    text = "".join(traceback.format_exception_only(error)).strip()
    return NornError(f"A defect in Norn: {text}", hint="Please report it.")


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
    ) -> None:
        self._store = store
        self._procedures = procedures
        self.server_id = self._server_id = server_id
        self._capacity = capacity
        self.lease_s = self._lease_s = lease_s
        self._point = point
        self._ended = ended
        self._wake = asyncio.Event()
        self._claims: dict[str, Claim] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancellable: set[str] = set()
        self._cancelled: set[str] = set()
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []

    # ---- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self._store.register(self._server_id)
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
            await self._store.unregister(self._server_id)

    def wake(self) -> None:
        """There may be something to claim."""
        self._wake.set()

    def ready(self) -> bool:
        """Whether it could work on one more operation at once."""
        return bool(self._loops) and not self._stopping and len(self._tasks) < self._capacity

    def take(self, claim: Claim) -> None:
        """Work on an operation that was claimed as it was accepted."""
        self._take(claim)

    def cancel(self, operation_id: str) -> None:
        """The operation is to be cancelled; does nothing where this server does not run it, or it is ending anyway."""
        task = self._tasks.get(operation_id)
        if task is not None and operation_id in self._cancellable:
            self._cancellable.discard(operation_id)
            self._cancelled.add(operation_id)
            task.cancel()

    async def _claim_loop(self) -> None:
        while True:
            self._wake.clear()
            try:
                while len(self._tasks) < self._capacity:
                    claim = await self._store.claim(self._server_id, self._lease_s, list(self._tasks))
                    if claim is None:
                        break
                    self._take(claim)
            except DatabaseUnavailable as error:
                log.warning("claim_failed", error=error.message)
            with contextlib.suppress(TimeoutError):
                # Not wait_for, which before Python 3.12 loses a cancellation that comes with the event (bpo-37658).
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()

    async def _beat_loop(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            claims = {id_: claim.fence for id_, claim in self._claims.items()}
            try:
                beat = await self._store.beat(self._server_id, claims, self._lease_s)
            except DatabaseUnavailable as error:
                log.warning("heartbeat_failed", error=error.message)
                continue
            for id_ in beat.cancelled:
                self.cancel(id_)
            for id_ in claims.keys() - beat.held:
                if (task := self._tasks.get(id_)) is not None and id_ in self._claims:
                    log.warning("lease_lost", operation=id_)
                    task.cancel()

    def _take(self, claim: Claim) -> None:
        id_ = claim.operation.id
        self._claims[id_] = claim
        task = asyncio.create_task(self._work(claim))
        self._tasks[id_] = task
        task.add_done_callback(lambda _: self._forget(id_))

    def _forget(self, id_: str) -> None:
        self._tasks.pop(id_, None)
        self._cancelled.discard(id_)
        self._cancellable.discard(id_)
        if not self._stopping:
            self._claims.pop(id_, None)
            self.wake()

    # ---- one operation -------------------------------------------------------------------------------------------

    async def _work(self, claim: Claim) -> None:
        operation = claim.operation
        bound = log.bind(operation=operation.id, app=operation.app, kind=operation.kind.value)
        began = asyncio.get_running_loop().time()
        bound.info("claimed", fence=claim.fence, claims=operation.claims)
        run = Run(self._store, claim)
        try:
            outcome = await self._execute(run, claim)
        except LeaseLost as lost:
            bound.warning("lease_lost", error=lost.message)
        except DatabaseUnavailable as error:
            # As after a crash: whoever claims it next goes on with the step that was under way.
            bound.error("given_back", error=error.message)
        except asyncio.CancelledError:
            bound.info("interrupted")
            raise
        except Exception:
            bound.exception("defect")
        else:
            seconds = asyncio.get_running_loop().time() - began
            self._ended(operation, outcome.status, seconds)
            bound.info("ended", status=outcome.status.value, seconds=round(seconds, 3))
            self._claims.pop(operation.id, None)
        finally:
            await run.leave()

    async def _execute(self, run: Run, claim: Claim) -> Outcome:
        operation = claim.operation
        procedure = self._procedures(operation)
        if claim.undoing:
            return await self._undo(run, procedure, operation.error or {})
        if operation.claims > MAX_CLAIMS:
            error = Abandoned(f"Taken up {operation.claims - 1} times without coming to an end.")
            return await self._undo(run, procedure, error.to_json())
        try:
            if operation.cancel is not None:
                raise self._cancelled_error(run)
            self._cancellable.add(operation.id)
            ended = await self._forward(run, procedure)
            self._cancellable.discard(operation.id)
        except (LeaseLost, DatabaseUnavailable):
            raise
        except NornError as error:
            self._cancellable.discard(operation.id)
            return await self._fail(run, procedure, error)
        except asyncio.CancelledError:
            if operation.id not in self._cancelled:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            current = await self._store.operation(operation.id)
            return await self._fail(run, procedure, self._cancelled_error(run, current))
        except Exception as error:
            self._cancellable.discard(operation.id)
            return await self._fail(run, procedure, _as_ours(error, operation.id))
        return await self._end(run, procedure, Outcome(OperationStatus.SUCCEEDED, None), ended)

    @staticmethod
    def _cancelled_error(run: Run, current: Operation | None = None) -> Cancelled:
        cancel = (current or run.operation).cancel or {}
        reason = f": {cancel['reason']}" if cancel.get("reason") else ""
        return Cancelled(f"Cancelled by {cancel.get('by', 'somebody')}{reason}.", **cancel)

    async def _forward(self, run: Run, procedure: Procedure) -> Write | None:
        """Run the steps that are left; what is still to be written of the last one's end."""
        kind = run.operation.kind.value
        records = {record.ordinal: record for record in run.operation.steps}
        ended: Write | None = None
        for ordinal, step in enumerate(procedure.steps):
            record = records.get(ordinal)
            if record is not None and record.status is StepStatus.DONE:
                continue
            handed_over = record is not None and run.operation.claims == 1  # begun as it was accepted
            if not handed_over:
                self._point(f"{kind}.{step.name}.before")
                await self._begin(run, ordinal, step, ended)
            self._point(f"{kind}.{step.name}.begun")

            async def flush(text: str, new: str, ordinal: int = ordinal, step: Step = step) -> None:
                async with run.transaction() as transaction:
                    await transaction.append_output(ordinal, step.name, text, new)

            async with StepOutput(flush, record.output if record else "") as output:
                run.output = output
                if record is not None and not handed_over:
                    output.line("[the server was interrupted; going on]")
                try:
                    await step.run(run)
                except (LeaseLost, DatabaseUnavailable):
                    raise
                except BaseException:
                    # Whoever goes on, or looks, finds what was printed; a failure to write it changes nothing.
                    with contextlib.suppress(LeaseLost, DatabaseUnavailable):
                        await output.flush()
                    raise
                self._point(f"{kind}.{step.name}.ran")
                with contextlib.suppress(DatabaseUnavailable):  # it is kept with the end of the step, too
                    await output.flush(least=CHUNK_CHARS)
            ended = _ending(run, ordinal, StepStatus.DONE, output.text, output.rest())
        return ended

    async def _begin(self, run: Run, ordinal: int, step: Step, ended: Write | None) -> None:
        """In one transaction with the end of the step before: a rollback is in a hurry."""

        async def write(transaction: Fenced) -> None:
            if ended is not None:
                await ended(transaction)
            await transaction.begin_step(ordinal, step.name)
            if step.begins is not None:
                await step.begins(transaction)

        await self._write(run, write)

    async def _fail(self, run: Run, procedure: Procedure, error: NornError) -> Outcome:
        """Note the failure first: after a crash the operation goes on being undone, never forwards again."""
        failure = error.to_json()
        current = await self._store.operation(run.id)
        records = current.steps if current else ()

        async def write(transaction: Fenced) -> None:
            await transaction.save(run.state)
            await transaction.mark(undoing=failure)
            for record in records:
                if record.status is StepStatus.RUNNING:
                    await transaction.end_step(record.ordinal, StepStatus.FAILED, record.output)

        await self._write(run, write)
        self._point(f"{run.operation.kind.value}.undo.begun")
        return await self._undo(run, procedure, failure)

    async def _undo(self, run: Run, procedure: Procedure, failure: Mapping[str, Any]) -> Outcome:
        current = await self._store.operation(run.id)
        assert current is not None
        failed_undo: list[Mapping[str, Any]] = []
        for record in reversed(current.steps if not current.committed else ()):
            step = procedure.steps[record.ordinal]
            # By a note of its own: a step that failed is called so for ever, and must not be undone twice, least of all
            # after those before it.
            undone = run.state.setdefault(_UNDONE, [])
            if step.undo is None or record.ordinal in undone:
                continue
            output = StepOutput(kept=record.output)
            run.output = output
            error = await self._undo_step(run, procedure, record.ordinal, step, step.undo)
            if error is not None:
                output.line(f"[could not be undone: {error.message}]")
                failed_undo.append(error.to_json() | {"step": step.name})
                if procedure.whole:
                    await self._write(run, _ending(run, record.ordinal, StepStatus.FAILED, output.text))
                    break
            undone.append(record.ordinal)
            status = StepStatus.FAILED if record.status is StepStatus.FAILED else StepStatus.UNDONE
            await self._write(run, _ending(run, record.ordinal, status, output.text))
            self._point(f"{run.operation.kind.value}.{step.name}.undone")
        facts = dict(failure) | ({"undoErrors": failed_undo} if failed_undo else {})
        cancelled = failure.get("code") == Cancelled.code
        ended_as = OperationStatus.CANCELLED if cancelled else OperationStatus.FAILED
        return await self._end(run, procedure, Outcome(ended_as, facts))

    async def _undo_step(
        self, run: Run, procedure: Procedure, ordinal: int, step: Step, undo: Action
    ) -> NornError | None:
        """Undo a step; why it could not be undone.

        Where the whole has to be, or what it needs is away, that is tried for ten minutes.
        """
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + UNDO_PATIENCE_S, 0.5
        while True:
            try:
                await undo(run)
                return None
            except (LeaseLost, DatabaseUnavailable):
                raise
            except Exception as caught:
                error = _as_ours(caught, run.id)
                delay = min(delay * 2, UNDO_PAUSE_S)
                again = procedure.whole or isinstance(error, Unavailable)
                if not again or loop.time() + delay > deadline:
                    return error
                log.warning("undo_failed", operation=run.id, step=step.name, error=error.message)
                said = f"[could not be undone yet: {error.message} Trying again]\n"
                run.output.write(said)
                text = run.output.text

                async def tell(transaction: Fenced, text: str = text, said: str = said) -> None:
                    await transaction.append_output(ordinal, step.name, text, said)

                await self._write(run, tell)
                await asyncio.sleep(delay)

    async def _end(self, run: Run, procedure: Procedure, outcome: Outcome, ended: Write | None = None) -> Outcome:
        async def write(transaction: Fenced) -> None:
            if ended is not None:
                await ended(transaction)
            if procedure.ends is not None:
                await procedure.ends(run, transaction, outcome)
            await transaction.end(outcome.status, outcome.error, run.state.get("result"))

        self._point(f"{run.operation.kind.value}.end.before")
        await self._write(run, write)
        self._point(f"{run.operation.kind.value}.end.after")
        return outcome

    async def _write(self, run: Run, write: Write) -> None:
        """Write, through a database that is away for up to half a minute."""
        for delay in (*WRITE_RETRIES_S, None):
            try:
                async with run.transaction() as transaction:
                    await write(transaction)
                return
            except DatabaseUnavailable:
                if delay is None:
                    raise
                await asyncio.sleep(delay)
