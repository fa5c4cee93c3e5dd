"""`python -m norn.bootstrap [--stop-all | --direct …]`, as the command line calls it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

import structlog

from norn.bootstrap.server import serve, stop_all
from norn.config import load_settings
from norn.errors import EXIT_FAILED, NornError


def configure_logging() -> None:
    """One JSON line an event on standard error, or readable text on a terminal."""
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not terminal:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def main(argv: Sequence[str]) -> int:
    """`python -m norn.bootstrap [--stop-all]`, as `norn serve` calls it; the exit status."""
    configure_logging()
    try:
        settings = load_settings()
        asyncio.run(stop_all(settings) if "--stop-all" in argv else serve(settings))
    except NornError as error:
        print(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
