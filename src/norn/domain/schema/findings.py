"""The changes of a schema as findings of a verdict: what they break, how certainly, and the statement that helps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from norn.domain.catalog import compare
from norn.domain.deployments import rfc3339
from norn.domain.durations import format_duration
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.state import Schema
from norn.domain.schema.structure import Structure, facts_of, last_part
from norn.domain.verdict import Finding, Level, Way

_MOST = 100
_FAILING = 5
_NO_DRIFT = ("large objects", "comment")
_ENOUGH = 20
"""So many statements of the app have to be known before their silence about a table says something."""
SEEN_MOST = 300
"""So many statements are looked at, at most: of what comes after them nothing is known."""
UNREAD_FOR = timedelta(days=1)
"""What nobody has touched for so long while the target was live, it does not seem to need."""


def schema_findings(
    found: Sequence[Change],
    *,
    failing: Mapping[str, str],
    seen: Sequence[str] | None,
    unread: Mapping[str, timedelta],
) -> tuple[Finding, ...]:
    """A finding for each change that disturbs old code, and one for all that do not.

    Args:
        failing: statements that the app has run and that cannot run any more, with PostgreSQL's words.
        seen: what the app had run when the target was replaced; None where the server does not keep that.
        unread: tables that nobody used for as long as the target was live.
    """
    told = [change for change in found if change.level is not Level.SAFE]
    told.sort(key=lambda change: -change.level.weight)
    findings = [_proof(statement, why) for statement, why in list(failing.items())[:_FAILING]]
    findings += [_finding(change, seen, unread) for change in told[:_MOST]]
    if len(told) > _MOST:
        level = max((change.level for change in told[_MOST:]), key=lambda level: level.weight)
        rest = len(told) - _MOST
        findings.append(Finding("more_changes", level, f"And {rest} more changes of the schema disturb it.",
                                {"count": rest}))  # fmt: skip
    harmless = Counter(change.code for change in found if change.level is Level.SAFE)
    if harmless:
        said = ", ".join(f"{code.replace('_', ' ')} ({count})" for code, count in sorted(harmless.items()))
        findings.append(
            Finding(
                "schema_compatible",
                Level.SAFE,
                f"Changes of the schema since then that do not disturb it: {said}.",
                {"changes": dict(sorted(harmless.items()))},
            )
        )
    return tuple(findings)


def unread_tables(began: Schema, ended: Schema) -> dict[str, timedelta]:
    """Tables that nobody used between two moments of one database, and for how long; empty where nobody counted."""
    lived = ended.at - began.at
    if began.database != ended.database or lived < UNREAD_FOR:
        return {}
    if began.counted_since != ended.counted_since:
        return {}  # the server has begun to count anew
    before = {entry.oid: facts_of(entry).get("uses") for entry in Structure(began.catalog).of_kinds(("table",))}
    return {
        entry.name: lived
        for entry in Structure(ended.catalog).of_kinds(("table",))
        if (uses := facts_of(entry).get("uses")) is not None and before.get(entry.oid) == uses
    }


def drift_finding(last: Schema, present: Schema) -> Finding | None:
    """That the schema was changed since the last deploy, by hand or by the app itself; None where it was not."""
    difference = compare(last.catalog, present.catalog, without=_NO_DRIFT)
    if not difference:
        return None
    return Finding(
        "schema_drift",
        Level.SAFE,
        "Since the last deploy the schema was changed otherwise than by a migration of Norn's: "
        f"{difference.summary(3)}.",
        {"changes": difference.summary(_MOST), "since": rfc3339(last.at)},
    )


def _finding(change: Change, seen: Sequence[str] | None, unread: Mapping[str, timedelta]) -> Finding:
    level, message = change.level, change.message
    if level is Level.UNSAFE:
        why = _why_not_so_bad(change, seen, unread)
        if why:
            level, message = Level.CAUTION, f"{message} {why}"
    facts = {"subject": change.subject, "effect": change.effect.value, **change.facts}
    ways = (Way("Lets the old code work on this again.", statement=change.remedy),) if change.remedy else ()
    return Finding(change.code, level, message, facts, ways)


def _why_not_so_bad(change: Change, seen: Sequence[str] | None, unread: Mapping[str, timedelta]) -> str:
    """Why what breaks is perhaps nothing that the app does; empty where there is no such reason."""
    if change.relation in unread:
        return f"But nobody used the table in the {format_duration(unread[change.relation].total_seconds())} before."
    if seen is not None and _ENOUGH <= len(seen) < SEEN_MOST and change.relation:
        name = re.escape(last_part(change.relation).strip('"'))
        if not any(re.search(rf"\b{name}\b", statement, re.IGNORECASE) for statement in seen):
            return f"But none of the {len(seen)} statements that were seen from the app names it."
    return ""


def _proof(statement: str, why: str) -> Finding:
    shown = " ".join(statement.split())
    shown = shown if len(shown) <= 200 else f"{shown[:199]}…"
    return Finding(
        "statement_fails",
        Level.UNSAFE,
        f"A statement that the app has run fails now ({why}): {shown}",
        {"statement": statement[:2_000], "error": why, "effect": Effect.BREAKS_READS.value},
    )
