"""What an app is told when it starts, and how it is run: as it is, and as it will be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from norn.domain.configuration import Digests, digests, template_finding
from norn.domain.deployments import Deployment
from norn.domain.infraspec import Infraspec
from norn.domain.targets import Question
from norn.domain.verdict import Finding, not_checked
from norn.operations import rollouts
from norn.operations.services import Services

_ENTRIES = 500
_SPEC_FIELDS = ("role", "replicas", "port", "healthcheck", "hosts", "secrets", "postgres")


async def infraspec_of(services: Services, deployment: Deployment) -> Infraspec | None:
    """As the deployment's commit has it; None where that is not known."""
    if not deployment.commit_sha:
        return None
    app = await services.source.app(deployment.app)
    return await services.source.infraspec(app, deployment.commit_sha)


async def configuration_of(services: Services, app: str, spec: Infraspec | None) -> Digests:
    """Keyed hashes of what the live processes are told, as far as Norn may read it.

    Raises RuntimeUnavailable and the like.
    """
    texts = dict(await services.runtime.configuration(app))
    if spec is not None:
        texts |= {f"infraspec {name}": repr(getattr(spec, name)) for name in _SPEC_FIELDS}
        if spec.postgres is not None and spec.postgres.url is not None:  # it is no part of its repr
            texts["infraspec postgres url"] = spec.postgres.url
    return digests(texts, await services.store.installation_key())


async def secrets_set(services: Services, app: str, since: datetime) -> Sequence[str]:
    """The names of those that Norn has set or removed, as it has written it down."""
    names: set[str] = set()
    before: int | None = None
    while entries := await services.store.audit.entries([app], before, _ENTRIES):
        names |= {
            recorded.entry.subject
            for recorded in entries
            if recorded.at > since and recorded.entry.action in ("secret.set", "secret.unset")
        }
        before = entries[-1].seq
        if entries[-1].at <= since:
            break
    return sorted(names)


async def shape_findings(services: Services, question: Question) -> Sequence[Finding]:
    """Whether the target's image fits the way in which what is live is run, or what is about to be."""
    known = question.live.deployment if question.live is not None else None
    if question.template:
        return ()
    if question.foreseen:
        return _foreseen(services, question.target, known)
    workload = await services.runtime.workload(question.app)
    now = services.runtime.shape(workload, rollouts.template_of(known.template if known is not None else None))
    target = question.target
    then = services.runtime.shape(target.workload or {}, rollouts.template_of(target.template))
    if not then or (workload and not target.workload):
        return (not_checked("the way it is run", f"nothing was noted of how {target.image_tag} was run"),)
    if not workload and (target.workload or not now):
        return (not_checked("the way it is run", "nothing is known of how what is live is run"),)
    finding = template_finding(then, now, question.app, target.image_tag)
    return (finding,) if finding is not None else ()


def _foreseen(services: Services, target: Deployment, new: Deployment | None) -> Sequence[Finding]:
    """By what both infraspecs declare: of what has not run yet there is nothing else."""
    sides = (rollouts.template_of(one.template if one is not None else None) for one in (target, new))
    then, now = (services.runtime.shape({}, side) for side in sides)
    finding = template_finding(then, now, target.app, target.image_tag) if then and now else None
    return (finding,) if finding is not None else ()
