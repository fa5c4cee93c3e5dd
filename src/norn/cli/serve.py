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
        "  norn serve --tls-cert FILE --tls-key FILE    for other machines, with NORN_LISTEN=0.0.0.0:8800\n"
        "  norn serve --stop-all                        end the server, all local apps and the embedded PostgreSQL"
    )
    parser.add_argument("--stop-all", action="store_true", help="end everything that runs here, and exit")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate in PEM, with those that lead to its authority")
    parser.add_argument("--tls-key", metavar="FILE", help="its key in PEM")
    parser.add_argument("--insecure", action="store_true", help="listen for other machines without TLS")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    args = context.args
    given = {"NORN_TLS_CERT": args.tls_cert, "NORN_TLS_KEY": args.tls_key, "NORN_INSECURE": args.insecure and "1"}
    os.environ.update({name: value for name, value in given.items() if value})
    sys.stdout.flush()
    arguments = ["--stop-all"] if args.stop_all else []
    os.execv(sys.executable, [sys.executable, "-m", "norn.bootstrap", *arguments])
