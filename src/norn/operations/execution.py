"""One operation from its claim to its end: its steps forwards, and, where one fails or it is cancelled, backwards.

What is done is written down as it is done; whoever claims the operation after a crash goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from norn.domain.claims import Claim
from norn.domain.operations import Operation, OperationStatus, StepStatus
from norn.domain.scrubbing import NOTHING, Scrubber
from norn.domain.store import Fenced, Store
from norn.errors import Abandoned, Cancelled, DatabaseUnavailable, LeaseLost, NornError, StepFailed, Unavailable
from norn.operations.output import CHUNK_CHARS, StepOutput
from norn.operations.procedures import Action, Outcome, Procedure, Procedures, Run, Step

log = structlog.get_logger(__name__)

MAX_CLAIMS = 25
"""An operation that has taken down its server so often is given up and undone."""
UNDO_PATIENCE_S = 600.0
UNDO_PAUSE_S = 15.0
_UNDONE = "undone"
"""In an operation's state: the ordinals of the steps that have been undone."""
WRITE_RETRIES_S = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 15.0)

Point = Callable[[str], None]
"""Told each moment at which the state on disk has changed: `deploy.build.begun` and the like. For tests that kill."""

Write = Callable[[Fenced], Awaitable[None]]

ScrubberOf = Callable[[Operation], Awaitable[Scrubber]]
"""Asked before each step: what must not be seen of what it prints."""


async def knowing_nothing(_operation: Operation) -> Scrubber:
    return NOTHING


def _ending(run: Run, ordinal: int, status: StepStatus, output: str, rest: str = "") -> Write:
    """Writes the end of a step, and what its operation knows by then."""

    async def write(transaction: Fenced) -> None:
        await transaction.save(run.state)
        await transaction.end_step(ordinal, status, output, rest)

    return write


def _as_ours(error: Exception) -> NornError:
    """What a step raised, as an error for people."""
    if isinstance(error, NornError):
        return error
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return StepFailed(f"{error.strerror or error}{where}.", hint="Look at the disk and the permissions there.")
    log.error("step_defect", exc_info=error)
    text = "".join(traceback.format_exception_only(error)).strip()
    return NornError(f"A defect in Norn: {text}", hint="Please report it.")


class Executor:
    """Works on claimed operations, each in a task of its own."""

    def __init__(
        self,
        store: Store,
        procedures: Procedures,
        point: Point = lambda _name: None,
        scrubber_of: ScrubberOf = knowing_nothing,
    ) -> None:
        self._store = store
        self._scrubber_of = scrubber_of
        self._procedures = procedures
        self._point = point
        self._runs: dict[str, Run] = {}

    def cancel(self, operation_id: str, task: asyncio.Task[None]) -> None:
        """Cancel an operation that `task` works on; does nothing where it is ending anyway."""
        run = self._runs.get(operation_id)
        if run is not None and run.cancellable:
            run.cancellable, run.cancelled = False, True
            task.cancel()

    def is_ending(self, operation_id: str) -> bool:
        """Whether the fence alone decides who may still write."""
        run = self._runs.get(operation_id)
        return run is not None and run.ending

    async def run(self, run: Run, claim: Claim) -> Outcome:
        self._runs[run.id] = run
        try:
            return await self._run(run, claim)
        finally:
            del self._runs[run.id]

    async def _run(self, run: Run, claim: Claim) -> Outcome:
        operation = claim.operation
        procedure = self._procedures(operation)
        run.scrubber = await self._scrubber_of(operation)
        if claim.undoing:
            return await self._undo(run, procedure, operation.error or {})
        if operation.claims > MAX_CLAIMS:
            error = Abandoned(f"Taken up {operation.claims - 1} times without coming to an end.")
            return await self._undo(run, procedure, error.to_json())
        try:
            if operation.cancel is not None:
                raise self._cancelled_error(run)
            run.cancellable = True
            ended = await self._forward(run, procedure)
            run.cancellable = False
        except (LeaseLost, DatabaseUnavailable):
            raise
        except NornError as error:
            run.cancellable = False
            return await self._fail(run, procedure, error)
        except asyncio.CancelledError:
            if not run.cancelled:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            current = await self._store.operation(operation.id)
            return await self._fail(run, procedure, self._cancelled_error(run, current))
        except Exception as error:
            run.cancellable = False
            return await self._fail(run, procedure, _as_ours(error))
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
            structlog.contextvars.bind_contextvars(step=step.name)
            run.scrubber = await self._scrubber_of(run.operation)

            async def flush(text: str, new: str, ordinal: int = ordinal, step: Step = step) -> None:
                async with run.transaction() as transaction:
                    await transaction.append_output(ordinal, step.name, text, new)

            async with StepOutput(flush, record.output if record else "", run.scrubber) as output:
                run.output = output
                if record is not None and not handed_over:
                    output.line("[the server was interrupted; going on]")
                try:
                    await step.run(run)
                except (LeaseLost, DatabaseUnavailable):
                    raise
                except BaseException:
                    # Whoever goes on, or looks, finds what was printed; a failure to write it changes nothing.
                    output.end()
                    with contextlib.suppress(LeaseLost, DatabaseUnavailable):
                        await output.flush()
                    raise
                output.end()
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
        failure = run.scrubber.json(error.to_json())
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
            undo = step.undo or step.tidy
            if undo is None or record.ordinal in undone:
                continue
            structlog.contextvars.bind_contextvars(step=step.name)
            output = StepOutput(kept=record.output, scrubber=run.scrubber)
            run.output = output
            error = await self._undo_step(run, procedure, record.ordinal, step, undo)
            if error is not None:
                output.line(f"[could not be undone: {error.message}]")
                failed_undo.append(run.scrubber.json(error.to_json()) | {"step": step.name})
                output.end()
                if procedure.whole:
                    await self._write(run, _ending(run, record.ordinal, StepStatus.FAILED, output.text))
                    break
            output.end()
            undone.append(record.ordinal)
            stays = step.undo is None or record.status is StepStatus.FAILED
            status = record.status if stays else StepStatus.UNDONE
            await self._write(run, _ending(run, record.ordinal, status, output.text))
            self._point(f"{run.operation.kind.value}.{step.name}.undone")
        facts = dict(failure) | ({"undoErrors": failed_undo} if failed_undo else {})
        if stay := run.state.get("stays"):
            facts["stays"] = run.scrubber.json(stay)
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
                error = _as_ours(caught)
                delay = min(delay * 2, UNDO_PAUSE_S)
                again = procedure.whole or isinstance(error, Unavailable)
                if not again or loop.time() + delay > deadline:
                    return error
                log.warning("undo_failed", error=error.message)
                said = f"[could not be undone yet: {error.message} Trying again]\n"
                run.output.write(said)
                said, text = run.scrubber.text(said), run.output.text

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

        run.ending = True
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
