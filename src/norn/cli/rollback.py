"""norn rollback"""

from __future__ import annotations

import argparse
import sys

from norn.cli.context import Context
from norn.cli.deployments import announce, outcome, reasons, show_plan
from norn.cli.transport import Problem, quote
from norn.errors import EXIT_DONE, Invalid, StillRunning, Unsafe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ACCEPT_WAIT_S = 60
"""With --no-wait: how long the server may take to have the change accepted by the runtime."""


def add_rollback(parser: argparse.ArgumentParser) -> None:
    parser.description = "Change the image back to the last known-good one, or to a version; that alone, at once."
    parser.epilog = (
        "examples:\n"
        "  norn rollback myapp                    to the newest known-good deployment before what is live\n"
        "  norn rollback myapp --dry-run          only say what would be done, and whether it is enough\n"
        "  norn rollback myapp --to myapp:3f2a91c to any version in `norn history myapp`, newer ones too\n"
        "  norn rollback myapp --further          further back than the rollback that has just run\n"
        "  norn rollback myapp --reason 'checkout answers 500'\n"
        "  norn rollback myapp --restore-snapshot with the data as that version left it; asks first\n"
        "  norn rollback myapp --direct           while Norn itself is down: a kubeconfig is enough\n"
        "  norn rollback shop pay mail            several at once: one plan and verdict for all, then all in parallel\n"
        "  norn rollback --all --dry-run          every app that can be rolled back\n\n"
        "several apps: --further, --template, --resume, --force, --reason, --no-wait, --timeout hold for each;\n"
        "--to, --from, --restore-snapshot and --direct are for a single one. The exit status is the most serious one,\n"
        "in this order: 1 failed, 7 unreachable, 6 still running, 8 not allowed, 4 refused, 5 busy, 2, 3 nothing there."
    )
    parser.add_argument("apps", metavar="APP", nargs="*", help="one or several; where one of several is unsafe, none")
    parser.add_argument("--all", action="store_true", help="every app that has something to be rolled back to")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--to", metavar="V", help="an image tag, a unique prefix of a commit, or a deployment id")
    which.add_argument("--further", action="store_true", help="further back than a rollback that still runs or bakes")
    parser.add_argument("--from", dest="from_", metavar="ID", help="only if this deployment is live, as you saw it")
    parser.add_argument("--reason", default="", help="why, for the history")
    parser.add_argument("--dry-run", action="store_true", help="change nothing; exits as the real run would")
    parser.add_argument("--force", action="store_true", help="go on although the verdict is unsafe")
    parser.add_argument("--template", action="store_true", help="restore the target's whole template, too")
    parser.add_argument("--resume", action="store_true", help="let rollouts that somebody has paused go on with this")
    parser.add_argument(
        "--restore-snapshot", action="store_true", help="bring the data back as well, as the version left it"
    )
    parser.add_argument("--yes", action="store_true", help="with --restore-snapshot: yes to what would be lost")
    parser.add_argument(
        "--affects", metavar="APP", action="append", default=[], help="another app on the database goes back with it"
    )
    parser.add_argument("--no-wait", action="store_true", help="return once the runtime has accepted the change")
    parser.add_argument("--timeout", help="wait no longer than this (90s, 5m); it goes on, exit 6")
    parser.add_argument("--direct", action="store_true", help="without a server: a kubeconfig is enough")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    args = context.args
    if args.all or len(args.apps) != 1:
        from norn.cli import group_rollback

        return group_rollback.run(context)
    (app,) = args.apps
    if args.direct:
        return _direct(context, app)
    body: dict[str, Any] = {
        "reason": args.reason,
        "force": args.force,
        "dryRun": args.dry_run,
        "further": args.further,
        "template": args.template,
        "resume": args.resume,
    }
    if args.restore_snapshot:
        if not args.dry_run and not args.no_wait:
            from norn.cli.confirming import make_sure_somebody_answers

            make_sure_somebody_answers(context)
        body |= {"restoreSnapshot": True, "affects": args.affects, "confirm": args.yes}
    if args.to is not None:
        body["imageTag"] = args.to
    if args.from_ is not None:
        body["from"] = args.from_
    reply = _request(context, app, body)
    if args.dry_run:
        context.printer.result(reply, lambda: show_plan(reply))
        return EXIT_DONE
    announce(context, reply)
    if args.restore_snapshot and not args.no_wait:
        from norn.cli.confirming import see_rollback_with_data

        return see_rollback_with_data(context, reply["id"], unchanged=reply["unchanged"])
    if args.no_wait:
        if not reply.get("accepted", True) and reply["status"] not in ("failed", "cancelled"):
            raise not_accepted_yet(reply)
        return outcome(context, reply)
    if not reply.get("committed", True) and reply["status"] not in ("failed", "cancelled"):
        from norn.cli.follow import follow

        follow(context, reply["id"], lambda operation: bool(operation["committed"]), args.timeout)
        unchanged = reply["unchanged"]
        reply = context.client.get(f"/api/deployments/{reply['id']}") | {"unchanged": unchanged}
    return outcome(context, reply)


def not_accepted_yet(deployment: Mapping[str, Any]) -> StillRunning:
    """The error for --no-wait where even that would take longer."""
    return StillRunning(
        f"The runtime has not accepted the change within {ACCEPT_WAIT_S} s; it goes on.",
        hint=f"`norn watch {deployment['id']}` follows it.",
        operationId=deployment["id"],
    )


def _direct(context: Context, app: str) -> int:
    """Become the process that goes to the cluster itself: it has nothing in common with the way through a server."""
    import os

    args = context.args
    if (
        args.to is not None
        or args.further
        or args.template
        or args.no_wait
        or args.from_ is not None
        or args.restore_snapshot
    ):
        raise Invalid(
            "--direct goes to the version that is noted on the Kubernetes Deployment, and waits for it; --to, --from, "
            "--further, --template, --restore-snapshot and --no-wait want a server.",
            hint=f"`kubectl set image deployment/{app} CONTAINER=IMAGE` sets any image.",
        )
    words = [f"--direct={app}", f"--reason={args.reason}"]
    words += [f"--{name.replace('_', '-')}" for name in ("resume", "dry_run", "quiet") if getattr(args, name)]
    if args.timeout:
        from norn.cli.follow import seconds

        words.append(f"--timeout={seconds(args.timeout)}")
    words.append(f"--output={context.printer.format}")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "norn.bootstrap", *words])


def _request(context: Context, app: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask; where the verdict is unsafe and somebody is there, show why and ask them."""
    path = f"/api/apps/{quote(app)}/rollback"
    headers = {"Prefer": f"wait={ACCEPT_WAIT_S}"} if context.args.no_wait else {}
    try:
        reply: dict[str, Any] = context.client.request("POST", path, body, headers)
    except Problem as problem:
        if problem.code != Unsafe.code or context.args.dry_run or not context.printer.interactive:
            raise
        for line in reasons(problem.facts):
            context.printer.progress(line)
        if not goes_on_all_the_same(problem.facts.pop("verdict", None)):
            raise  # the reasons are on the screen already
        reply = context.client.request("POST", path, body | {"force": True}, headers)
    return reply


def goes_on_all_the_same(verdict: Mapping[str, Any] | None) -> bool:
    """Show at the terminal why a verdict is unsafe, and what whoever sits there says to that."""
    from norn.cli.verdicts import findings, ways

    print("\n".join([*findings(verdict), *ways(verdict)]), file=sys.stderr)
    print("This is not enough, or would do harm. Go on all the same? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
