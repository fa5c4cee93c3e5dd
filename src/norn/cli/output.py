"""Results on standard output (text, JSON or YAML), progress on standard error."""

from __future__ import annotations

import json
import re
import sys

from norn.errors import NornError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}


_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def harmless(text: str) -> str:
    """Control characters as `\\u001b`: what somebody else has written neither moves the cursor nor colours anything.

    New lines and tabs stay.
    """
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class Printer:
    """Text on a terminal, JSON elsewhere, unless told otherwise."""

    def __init__(self, output: str | None, *, quiet: bool) -> None:
        self.format = output or ("text" if sys.stdout.isatty() else "json")
        self.quiet = quiet
        self._progress_colour = sys.stderr.isatty()

    @property
    def interactive(self) -> bool:
        """Somebody is there who can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def result(self, document: Any, text: Callable[[], str]) -> None:
        """Print a result: the document itself, or the text made of it."""
        if self.format == "json":
            print(harmless(json.dumps(document, indent=2, ensure_ascii=False)))
        elif self.format == "yaml":
            import yaml

            print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")
        else:
            print(harmless(text()))

    def progress(self, line: str, colour: str = "") -> None:
        if self.quiet:
            return
        if colour and self._progress_colour:
            line = f"\x1b[{_COLOURS[colour]}m{line}\x1b[0m"
        print(line, file=sys.stderr, flush=True)

    def error(self, error: NornError) -> None:
        """What happened and what to do, on standard error; with JSON or YAML the document also on standard output."""
        if self.format != "text":
            document = getattr(error, "document", None) or error.to_json()
            self.result(document, lambda: "")
        self.explain(error)

    def explain(self, error: NornError) -> None:
        """What happened and what to do, on standard error."""
        paint = "\x1b[31m{}\x1b[0m" if self._progress_colour else "{}"
        print(paint.format("error: ") + harmless(error.message), file=sys.stderr)
        for skipped in error.facts.get("skipped") or ():
            self._say(f"  passed over {skipped['imageTag']} ({skipped['deploymentId']}): {skipped['why']}")
        for candidate in error.facts.get("candidates") or ():
            self._say(f"  there is {candidate}")
        if verdict := error.facts.get("verdict"):
            from norn.cli.deployments import reasons
            from norn.cli.verdicts import findings, ways

            for line in (*reasons(error.facts), *findings(verdict), *ways(verdict)):
                self._say(line)
        for wrong in (error.facts.get("problems") or ())[:20]:
            self._say(f"  {wrong.get('message', wrong)}")
        if output := error.facts.get("output"):
            self._say("\n".join(f"  | {line}" for line in str(output).splitlines()[-30:]))
        if error.hint:
            self._say(f"hint: {error.hint}")

    @staticmethod
    def _say(text: str) -> None:
        print(harmless(text), file=sys.stderr)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; the last one as long as it is. Nothing in a cell begins a row."""
    cells = [[harmless(str(cell)).replace("\n", "\\n") if cell is not None else "-" for cell in row] for row in rows]
    everything = [list(header), *cells]
    widths = [max(len(row[column]) for row in everything) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in everything
    )


def local_time(rfc3339: str | None) -> str:
    """A time as the reader's clock shows it; data keeps UTC."""
    if not rfc3339:
        return "-"
    from datetime import datetime

    return datetime.fromisoformat(rfc3339).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(rfc3339: str | None) -> str:
    """How long ago, in one unit."""
    if not rfc3339:
        return "-"
    from datetime import UTC, datetime

    seconds = max((datetime.now(UTC) - datetime.fromisoformat(rfc3339)).total_seconds(), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def took(step: Mapping[str, Any]) -> str:
    """How long a step took."""
    milliseconds = step.get("durationMs")
    if milliseconds is None:
        return "…"
    return f"{milliseconds} ms" if milliseconds < 1_000 else f"{milliseconds / 1_000:.1f} s"
