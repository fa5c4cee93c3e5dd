"""What a rollback of several apps would do: a plan for each, and one verdict on them all."""

from __future__ import annotations

from norn.cli.deployments import reasons
from norn.cli.output import table
from norn.cli.verdicts import findings, ways
from norn.errors import (
    EXIT_BUSY,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NOT_ALLOWED,
    EXIT_NOT_FOUND,
    EXIT_REFUSED,
    EXIT_STILL_RUNNING,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    NornError,
    NothingToRollBackTo,
    UnknownApp,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    Document = Mapping[str, Any]

OUTCOMES = {
    EXIT_FAILED: "failed",
    EXIT_UNREACHABLE: "unreachable",
    EXIT_STILL_RUNNING: "still_running",
    EXIT_NOT_ALLOWED: "not_allowed",
    EXIT_REFUSED: "refused",
    EXIT_BUSY: "busy",
    EXIT_USAGE: "invalid",
    EXIT_NOT_FOUND: "nothing",
}
"""What an exit status means for one app. The most serious comes first: where somebody has to look now, where the end is
not known, and then where nothing was changed."""

_LEVELS = ("unsafe", "caution", "safe")


def exit_of(statuses: Iterable[int]) -> int:
    """The exit status of them all: the most serious one."""
    found = set(statuses)
    return next((status for status in OUTCOMES if status in found), EXIT_DONE)


class Planned:
    """The plan for one app; or the problem because of which there is none, and the app stays as it is."""

    __slots__ = ("app", "left_out", "plan", "problem")

    def __init__(self, app: str, plan: Document | None, problem: NornError | None, *, optional: bool) -> None:
        """`optional`: it was not asked for by name, and where it has nothing to go back to that is no failure."""
        self.app = app
        self.plan = plan
        self.problem = problem
        self.left_out = optional and problem is not None and problem.code in (NothingToRollBackTo.code, UnknownApp.code)

    @property
    def exit(self) -> int:
        return EXIT_DONE if self.problem is None or self.left_out else self.problem.exit_status

    @property
    def outcome(self) -> str:
        if self.problem is not None:
            return "left_out" if self.left_out else OUTCOMES[self.exit]
        return "planned" if self.level else "unchanged"

    @property
    def level(self) -> str:
        """Of its verdict; empty where nothing would be changed."""
        return str(self.plan["verdict"]["level"]) if self.plan is not None and not self.plan["unchanged"] else ""

    def to_json(self) -> dict[str, Any]:
        return {
            "app": self.app,
            "outcome": self.outcome,
            "exit": self.exit,
            "plan": self.plan,
            "error": self.problem.to_json() if self.problem is not None else None,
        }

    def row(self) -> list[object]:
        if self.plan is None:
            return [self.app, None, None, self.outcome, self.problem.message if self.problem is not None else ""]
        what = self.level or self.outcome
        why = self.plan["target"]["why"] if self.level else f"it runs this already, or is on its way ({_state(self)})"
        return [self.app, self.plan["fromImageTag"] or "nothing", self.plan["imageTag"], what, why]


def _state(planned: Planned) -> str:
    assert planned.plan is not None
    return f"{planned.plan['id']}, {planned.plan['status']}" if planned.plan["id"] else "in no deployment"


def verdict_on_all(plans: Sequence[Planned]) -> dict[str, Any]:
    """The worst level of what would be changed, and all findings, the most serious first, each with its `app`.

    The level is None where nothing would be changed.
    """
    found = [
        {"app": planned.app, **finding}
        for planned in plans
        if planned.plan is not None and planned.level
        for finding in planned.plan["verdict"]["findings"]
    ]
    found.sort(key=lambda finding: _LEVELS.index(finding["level"]))
    return {"level": min((planned.level for planned in plans if planned.level), key=_LEVELS.index, default=None),
            "findings": found}  # fmt: skip


def plan_table(plans: Sequence[Planned]) -> list[str]:
    """A line for each app: from, to, and why; then what was passed over."""
    if not plans:
        return ["there is no app"]
    lines = table(["APP", "FROM", "TO", "VERDICT", "WHY"], [planned.row() for planned in plans]).splitlines()
    for planned in plans:
        if planned.plan is not None and planned.level:
            lines += reasons(planned.plan)[1:]  # why it is that target stands in the table
            lines += [f"  would stop {id_}" for id_ in planned.plan.get("stops", ())]
    return lines


def plan_text(plans: Sequence[Planned], verdict: Document) -> str:
    """The whole plan, for who asked for nothing else."""
    return "\n".join([*plan_table(plans), level_line(verdict), *findings(verdict), *ways(verdict)])


def level_line(verdict: Document) -> str:
    """The verdict on all of them in a line."""
    return f"verdict: {verdict['level']}" if verdict["level"] else "nothing is to be changed"
