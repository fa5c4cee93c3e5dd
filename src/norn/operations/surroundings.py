"""A deploy writes down what is around it, and says beforehand whether it can be rolled back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from norn.domain.configuration import Digests
from norn.domain.contents import Rewritten, rewritten
from norn.domain.infraspec import Infraspec
from norn.domain.ports import AppDatabase
from norn.domain.schema import step_losses
from norn.domain.surroundings import AFTER, BEFORE, DatabaseState, Noted
from norn.domain.targets import LiveVersion, Question
from norn.domain.verdict import Level, verdict_of
from norn.errors import DatabaseUnavailable, LeaseLost, NornError
from norn.operations.assessment import assess
from norn.operations.procedures import Run
from norn.operations.services import Services
from norn.operations.told import configuration_of, infraspec_of
from norn.operations.versions import live_version
from norn.operations.way_back import data_of

_LOOK_S = 10.0
"""So long a deploy that has failed may look at what it leaves."""


async def note_surroundings(run: Run, services: Services, moment: str, database: AppDatabase | None) -> None:
    """Write down the database and the configuration as they are, as far as they can be read.

    What was noted before the migration stays when the step is run again: the migration may have begun by then. After
    it, what the version is told is not known yet: `note_configuration`.
    """
    state: DatabaseState | None = None
    configuration: Digests | None = None
    noted = Noted(run.id, moment, await services.store.now())
    try:
        if database is not None:
            state = await services.schemas.state(database)
            noted = await _since_the_last(run, services, noted, state)
        if moment == BEFORE:
            live = await live_version(services, run.app)
            known = live.deployment if live is not None else None
            before = await infraspec_of(services, known) if known is not None else None
            configuration = await configuration_of(services, run.app, before)
    except (LeaseLost, DatabaseUnavailable):
        raise
    except NornError as error:  # the deploy goes on; a rollback will say that it was not checked
        run.output.line(f"[what is around this version could not be written down: {error.message}]")
    async with run.transaction() as transaction:
        await transaction.note_surroundings(noted, state, configuration, again=moment != BEFORE)


async def note_unfinished(run: Run, services: Services, database: AppDatabase) -> None:
    """Write down what a migration leaves that has not come to its end. What was noted at its end stays.

    A rollback that waits for this does not wait for a look, too: it will be told that nobody has looked.
    """
    before, after = [await services.store.surroundings(run.id, moment) for moment in (BEFORE, AFTER)]
    if before is None or (after is not None and after.database is not None) or await _preempted(run, services):
        return
    await note_surroundings(run, services, AFTER, database)


async def note_configuration(run: Run, services: Services, spec: Infraspec) -> None:
    """Write down what the deploy's own version is told, now that it is live."""
    try:
        configuration = await configuration_of(services, run.app, spec)
    except (LeaseLost, DatabaseUnavailable):
        raise
    except NornError as error:
        run.output.line(f"[the configuration of this version could not be written down: {error.message}]")
        return
    async with run.transaction() as transaction:
        await transaction.note_configuration(AFTER, configuration)


async def _preempted(run: Run, services: Services) -> bool:
    operation = await services.store.operation(run.id)
    return operation is not None and bool((operation.cancel or {}).get("preemptedBy"))


async def _since_the_last(run: Run, services: Services, noted: Noted, state: DatabaseState) -> Noted:
    """With what was lost since the last record of a database: by the migration, or by hand since the last deploy."""
    noted = replace(noted, database=state.schema.database)
    own = (run.id, noted.moment)
    others = (
        one
        for one in await services.store.surroundings_noted(run.app)
        if one.looked and (one.deployment_id, one.moment) != own
    )
    newest = next(others, None)
    last = await services.store.surroundings(newest.deployment_id, newest.moment) if newest is not None else None
    if last is None or last.database is None:
        return noted
    losses = await asyncio.to_thread(step_losses, last.database.schema, state.schema)
    changed: tuple[Rewritten, ...] = ()
    if (last.deployment_id, noted.moment) == (run.id, AFTER):
        changed = rewritten(last.database.contents, state.contents, last.database.files, state.files)
    return replace(noted, losses=losses, rewritten=changed)


async def what_stays(run: Run, services: Services) -> str:
    """What a deploy that has failed leaves in the database, and whether what is live can go on with that."""
    stays = "What the migration has committed stays in the database."
    if await _preempted(run, services):
        return stays  # a rollback waits for this, and has a verdict of its own
    own, live = await services.store.deployment(run.id), await live_version(services, run.app)
    if live is None or live.deployment is None or own is None:
        return stays
    unknown = f"Whether {live.image_tag}, which is live, can go on with it could not be found out."
    question = Question(run.app, live.deployment, LiveVersion(own.image_tag, own.digest or "", own), template=True)
    try:
        verdict = verdict_of(await assess(services, question, _LOOK_S))
    except (LeaseLost, DatabaseUnavailable):
        raise
    except NornError:
        return f"{stays} {unknown}"
    if verdict.level is not Level.UNSAFE and any(found.code == "not_checked" for found in verdict.findings):
        return f"{stays} {unknown}"
    against = ", ".join(dict.fromkeys(found.code for found in verdict.findings if found.level is verdict.level))
    if verdict.level is not Level.UNSAFE:
        return f"{stays} {live.image_tag}, which is live, can go on with it: {against or verdict.level.value}."
    stays += f" {live.image_tag}, which is live, was not made for it: {against}."
    if own.snapshot is None:
        return stays
    command = f"`norn rollback {run.app} --to {live.image_tag} --restore-snapshot`"
    name = await data_of(services, run.app, live.deployment)
    if name == own.snapshot:
        return f"{stays} {command} brings schema and data back as they were before it."
    older = f"; {command} takes an older one, {name}, and loses what was written since" if name is not None else ""
    return f"{stays} The data as they were before it are in {own.snapshot}{older}."


async def foresee(run: Run, services: Services) -> None:
    """Say whether what is about to be deployed can be rolled back to what is live."""
    try:
        live = await live_version(services, run.app)
        own = await services.store.deployment(run.id)
        if live is None or live.deployment is None or own is None:
            return
        new = LiveVersion(own.image_tag, own.digest or "", own)
        verdict = verdict_of(await assess(services, Question(run.app, live.deployment, new, foreseen=True)))
    except (LeaseLost, DatabaseUnavailable):
        raise
    except NornError as error:
        run.output.line(f"[whether this deploy can be rolled back could not be found out: {error.message}]")
        return
    what = "could be rolled back" if verdict.level is not Level.UNSAFE else "could not be rolled back by its code alone"
    run.output.line(f"this deploy {what} to {live.image_tag}: {verdict.level.value}")
    for finding in verdict.findings:
        if finding.level is not Level.SAFE:
            run.output.line(f"  {finding.level.value} {finding.code}: {finding.message}")
