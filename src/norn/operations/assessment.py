"""Is rolling back the code enough? What Norn knows of the way from a target to the present, as findings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import structlog

from norn.domain.configuration import (
    IN_TEMPLATE,
    NOTED,
    configuration_finding,
    foreseen,
    unread_finding,
)
from norn.domain.contents import Usual, rows_changed_finding
from norn.domain.dependencies import dependency_findings
from norn.domain.deployments import Deployment, rfc3339
from norn.domain.infraspec import Infraspec, PostgresService
from norn.domain.ledgers import ledger_findings, migrates_at_start
from norn.domain.ports import AppDatabase
from norn.domain.retention import way_back
from norn.domain.schema import (
    changes,
    drift_finding,
    lost_on_the_way,
    schema_findings,
    step_losses,
    unread_tables,
)
from norn.domain.snapshot_names import parse_snapshot_name
from norn.domain.surroundings import (
    AFTER,
    DatabaseState,
    Noted,
    Restored,
    Surroundings,
    replaced,
    unseen,
    way_to_present,
)
from norn.domain.targets import Question
from norn.domain.verdict import Finding, Level, Way, not_checked
from norn.domain.written import Written, written_finding
from norn.errors import DatabaseUnavailable, NornError
from norn.operations.services import Services
from norn.operations.told import configuration_of, infraspec_of, secrets_set, shape_findings
from norn.operations.way_back import for_retention, stored_snapshots

log = structlog.get_logger(__name__)

BUDGET_S = 2.0
"""A rollback waits no longer: what is not known by then is a caution."""
_HISTORY = 300
_ROWS_S = 0.5


@dataclass(frozen=True, slots=True)
class _Way:
    """The records between a target and the present."""

    history: Sequence[Deployment]
    noted: tuple[Noted, ...]
    """The oldest first, as the target left it; empty where there is none. What a restore has brought back is left
    out of the later ones."""
    left: Surroundings | None
    last: Surroundings | None
    """The newest for which a database was looked at."""
    unseen: tuple[str, ...] = ()
    """The deploys of which it is not known what they did to the rows that were there."""
    restored: tuple[datetime, ...] = ()
    """When a restore has put another database in the place of the one that was there."""


async def assess(services: Services, question: Question, budget_s: float = BUDGET_S) -> tuple[Finding, ...]:
    """Look at everything beside each other, for so long at most."""
    way = asyncio.ensure_future(_way(services, question))
    parts: dict[str, Awaitable[Sequence[Finding]]] = {
        "the configuration": _configuration(services, question, way),
        "what lies outside": _outside(services, question),
        "the way it is run": shape_findings(services, question),
    }
    if not question.with_data:
        parts["the schema of the database"] = _schema(services, question, way)
    tasks = {asyncio.ensure_future(part): name for name, part in parts.items()}
    done, late = await asyncio.wait(tasks, timeout=budget_s)
    for task in (*late, *([] if way.done() else [way])):
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    findings = [not_checked(tasks[task], f"it took longer than {budget_s:g} s") for task in late]
    for task in done:
        error = task.exception()
        if error is None:
            findings += task.result()
        elif isinstance(error, DatabaseUnavailable):
            raise error
        elif isinstance(error, NornError):
            findings.append(not_checked(tasks[task], error.message.rstrip(".")))
        else:  # a defect here keeps nobody from going back
            log.error("not_checked", app=question.app, part=tasks[task], exc_info=error)
            findings.append(not_checked(tasks[task], f"a defect in Norn ({type(error).__name__})"))
    return tuple(findings)


async def _way(services: Services, question: Question) -> _Way:
    history, noted, restores = await asyncio.gather(
        services.store.deployments(app=question.app, limit=_HISTORY),
        services.store.surroundings_noted(question.app),
        services.store.restores(question.app),
    )
    chosen = way_to_present(question.target, history, noted)
    if not chosen:
        return _Way(history, (), None, None)
    newest = next((one for one in reversed(chosen) if one.looked), chosen[-1])
    ends = {one.deployment_id + one.moment: one for one in (chosen[0], newest)}.values()
    found = await asyncio.gather(*(services.store.surroundings(one.deployment_id, one.moment) for one in ends))
    restored = [
        Restored(parsed[2], restore.restored_at)
        for restore in restores
        if restore.undone_by is None and restore.snapshot and (parsed := parse_snapshot_name(restore.snapshot))
    ]
    back = {one for one in chosen if any(restore.brings_back(one.at) for restore in restored)}
    way = [replace(one, losses=(), rewritten=()) if one in back else one for one in chosen]
    hidden = {one.deployment_id for one in unseen(chosen) if one not in back}
    tags = tuple(one.image_tag for one in history if one.id in hidden)
    moments = tuple(restore.restored_at for restore in restores)
    return _Way(history, tuple(way), found[0], found[-1], tags, moments)


# ---- the database ------------------------------------------------------------------------------------------------


async def _schema(services: Services, question: Question, finding_way: asyncio.Future[_Way]) -> Sequence[Finding]:
    way, theirs = await asyncio.gather(finding_way, infraspec_of(services, question.target))
    spec = theirs or await services.source.infraspec(await services.source.app(question.app))
    left = way.left.database if way.left is not None else None
    tag = question.target.image_tag
    postgres = await _postgres(services, question, spec)
    if postgres is None:
        return ()
    database = await services.databases.find(question.app, postgres)
    if database is None:
        return (_database_missing(postgres.database, question.app, tag),)
    if left is None:
        return (not_checked("the schema of the database", f"there is no record of the one that {tag} ran on"),)
    present, failing = await services.schemas.look(database, left.statements or ())
    first = await services.store.surroundings(_origin(question, way), AFTER)
    findings = await asyncio.to_thread(_compared, way, left, present, failing, first)
    findings += ledger_findings(left.ledgers, present.ledgers, at_start=_at_start(theirs), image_tag=tag)
    rows = await _written(services, database, way, left)
    written = written_finding(rows, left.files) if rows is not None else None
    if written is not None:
        findings.append(written)
    return await _with_ways(services, question, way, findings, rows_known=rows is not None)


async def _postgres(services: Services, question: Question, theirs: Infraspec) -> PostgresService | None:
    """The database that the target will meet: a rollback of the image leaves the URL of what is live as it is."""
    live = question.live.deployment if question.live is not None else None
    if theirs.postgres is None or live is None or (question.template and live.rolled_out_at is None):
        return theirs.postgres
    present = await infraspec_of(services, live)
    return present.postgres if present is not None and present.postgres is not None else theirs.postgres


def _compared(
    way: _Way, left: DatabaseState, present: DatabaseState, failing: Mapping[str, str], first: Surroundings | None
) -> list[Finding]:
    net = changes(left.schema, present.schema)
    last = way.last.database if way.last is not None and len(way.noted) > 1 else None
    steps = [loss for noted in way.noted[1:] for loss in noted.losses]
    steps += step_losses(last.schema, present.schema) if last is not None else ()
    on_the_way = lost_on_the_way(left.schema, net, steps)
    began = first.database if first is not None else None
    seen = [*left.statements, *left.unprepared] if left.statements is not None else None
    unread = unread_tables(began.schema, left.schema) if began is not None else {}
    findings = list(schema_findings([*net, *on_the_way], failing=failing, seen=seen, unread=unread))
    findings += _rows_changed(way, began, left)
    if way.unseen:
        why = f"it is not known what the deploy of {', '.join(way.unseen)} has changed in them"
        findings.append(not_checked("what the tables held", why))
    if replaced(way.noted, present.schema.database, present.schema.at, way.restored):
        why = "the database is another one than at that time, and no restore of this app has put it there"
        findings.append(not_checked("what the tables held", why))
    if not present.schema.database:
        why = "Norn's role may not ask which server this is (pg_control_system)"
        findings.append(not_checked("what the tables held", why))
    if last is not None and way.noted[-1].moment == AFTER and way.noted[-1].looked:
        drift = drift_finding(last.schema, present.schema)
        findings += [drift] if drift is not None else []
    return findings


def _rows_changed(way: _Way, began: DatabaseState | None, left: DatabaseState) -> list[Finding]:
    """What each migration on the way has done to rows that were there."""
    usual = _usual(began, left)
    steps = ((before, after) for before, after in pairwise(way.noted) if after.rewritten)
    findings = (rows_changed_finding(after.rewritten, usual, before.at, after.at) for before, after in steps)
    return [finding for finding in findings if finding is not None]


def _usual(began: DatabaseState | None, ended: DatabaseState) -> dict[str, Usual]:
    """What the app itself does to its tables while nothing is migrated."""
    if began is None or began.schema.database != ended.schema.database:
        return {}
    seconds = (ended.schema.at - began.schema.at).total_seconds()
    return {
        table: Usual(
            max(held.touched - began.contents[table].touched, 0),
            seconds,
            max(held.deleted - began.contents[table].deleted, 0),
        )
        for table, held in ended.contents.items()
        if table in began.contents and began.contents[table].oid == held.oid
    }


def _database_missing(name: str, app: str, image_tag: str) -> Finding:
    return Finding(
        "database_missing",
        Level.UNSAFE,
        f"{image_tag} uses the database {name}, which is not there.",
        {"database": name},
        (
            Way(
                "Makes it anew from a snapshot; `norn snapshots list` names them.",
                f"norn snapshots restore {app} SNAPSHOT --into {name}",
            ),
        ),
    )


def _origin(question: Question, way: _Way) -> str:
    """The deploy that brought the target's version."""
    seq = question.target.origin_seq
    return next((found.id for found in way.history if found.seq == seq), question.target.id)


def _at_start(spec: Infraspec | None) -> bool | None:
    """Whether a version migrates when it starts; None: perhaps, as its image starts it, or nothing else migrates."""
    if spec is None:
        return None
    if migrates_at_start(spec.command) or (spec.migrations is not None and spec.migrations.at_start):
        return True
    return False if spec.migrations is not None and spec.command is not None else None


async def _written(
    services: Services, database: AppDatabase, way: _Way, left: DatabaseState
) -> Sequence[Written] | None:
    noted = next((one for one in way.noted[1:] if one.moment == AFTER), None)
    after = await services.store.surroundings(noted.deployment_id, AFTER) if noted is not None else None
    anchor = after.database.anchor if after is not None and after.database is not None else None
    return await services.schemas.written(database, left.anchor, anchor, _ROWS_S)


async def _with_ways(
    services: Services, question: Question, way: _Way, findings: Sequence[Finding], *, rows_known: bool
) -> Sequence[Finding]:
    """With what helps, where the database is what is in the way."""
    if all(finding.level is Level.SAFE for finding in findings):
        return findings
    ways = []
    rows = await stored_snapshots(services, question.app)
    name = way_back(question.target.digest or "", way.history, for_retention(rows))
    facts: dict[str, Any] = {}
    if name is not None:
        restore, facts = _restore(question, name, rows[name], findings, rows_known=rows_known)
        ways.append(restore)
    forward = Way(
        "Rolls forward: a new commit that mends it goes over the schema as it is.", f"norn deploy {question.app}"
    )
    return [
        finding
        if finding.level is Level.SAFE or finding.code == "not_checked"
        else replace(finding, facts={**finding.facts, **facts}, ways=(*finding.ways, *ways, forward))
        for finding in findings
    ]


def _restore(
    question: Question, name: str, row: Mapping[str, Any], findings: Sequence[Finding], *, rows_known: bool
) -> tuple[Way, dict[str, Any]]:
    taken, verified = row["taken_at"], row["verified_at"]
    written = next((finding for finding in findings if finding.code == "rows_written"), None)
    tables = written.facts["tables"] if written is not None else []
    lost = sum(table["since"] + table["byMigration"] for table in tables)
    least = "at least " if any(not table["complete"] for table in tables) else ""
    many = f"{least}{lost} rows" if rows_known else "how many rows is not known"
    checked = f"verified {_minute(verified)}" if verified is not None else "not verified by a test restore yet"
    text = (
        f"Brings the data back as that version left it: {name}, taken {_minute(taken)}, {checked}. It loses what was "
        f"written since ({many})."
    )
    command = f"norn rollback {question.app} --to {question.target.image_tag} --restore-snapshot"
    facts = {"snapshot": name, "snapshotTakenAt": rfc3339(taken), "snapshotVerifiedAt": rfc3339(verified)}
    return Way(text, command), facts


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


# ---- configuration and surroundings ------------------------------------------------------------------------------


async def _configuration(
    services: Services, question: Question, finding_way: asyncio.Future[_Way]
) -> Sequence[Finding]:
    way = await finding_way
    then = way.left.configuration if way.left is not None else None
    tag = question.target.image_tag
    if then is None:
        return (not_checked("the configuration", f"there is no record of the one that {tag} ran with"),)
    known = question.live.deployment if question.live is not None else None
    spec = await infraspec_of(services, known) if known is not None else None
    now = await configuration_of(services, question.app, spec)
    if question.foreseen and known is not None:
        now = foreseen(now, *((one.template or {}).get("env") or {} for one in (question.target, known)))
    if question.template:  # what is written in the template itself comes back with it
        then, now = ({name: value for name, value in side.items() if not name.startswith(IN_TEMPLATE)}
                     for side in (then, now))  # fmt: skip
    noted = any(name.startswith(NOTED) for name in (*then, *now))
    set_since = await secrets_set(services, question.app, way.left.at) if noted and way.left is not None else ()
    findings = (
        configuration_finding(then, now, question.app, tag, set_since),
        unread_finding(then, now),
    )
    return [finding for finding in findings if finding is not None]


async def _outside(services: Services, question: Question) -> Sequence[Finding]:
    spec = await infraspec_of(services, question.target)
    if spec is None:
        present = await services.source.infraspec(await services.source.app(question.app))
        why = f"of {question.target.image_tag} no commit is known, which would name what it depends on"
        return (not_checked("what lies outside", why),) if present.dependencies else ()
    return dependency_findings(await services.dependencies.ask(spec.dependencies), question.target.image_tag)
