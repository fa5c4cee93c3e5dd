"""What every command gets: settings, a client, and how to print."""

from __future__ import annotations

import argparse
import os
import pwd
from functools import cached_property

from norn.cli.output import Printer
from norn.cli.transport import Client
from norn.environment import Environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from norn.config import Settings


class Context:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.printer = Printer(args.output, quiet=args.quiet)

    @cached_property
    def settings(self) -> Settings:
        """All of them; a command that only talks to the server does without."""
        from norn.config import load_settings

        return load_settings()

    @cached_property
    def client(self) -> Client:
        environment = Environment()
        # Where there is no token, the server's answer says what is missing.
        url, token = self.args.url or environment.url, self.args.token or environment.token
        return Client(url, token, _actor(), self.args.ca or environment.ca)


def _actor() -> str:
    """Who is at the keyboard, for the history: the user behind sudo, too."""
    try:
        name = os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    if name.lower() == "norn":  # what Norn does by itself has this name in the history
        name = f"{name}@{os.uname().nodename}"
    return "".join(letter for letter in name if "!" <= letter <= "~")[:64] or "unknown"
