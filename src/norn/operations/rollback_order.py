"""A rollback as it is written down when it is accepted: its parameters, its deployment, and what its steps know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from norn.domain import targets
from norn.domain.deployments import Deployment
from norn.domain.targets import LiveVersion, Target
from norn.domain.verdict import Verdict


@dataclass(frozen=True, slots=True)
class RollbackOrder:
    """Where to, from where, and why that is all right."""

    target: Target
    live: LiveVersion | None
    verdict: Verdict
    requested_by: str
    reason: str
    whole_template: bool = False
    """The target's template comes back as well, and not its image alone."""

    @property
    def template(self) -> Mapping[str, Any] | None:
        known = self.live.deployment if self.live else None
        return self.target.deployment.template if self.whole_template or known is None else known.template

    def columns(self, target_json: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Of its deployment; the target as JSON may say more than the target itself."""
        to, live = self.target.deployment, self.live
        known = live.deployment if live else None
        return {
            "kind": "rollback",
            "image_tag": to.image_tag,
            "digest": to.digest,
            "commit_sha": to.commit_sha,
            "commit_subject": to.commit_subject,
            "origin_seq": to.origin_seq,
            "from_deployment_id": known.id if known else None,
            "from_image_tag": live.image_tag if live else None,
            "target_deployment_id": to.id,
            "template": self.template,
            "target": target_json or self.target.to_json(),
            "verdict": self.verdict.to_json(),
            "requested_by": self.requested_by,
            "reason": self.reason,
        }


def params_of(
    target: Deployment,
    *,
    ensure: bool = False,
    explicit: bool = False,
    template: bool = False,
    resume: bool = False,
    force: bool = False,
    automatic: bool = False,
    stops: bool = False,
) -> dict[str, Any]:
    """The parameters of a rollback's operation. `stops`: something was in its way, and has been stopped for it."""
    said = {"targetId": target.id, "ensure": ensure, "explicit": explicit, "template": template, "resume": resume,
            "force": force}  # fmt: skip
    return said | ({"automatic": True} if automatic else {}) | ({"stops": True} if stops else {})


def prepared(
    target: Deployment,
    template: Mapping[str, Any] | None,
    live: LiveVersion | None,
    previous: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the steps of a rollback have to know, so that they need to ask nobody; as JSON."""
    known = live.deployment if live else None
    return {
        "previous": previous,
        "ensured": live is not None and live.digest == target.digest,
        "goesBack": targets.goes_back(target, live),
        "replaces": known.id if known else None,
        "change": {
            "imageTag": target.image_tag,
            "digest": target.digest,
            "commitSha": target.commit_sha,
            "workload": dict(target.workload) if target.workload else None,
            "template": dict(template) if template else None,
        },
    }


def prepared_text(target: Deployment, live: LiveVersion | None, why: str) -> str:
    """What the first step of a rollback prints."""
    return f"from {live.image_tag if live else 'nothing'} to {target.image_tag}\n{why}\n"
