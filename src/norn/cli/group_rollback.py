"""norn rollback APP APP …, norn rollback --all: one plan and one verdict first, then all of them in parallel.

Nobody is rolled back from what was not in the plan: each request says from where (`from`), and no more than that, so
that it joins a rollback that somebody else has begun meanwhile, and is refused where that one has ended.
"""

from __future__ import annotations

import sys
import time

from norn.cli.context import Context
from norn.cli.deployments import explain, has_failed
from norn.cli.follow import follow, seconds
from norn.cli.group_plan import OUTCOMES, Planned, exit_of, level_line, plan_table, plan_text, verdict_on_all
from norn.cli.output import table
from norn.cli.rollback import ACCEPT_WAIT_S, goes_on_all_the_same, not_accepted_yet
from norn.cli.side_by_side import contexts, side_by_side
from norn.cli.transport import quote
from norn.cli.verdicts import findings
from norn.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NOT_ALLOWED,
    Invalid,
    NornError,
    ServerUnreachable,
    StillRunning,
    UnknownApp,
    Unsafe,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    Document = Mapping[str, Any]

_FOR_ONE_APP = ("to", "from_", "restore_snapshot", "yes", "affects", "direct")


def run(context: Context) -> int:
    """Plan, show it, ask where it is unsafe, do it, and sum it up; the most serious exit status of all apps."""
    args = context.args
    _refuse_wrong_usage(context)
    apps = list(dict.fromkeys(args.apps))
    if args.all:
        apps = [app["name"] for app in context.client.get("/api/apps")["apps"]]
    group = _Group(context, apps)
    plans = side_by_side(group.plan, apps)
    _refuse_as_a_whole(plans)
    verdict = verdict_on_all(plans)
    unsafe = [planned.app for planned in plans if planned.level == "unsafe"]
    if unsafe and not args.force:
        print("\n".join(plan_table(plans)), file=sys.stderr)
        if args.dry_run or not context.printer.interactive or not goes_on_all_the_same(verdict):
            raise _unsafe(plans, verdict, unsafe)
    elif args.dry_run:
        document = {"verdict": verdict, "apps": [planned.to_json() for planned in plans]}
        context.printer.result(document, lambda: plan_text(plans, verdict))
        return exit_of(planned.exit for planned in plans)
    else:
        for line in (*plan_table(plans), level_line(verdict)):
            context.printer.progress(line)
        for line in findings(verdict, harmless=False):
            context.printer.progress(line, "yellow")
    outcomes = group.carry_out(plans, unsafe)
    document = {"apps": [outcome.to_json() for outcome in outcomes]}
    context.printer.result(document, lambda: _summary(outcomes))
    for outcome in outcomes:
        outcome.explain(context)
    return exit_of(outcome.exit for outcome in outcomes)


# ---- what stops all of it --------------------------------------------------------------------------------------------


def _refuse_wrong_usage(context: Context) -> None:
    args = context.args
    hint = "`norn rollback --help` has examples."
    if args.all and args.apps:
        raise Invalid("--all means every app: it goes without names.", hint=hint)
    if not args.all and not args.apps:
        raise Invalid("Which app? Name one or several, or --all.", hint=hint)
    given = [f"--{name.strip('_').replace('_', '-')}" for name in _FOR_ONE_APP
             if getattr(args, name) not in (None, False, [])]  # fmt: skip
    if given:
        raise Invalid(f"{' and '.join(given)} can be said of a single app only.", hint=hint)
    if args.timeout:
        seconds(args.timeout)


def _refuse_as_a_whole(plans: Sequence[Planned]) -> None:
    """Nothing is done where no server answers, or none that lets us in, and where a name is wrong."""
    problems = [planned.problem for planned in plans if planned.problem is not None]
    if problems and len(problems) == len(plans) and all(_is_about_the_server(problem) for problem in problems):
        raise problems[0]
    unknown = [planned.problem for planned in plans if planned.problem is not None and not planned.left_out
               and planned.problem.code == UnknownApp.code]  # fmt: skip
    if unknown:
        message = " ".join(problem.message for problem in unknown)
        candidates = [name for problem in unknown for name in problem.facts.get("candidates", ())]
        raise UnknownApp(f"{message} Nothing was changed.", hint=unknown[0].hint, candidates=candidates)


def _is_about_the_server(problem: NornError) -> bool:
    return problem.code == ServerUnreachable.code or problem.exit_status == EXIT_NOT_ALLOWED


def _unsafe(plans: Sequence[Planned], verdict: Document, unsafe: Sequence[str]) -> Unsafe:
    return Unsafe(
        f"Going back is not enough, or would do harm, for {', '.join(unsafe)}. Nothing was changed.",
        hint=f"--force goes on all the same; or leave {', '.join(unsafe)} out.",
        verdict=verdict,
        apps=[planned.to_json() for planned in plans],
    )


# ---- doing it --------------------------------------------------------------------------------------------------------


class _Outcome:
    """How it went for one app, as far as is known."""

    def __init__(self, planned: Planned) -> None:
        self.planned = planned
        plan = planned.plan
        self.deployment = plan if plan is not None and plan["id"] else None
        """The rollback; where nothing is changed, the one that has it so already."""
        self.unchanged = planned.outcome == "unchanged"
        self.error = planned.problem
        self.begun = self.ended = time.monotonic()

    @property
    def exit(self) -> int:
        if self.planned.problem is not None:
            return self.planned.exit
        if self.error is not None:
            return self.error.exit_status
        return EXIT_FAILED if self.deployment is not None and has_failed(self.deployment) else EXIT_DONE

    @property
    def outcome(self) -> str:
        if self.planned.problem is not None:
            return self.planned.outcome
        if self.exit != EXIT_DONE:
            return OUTCOMES[self.exit]
        if self.unchanged:
            return "unchanged"
        return "done" if self.deployment is not None and self.deployment.get("committed", True) else "accepted"

    def to_json(self) -> dict[str, Any]:
        now = self.deployment or self.planned.plan or {}
        return {
            "app": self.planned.app,
            "outcome": self.outcome,
            "exit": self.exit,
            "fromImageTag": now.get("fromImageTag"),
            "imageTag": now.get("imageTag"),
            "durationMs": self._duration_ms(),
            "deployment": dict(self.deployment) | {"unchanged": self.unchanged} if self.deployment else None,
            "error": self.error.to_json() if self.error is not None else (self.deployment or {}).get("error"),
        }

    def _duration_ms(self) -> int | None:
        """By the server's clock where it knows: one that was looked at late was not slow."""
        if self.deployment is None or self.unchanged:
            return None
        end = self.deployment.get("rolledOutAt") or self.deployment.get("finishedAt")
        if not end:
            return round((self.ended - self.begun) * 1_000)
        from datetime import datetime

        took = datetime.fromisoformat(end) - datetime.fromisoformat(self.deployment["requestedAt"])
        return round(took.total_seconds() * 1_000)

    def explain(self, context: Context) -> None:
        """On standard error, where it has failed: why, and what helps."""
        if self.exit == EXIT_DONE:
            return
        print(f"── {self.planned.app}", file=sys.stderr)
        if self.error is not None:
            context.printer.explain(self.error)
        elif self.deployment is not None:
            explain(self.deployment)


def _summary(outcomes: Sequence[_Outcome]) -> str:
    rows = []
    for each in (outcome.to_json() for outcome in outcomes):
        ms, error = each["durationMs"], each["error"] or {}
        took = f"{ms / 1_000:.1f}" if ms is not None else None
        message = str(error.get("message", "")).partition("\n")[0]
        rows.append([each["app"], each["fromImageTag"], each["imageTag"], each["outcome"], took, message])
    return table(["APP", "FROM", "TO", "OUTCOME", "SECONDS", "ERROR"], rows) if rows else "there is no app"


class _Group:
    """Talks to the server on behalf of each app, side by side."""

    def __init__(self, context: Context, apps: Sequence[str]) -> None:
        self._args = context.args
        self._contexts = contexts(context, apps)
        self._asked: dict[str, Any] = {
            "reason": self._args.reason,
            "further": self._args.further,
            "template": self._args.template,
            "resume": self._args.resume,
        }

    def plan(self, app: str) -> Planned:
        """With `force`, so that the whole plan comes with an unsafe verdict, too; it is judged here."""
        try:
            plan = self._post(app, {"dryRun": True, "force": True})
        except NornError as problem:
            return Planned(app, None, problem, optional=self._args.all)
        return Planned(app, plan, None, optional=self._args.all)

    def carry_out(self, plans: Sequence[Planned], forced: Collection[str]) -> list[_Outcome]:
        """First all are asked for, so that none waits for another one's rollout; then each is followed to its end."""
        since = time.monotonic()
        outcomes = side_by_side(lambda planned: self._begin(planned, forced), plans)
        side_by_side(lambda outcome: self._see_through(outcome, since), outcomes)
        return outcomes

    def _post(self, app: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        path = f"/api/apps/{quote(app)}/rollback"
        reply: dict[str, Any] = self._contexts[app].client.request("POST", path, {**self._asked, **body}, headers)
        return reply

    def _begin(self, planned: Planned, forced: Collection[str]) -> _Outcome:
        outcome = _Outcome(planned)
        if planned.plan is None or outcome.unchanged:
            return outcome
        body: dict[str, Any] = {"force": self._args.force or planned.app in forced}
        if planned.plan["fromDeploymentId"] is not None:
            body["from"] = planned.plan["fromDeploymentId"]
        else:  # what runs is in no deployment: then it can at least not go further than was shown
            body["imageTag"] = planned.plan["target"]["deploymentId"]
        headers = {"Prefer": f"wait={ACCEPT_WAIT_S}"} if self._args.no_wait else None
        try:
            reply = self._post(planned.app, body, headers)
        except NornError as problem:
            outcome.error = problem
            return outcome
        outcome.deployment, outcome.unchanged = reply, reply["unchanged"]
        self._say_what_has_begun(planned.app, planned.plan, reply)
        return outcome

    def _say_what_has_begun(self, app: str, plan: Document, reply: Document) -> None:
        printer = self._contexts[app].printer
        what = "joins" if reply["unchanged"] else "from"
        printer.progress(f"{what} {reply['fromImageTag'] or 'nothing'} to {reply['imageTag']}  {reply['id']}")
        if reply["imageTag"] != plan["imageTag"]:
            printer.progress(f"not to {plan['imageTag']}, as planned: {reply['target']['why']}", "yellow")

    def _see_through(self, outcome: _Outcome, since: float) -> None:
        reply = outcome.deployment
        if reply is None or outcome.error is not None or reply.get("committed", True) or has_failed(reply):
            return
        if self._args.no_wait:
            if not reply.get("accepted", True) and not outcome.unchanged:
                outcome.error = not_accepted_yet(reply)
            return
        try:
            outcome.deployment, outcome.error = self._followed(outcome.planned.app, reply["id"], since)
        except NornError as error:
            outcome.error = error
        outcome.ended = time.monotonic()

    def _followed(self, app: str, operation_id: str, since: float) -> tuple[Document, StillRunning | None]:
        """The deployment when it is live or has failed, or when the time is over."""
        own, late = self._contexts[app], None
        try:
            follow(own, operation_id, lambda found: bool(found["committed"]), self._args.timeout, since=since)
        except StillRunning as error:
            late = error
        deployment: Document = own.client.get(f"/api/deployments/{operation_id}")
        # With many apps the time may be over before this one was looked at, though it has long been there.
        return deployment, None if deployment["committed"] or has_failed(deployment) else late
