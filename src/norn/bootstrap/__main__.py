"""`python -m norn.bootstrap [--stop-all | --direct …]`, as the command line calls it.

Each of the three loads what it needs once it is known which one is wanted: loading is most of a start.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from norn.bootstrap.logs import configure_logging
from norn.cli.output import Printer
from norn.config import Settings, load_settings
from norn.errors import EXIT_FAILED, NornError

_INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="norn", add_help=False)
    parser.add_argument("--stop-all", action="store_true")
    parser.add_argument("--direct", metavar="APP")
    parser.add_argument("--reason", default="")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--output", choices=("text", "json", "yaml"), default="json")
    return parser


def main(argv: Sequence[str]) -> int:
    """Serve, end what is served, or roll back without a server; the exit status."""
    configure_logging()
    args = _parser().parse_args(argv)
    try:
        settings = load_settings()
        if args.direct:
            return _direct(settings, args)
        if args.stop_all:
            return _stop_all(settings)
        return _serve(settings)
    except NornError as error:
        print(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        if not args.direct:
            return 0
        print(f"interrupted; what was accepted goes on: `kubectl rollout status deployment/{args.direct}` shows it",
              file=sys.stderr)  # fmt: skip
        return _INTERRUPTED


@contextmanager
def _loading() -> Iterator[None]:
    """Nothing of what is made within is garbage: to look for some would take a seventh of the time."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def _serve(settings: Settings) -> int:
    with _loading():
        from norn.bootstrap.server import serve
    asyncio.run(serve(settings))
    return 0


def _stop_all(settings: Settings) -> int:
    with _loading():
        from norn.bootstrap.stopping import stop_all
    asyncio.run(stop_all(settings))
    return 0


def _direct(settings: Settings, args: argparse.Namespace) -> int:
    with _loading():
        from norn.bootstrap.direct import rollback_direct
    done = asyncio.run(
        rollback_direct(
            settings,
            args.direct,
            args.reason,
            resume=args.resume,
            dry_run=args.dry_run,
            timeout_s=args.timeout,
            quiet=args.quiet,
        )
    )
    Printer(args.output, quiet=args.quiet).result(done, lambda: _sentence(done))
    return 0


def _sentence(done: Mapping[str, Any]) -> str:
    if done["unchanged"]:
        return f"{done['app']} runs {done['imageTag']} already: nothing was changed"
    if done["dryRun"]:
        return f"would change {done['app']} from {done['fromImageTag']} to {done['imageTag']}: {done['target']['why']}"
    return f"{done['app']} runs {done['imageTag']}; a server takes it into the history when one is back"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
