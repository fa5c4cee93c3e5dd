"""norn secrets set|unset|list"""

from __future__ import annotations

import argparse
import sys

from norn.cli.context import Context
from norn.cli.transport import quote
from norn.errors import Invalid


def add_secrets(parser: argparse.ArgumentParser) -> None:
    parser.description = "An app's secrets. Values come from standard input and are never shown again."
    parser.epilog = (
        "examples:\n"
        "  norn secrets set myapp SMTP_KEY < key.txt\n"
        "  norn secrets set myapp SMTP_KEY          asks for it, unseen\n"
        "  norn secrets list myapp\n"
        "  norn restart myapp                       processes get new values when they start"
    )
    parser.add_argument("action", choices=("set", "unset", "list"))
    parser.add_argument("app")
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    args = context.args
    path = f"/api/apps/{quote(args.app)}/secrets"
    if args.action == "list":
        document = context.client.get(path)
        context.printer.result(document, lambda: "\n".join(document["secrets"]) or "no secrets")
        return 0
    if not args.name:
        raise Invalid(f"`norn secrets {args.action}` wants a NAME.", hint="As in `secrets` of the infraspec.")
    if args.action == "set":
        context.client.request("PUT", f"{path}/{quote(args.name)}", {"value": _value(args.name)})
        context.printer.progress(f"{args.name} is set; `norn restart {args.app}` gives it to what runs")
    else:
        context.client.request("DELETE", f"{path}/{quote(args.name)}")
        context.printer.progress(f"{args.name} is unset")
    return 0


def _value(name: str) -> str:
    """The value: typed unseen on a terminal, else standard input without the newline at its end."""
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"{name}: ")
    value = sys.stdin.buffer.read()
    try:
        return value.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise Invalid("The value is not UTF-8.", hint="Encode it, with base64 for example.") from error
