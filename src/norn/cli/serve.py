"""norn serve: becomes the server"""

from __future__ import annotations

import argparse
import os
import sys

from norn.cli.context import Context


def add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run the server. What it works on when it is stopped, the next one goes on with; apps run on."
    parser.epilog = (
        "examples:\n"
        "  norn serve                                   everything embedded, under NORN_HOME\n"
        "  NORN_DATABASE_URL=postgresql://… norn serve  its state on your PostgreSQL\n"
        "  norn serve --stop-all                        end the server, all local apps and the embedded PostgreSQL"
    )
    parser.add_argument("--stop-all", action="store_true", help="end everything that runs here, and exit")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    sys.stdout.flush()
    arguments = ["--stop-all"] if context.args.stop_all else []
    os.execv(sys.executable, [sys.executable, "-m", "norn.bootstrap", *arguments])
