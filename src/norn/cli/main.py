"""The entry point: finds the command's module, imports that alone, and turns errors into exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from norn.cli.context import Context
from norn.errors import EXIT_FAILED, EXIT_USAGE, NornError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


class Command:
    __slots__ = ("module", "summary")

    def __init__(self, module: str, summary: str) -> None:
        self.module = module
        self.summary = summary


COMMANDS = {
    "serve": Command("serve", "run the server; embedded PostgreSQL unless NORN_DATABASE_URL is set"),
    "demo": Command("demo", "deploy a sample app three times, the third one broken, and roll back"),
    "validate": Command("validate", "check infraspecs, without a server"),
    "apps": Command("apps", "what there is"),
    "status": Command("apps", "what is live, healthy, being done; could it be rolled back now, and to what"),
    "deploy": Command("deploy", "deploy a commit"),
    "rollback": Command("rollback", "change the image back to the last known-good one, or to a version"),
    "history": Command("history", "deployments of an app"),
    "artifacts": Command("history", "images kept of an app"),
    "snapshots": Command("snapshots", "list, take and restore snapshots of an app's database"),
    "prune": Command("snapshots", "let go of images, snapshots and former databases that retention does not keep"),
    "adopt": Command("deploy", "take over a Kubernetes Deployment that somebody else has made"),
    "restart": Command("operations", "replace an app's processes by new ones of the same image"),
    "logs": Command("operations", "what an app prints"),
    "confirm": Command("operations", "say yes to what an operation asks"),
    "cancel": Command("operations", "stop an operation"),
    "watch": Command("operations", "follow events"),
    "quarantine": Command("quarantine", "images that were rolled back from: list them, let one be deployed again"),
    "secrets": Command("secrets", "set, unset or list an app's secrets"),
    "audit": Command("audit", "who did what, from where and why, and what was refused"),
    "notifications": Command("notifications", "what others were told, what has not arrived; the key to verify it with"),
    "token": Command("token", "who has access: make, list and revoke tokens"),
    "doctor": Command("doctor", "what is missing or wrong here, and the mend"),
    "version": Command("about", "the version"),
    "completion": Command("about", "a completion script for bash, zsh or fish"),
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal. argparse would ask shutil, with all that imports, and for every argument."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_terminal_width())


def _terminal_width() -> int:
    if (columns := os.environ.get("COLUMNS", "")).isdecimal():
        return max(int(columns) - 2, 40)
    try:
        return max(os.get_terminal_size().columns - 2, 40)
    except OSError:
        return 78


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"error: {message}\nhint: `{self.prog} --help` has examples.\n")


def _common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("common options")
    group.add_argument(
        "-o", "--output", choices=("text", "json", "yaml"), help="default: text on a terminal, else json"
    )
    group.add_argument("--url", help="the server (default: NORN_URL, http://127.0.0.1:8800)")
    group.add_argument("--token", help="the token (default: NORN_TOKEN, or the file admin-token in NORN_HOME)")
    group.add_argument("--ca", metavar="FILE", help="https: the authorities to trust (default: NORN_CA, the system's)")
    group.add_argument("--quiet", action="store_true", help="no progress on standard error")


def overview() -> str:
    """What `norn --help` prints."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name.ljust(width)}  {command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: norn COMMAND …\n\n"
        "Deploys apps, and gets them back when a deployment goes wrong.\n\n"
        f"commands:\n{commands}\n\n`norn COMMAND --help` has examples.\n\n"
        "exit status: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 busy, 6 still running, "
        "7 unreachable, 8 not allowed"
    )


def parser_for(name: str) -> argparse.ArgumentParser:
    """The parser of one command; its defaults hold `run`, a function from Context to exit status."""
    module = import_module(f"norn.cli.{COMMANDS[name].module}")
    parser = _Parser(prog=f"norn {name}", formatter_class=_Help, allow_abbrev=False)
    getattr(module, f"add_{name}")(parser)
    _common(parser)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command that exists; options may stand before, between and after the names."""
    return parser_for(argv[0]).parse_intermixed_args(argv[1:])


def main(argv: Sequence[str]) -> int:
    """Run one command; the exit status of the contract."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if argv else EXIT_USAGE
    name = {"--version": "version"}.get(argv[0], argv[0])
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"Did you mean `norn {near[0]}`?" if near else "`norn --help` lists the commands."
        print(f"error: there is no command {name!r}.\nhint: {hint}", file=sys.stderr)
        return EXIT_USAGE
    args = parse([name, *argv[1:]])
    context = Context(args)
    try:
        status: int = args.run(context)
        return status
    except NornError as error:
        context.printer.error(error)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted; what was accepted goes on: `norn status` shows it", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever reads has gone
        return EXIT_FAILED


def run() -> NoReturn:
    """The command `norn`. Nothing is left to be tidied up at its end, and Python would take its time over it."""
    status = main(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # whoever reads has gone
        os._exit(status or EXIT_FAILED)
    os._exit(status)
