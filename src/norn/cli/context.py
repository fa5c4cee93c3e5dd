"""What every command gets: settings, a client, and how to print."""

from __future__ import annotations

import argparse
import os
import pwd
from functools import cached_property

from norn.cli.output import Printer
from norn.cli.transport import Client
from norn.config import Settings, load_settings


class Context:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.printer = Printer(args.output, quiet=args.quiet)

    @cached_property
    def settings(self) -> Settings:
        return load_settings()

    @cached_property
    def client(self) -> Client:
        url = self.args.url or self.settings.url
        return Client(url, self.args.token or self._token(), _actor())

    def _token(self) -> str | None:
        if self.settings.token:
            return self.settings.token
        try:
            return self.settings.token_file.read_text(encoding="ascii").strip()
        except OSError:
            return None  # the server's answer says what is missing


def _actor() -> str:
    """Who is at the keyboard, for the history: the user behind sudo, too."""
    try:
        name = os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return "".join(letter for letter in name if "!" <= letter <= "~")[:64] or "unknown"
