"""What others answer that a target needs: somebody else's outage is a caution, never more."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from norn.domain.ports.dependencies import DependencyAnswer
from norn.domain.verdict import Finding, Level, Way


def _place(url: str) -> str:
    """Without user, password, query: they may be secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def dependency_findings(answers: Sequence[DependencyAnswer], image_tag: str) -> tuple[Finding, ...]:
    """A caution for each that does not answer as the target's infraspec expects."""
    return tuple(
        Finding(
            "dependency",
            Level.CAUTION,
            f"{image_tag} needs {answer.dependency.name}, which "
            + (f"answers {answer.status} and not {answer.dependency.expect}" if answer.status is not None
               else f"gives no answer: {answer.why}")
            + f" ({_place(answer.dependency.url)}).",
            {"name": answer.dependency.name, "status": answer.status, "expected": answer.dependency.expect},
            (Way("Wait until it answers, or go: it is somebody else's outage."),),
        )
        for answer in answers
        if not answer.as_expected
    )  # fmt: skip
