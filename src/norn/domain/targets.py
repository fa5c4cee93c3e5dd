"""Which deployment a rollback goes to, and why; each one passed over, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from norn.domain.deployments import Deployment, Status
from norn.domain.durations import format_duration
from norn.domain.verdict import Finding, Level

SHORT_LIVED = timedelta(hours=1)
LONG_LIVED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """What the runtime says is live, and what the history knows of it."""

    image_tag: str
    digest: str
    deployment: Deployment | None
    """None where what runs is in no deployment: an image changed by hand, say."""


@dataclass(frozen=True, slots=True)
class Skipped:
    deployment_id: str
    image_tag: str
    why: str

    def to_json(self) -> dict[str, str]:
        return {"deploymentId": self.deployment_id, "imageTag": self.image_tag, "why": self.why}


@dataclass(frozen=True, slots=True)
class Target:
    deployment: Deployment
    why: str
    live_for: timedelta
    skipped: tuple[Skipped, ...] = ()
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "deploymentId": self.deployment.id,
            "imageTag": self.deployment.image_tag,
            "commitSha": self.deployment.commit_sha,
            "commitSubject": self.deployment.commit_subject,
            "why": self.why,
            "liveForS": round(self.live_for.total_seconds(), 3),
            "skipped": [skipped.to_json() for skipped in self.skipped],
        }


@dataclass(frozen=True, slots=True)
class Question:
    """Of which change is the verdict?"""

    app: str
    target: Deployment
    live: LiveVersion | None
    template: bool = False
    """The target's whole template comes back."""
    with_data: bool = False
    """Its data comes back, too, and with it the schema."""
    foreseen: bool = False
    """What is called live is only about to be."""


@dataclass(frozen=True, slots=True)
class NoTarget:
    """There is nothing to go back to; `skipped` says why for each deployment looked at."""

    why: str
    skipped: tuple[Skipped, ...] = ()


def _why_not(
    candidate: Deployment, live: LiveVersion | None, quarantined: Mapping[str, str], missing: frozenset[str]
) -> str | None:
    """The first reason against a candidate, None where there is none."""
    same = live is not None and candidate.digest is not None and candidate.digest == live.digest
    if live is not None and (same or candidate.image_tag == live.image_tag):
        return "its image is what is live"
    match candidate.status:
        case Status.FAILED:
            return f"it failed: {(candidate.error or {}).get('message', 'no reason recorded')}"
        case Status.CANCELLED:
            return "it was cancelled"
        case Status.ROLLED_BACK:
            return "it was rolled back" + (f" by {candidate.rolled_back_by}" if candidate.rolled_back_by else "")
        case _ if candidate.rolled_out_at is None:
            return "it has not rolled out"
    if live is not None and live.deployment is not None and candidate.origin_seq > live.deployment.origin_seq:
        return f"it is newer than what is live; `--to {candidate.image_tag}` goes forward to it"
    if candidate.image_tag in quarantined:
        return f"its image is in quarantine: {quarantined[candidate.image_tag]}"
    if candidate.image_tag in missing:
        return "its image no longer exists"
    return None


def choose_target(
    history: Sequence[Deployment],
    live: LiveVersion | None,
    *,
    quarantined: Mapping[str, str],
    missing: frozenset[str],
    now: datetime,
) -> Target | NoTarget:
    """The newest known-good deployment older than what is live, with another image that can still be had.

    Where none is proven through its whole bake time, the newest that rolled out and never failed. Where what is live
    is in no deployment, the newest known-good one of all.

    Args:
        history: deployments of one app, newest first; a beginning of the history is enough where it has the target.
        live: what runs, None where nothing does.
        quarantined: image tags that were rolled back from, with why.
        missing: image tags that no longer exist.
        now: for how long what is still live has been so.
    """
    skipped: list[Skipped] = []
    eligible: list[Deployment] = []
    for candidate in history:
        if live is not None and live.deployment is not None and candidate.id == live.deployment.id:
            continue
        why_not = _why_not(candidate, live, quarantined, missing)
        if why_not is None:
            eligible.append(candidate)
        else:
            skipped.append(Skipped(candidate.id, candidate.image_tag, why_not))
    chosen = next((candidate for candidate in eligible if candidate.known_good), None)
    if chosen is None and eligible:
        chosen = eligible[0]
    if chosen is None:
        return NoTarget(_why_none(history, live, skipped), tuple(skipped))
    seq = {deployment.id: deployment.seq for deployment in history}
    passed_over = [skip for skip in skipped if seq[skip.deployment_id] > chosen.seq] + [
        Skipped(candidate.id, candidate.image_tag, "it was not proven through its whole bake time")
        for candidate in eligible
        if candidate.seq > chosen.seq
    ]
    passed_over.sort(key=lambda skip: -seq[skip.deployment_id])
    return Target(
        chosen,
        _why(chosen, live),
        chosen.live_for(now),
        tuple(passed_over),
        findings_about(chosen, [older for older in eligible if older.seq < chosen.seq], now),
    )


def _why(chosen: Deployment, live: LiveVersion | None) -> str:
    kind = (
        "the newest known-good deployment"
        if chosen.known_good
        else "none is proven through its whole bake time; this is the newest that rolled out and never failed"
    )
    if live is None:
        return f"{kind} (nothing is live)"
    if live.deployment is None:
        return f"{kind}; what runs ({live.image_tag}) is in no deployment"
    return f"{kind} before the live {live.image_tag}" if chosen.known_good else kind


def _why_none(history: Sequence[Deployment], live: LiveVersion | None, skipped: Sequence[Skipped]) -> str:
    if not history:
        return "there is no deployment in the history"
    if not skipped and live is not None:
        return f"{live.image_tag} is the only deployment there is"
    return "none of the other deployments can be gone back to"


def findings_about(chosen: Deployment, older: Sequence[Deployment], now: datetime) -> tuple[Finding, ...]:
    """What is worth a second look about a target: not proven, or live only briefly after one that was live long."""
    findings = []
    if not chosen.known_good:
        findings.append(
            Finding(
                "target_unproven",
                Level.CAUTION,
                f"{chosen.image_tag} was never healthy through a whole bake time.",
                {"deploymentId": chosen.id},
            )
        )
    live_for = chosen.live_for(now)
    if live_for < SHORT_LIVED:
        steady = next((deployment for deployment in older if deployment.live_for(now) > LONG_LIVED), None)
        if steady is not None:
            briefly, long = (format_duration(of.live_for(now).total_seconds()) for of in (chosen, steady))
            findings.append(
                Finding(
                    "target_short_lived",
                    Level.CAUTION,
                    f"{chosen.image_tag} was live for only {briefly}; {steady.image_tag} before it for {long}: "
                    f"`--to {steady.image_tag}` goes there.",
                    {"deploymentId": steady.id, "imageTag": steady.image_tag},
                )
            )
    return tuple(findings)


def named_target(chosen: Deployment, version: str, live: LiveVersion | None, now: datetime) -> Target:
    """The target that somebody asked for by name."""
    direction = "going back" if goes_back(chosen, live) else "going forward"
    return Target(chosen, f"asked for by name ({version}), {direction}", chosen.live_for(now), (),
                  findings_about(chosen, (), now))  # fmt: skip


def ensured_target(live: Deployment, stopped_image_tag: str, now: datetime) -> Target:
    """What is live stays: the deploy in the way had not rolled out."""
    why = f"the deploy of {stopped_image_tag} had not rolled out and is stopped; what was live before it stays live"
    return Target(live, why, live.live_for(now))


def its_data_target(deployment: Deployment, now: datetime) -> Target:
    """The version that the code alone has gone back to: what is missing is its data."""
    return Target(deployment, "the code has gone back to it, and its data has not", deployment.live_for(now))


def goes_back(target: Deployment, live: LiveVersion | None) -> bool:
    """Whether this is a rollback proper (marks and quarantines what it replaces) and not rolling forward again."""
    return live is None or live.deployment is None or target.origin_seq < live.deployment.origin_seq
