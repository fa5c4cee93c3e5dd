"""Whether a version that failed its bake is rolled back without anybody being asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from norn.domain.targets import NoTarget, Target
from norn.domain.verdict import Level, Verdict


@dataclass(frozen=True, slots=True)
class Automatic:
    """The decision. With a `target` Norn goes back to it by itself; without one it reports, and waits."""

    target: Target | None
    why: str
    verdict: Verdict | None = None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"goes": self.target is not None, "why": self.why}
        if self.target is not None:
            found["imageTag"] = self.target.deployment.image_tag
        if self.verdict is not None:
            found["verdict"] = self.verdict.to_json()
        return found


def decide(
    app: str,
    *,
    enabled: bool,
    healthy_before: bool | None,
    choice: Target | NoTarget,
    verdict: Verdict | None,
) -> Automatic:
    """Go back by itself, unless somebody has said not to, it would not help, or it would not be enough.

    Args:
        enabled: `rollback.auto` of the infraspec.
        healthy_before: whether what was live before was healthy just before it was replaced; None: nobody knows.
        choice: where a rollback would go to.
        verdict: whether going there is enough; None where there is nowhere to go.
    """
    if not enabled:
        return Automatic(None, f"rollback.auto is off: `norn rollback {app}` goes back")
    if healthy_before is False:
        why = "what was live before was not healthy either: it is not the version, but something that both need"
        return Automatic(None, why)
    if isinstance(choice, NoTarget):
        return Automatic(None, f"there is nothing to roll back to: {choice.why}")
    if verdict is not None and verdict.level is Level.UNSAFE:
        first = next(finding for finding in verdict.findings if finding.level is Level.UNSAFE)
        return Automatic(
            None, f"going back to {choice.deployment.image_tag} alone is not enough: {first.message}", verdict
        )
    return Automatic(choice, choice.why, verdict)


def is_automatic(params: Mapping[str, Any]) -> bool:
    """Whether nobody asked for the rollback with these parameters."""
    return bool(params.get("automatic"))
