"""What about the way an app runs in a cluster is worth knowing before its image is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from norn.domain.verdict import Finding, Level, Way, not_checked

_REVERTING = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "fleet-agent": "Fleet",
}
"""Field managers that set everything back to what a repository says, within seconds or minutes."""
_NAMED = 5
_ROLE = Way("Gives Norn the right to list them.", "kubectl apply -f deploy/kubernetes/rbac.yaml")
_LABELS = {
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}


def findings(
    app: str,
    *,
    managers: Sequence[str],
    labels: Mapping[str, str],
    replicas: int,
    left_behind: Sequence[str] = (),
    forbidden: Sequence[str] = (),
    unseen: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Cautions: another tool that would revert a rollback; nothing that runs at all; others on the same image.

    `left_behind` is what runs the app's image as well, a worker beside the web server, say, or what is scheduled, as
    kubectl takes it: `cronjob/nightly`. `forbidden` are the kinds of that which Norn may not list, `unseen` those of
    which the cluster has not told.
    """
    found = []
    tools = {_REVERTING[manager] for manager in managers if manager in _REVERTING}
    tools |= {tool for label, tool in _LABELS.items() if label in labels}
    if tools:
        tool = " and ".join(sorted(tools))
        found.append(
            Finding(
                "managed_elsewhere",
                Level.CAUTION,
                f"{tool} looks after {app}, too, and may set the image forward again: pause it there, or revert there.",
                {"tools": sorted(tools)},
            )
        )
    if replicas == 0:
        found.append(
            Finding(
                "no_replicas",
                Level.CAUTION,
                f"{app} is scaled to 0 replicas: the image is changed, and nothing runs until it is scaled up.",
            )
        )
    if left_behind:
        more = len(left_behind) - _NAMED
        names = ", ".join(left_behind[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        found.append(
            Finding(
                "left_behind",
                Level.CAUTION,
                f"More than {app} runs its image, and stays on it: {names}. "
                "Take that back as well where it belongs together.",
                {"workloads": list(left_behind)},
            )
        )
    part = "what else runs its image"
    if forbidden:
        found.append(not_checked(part, f"Norn may not list {_each(forbidden)}", _ROLE))
    if unseen:
        found.append(not_checked(part, f"the API server has not told of {_each(unseen)}"))
    return tuple(found)


def _each(kinds: Sequence[str]) -> str:
    """`statefulsets and cronjobs`"""
    return " and ".join(f"{kind}s" for kind in kinds)
