"""norn validate: the one command that needs no server"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from norn.cli.context import Context
from norn.errors import EXIT_DONE, EXIT_USAGE, InfraspecInvalid, NotFound

_FILE = "infraspec.yaml"


def add_validate(parser: argparse.ArgumentParser) -> None:
    parser.description = "Check infraspecs: a file, a directory with one, or all below NORN_APPS_DIR. Needs no server."
    parser.epilog = (
        "examples:\n"
        "  norn validate                       all apps\n"
        "  norn validate ./myapp               one\n"
        "  norn validate --schema > infraspec.schema.json   for an editor"
    )
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of infraspec.yaml")
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    if context.args.schema:
        from norn.domain.infraspec.schema import infraspec_schema

        print(json.dumps(infraspec_schema(), indent=2))
        return EXIT_DONE
    results = [check_file(path) for path in _files(context)]
    context.printer.result({"files": results}, lambda: "\n".join(map(_text, results)))
    return EXIT_USAGE if any(result["problems"] for result in results) else EXIT_DONE


def _files(context: Context) -> list[Path]:
    path = context.args.path
    if path is None:
        found = sorted(context.settings.apps_dir.glob(f"*/{_FILE}"))
        if not found:
            raise NotFound(
                f"There is no app under {context.settings.apps_dir}.", hint="Set NORN_APPS_DIR, or give a PATH."
            )
        return found
    file = path / _FILE if path.is_dir() else path
    if not file.is_file():
        raise NotFound(f"There is no {file}.", hint="Give an infraspec.yaml, or the directory that has one.")
    return [file]


def check_file(path: Path) -> dict[str, Any]:
    """The problems and warnings of one file: `{path, problems, warnings}`."""
    from norn.domain.infraspec.parse import parse_infraspec

    try:
        name = path.resolve().parent.name
        parsed = parse_infraspec(path.read_bytes(), path=str(path), directory_name=name)
    except InfraspecInvalid as error:
        return {"path": str(path), "problems": error.facts.get("problems", []), "warnings": []}
    return {"path": str(path), "problems": [], "warnings": [warning.to_json() for warning in parsed.warnings]}


def _text(result: dict[str, Any]) -> str:
    lines = [_line("error", problem) for problem in result["problems"]]
    lines += [_line("warning", warning) for warning in result["warnings"]]
    return "\n".join(lines or [f"{result['path']}: fine"])


def _line(level: str, problem: dict[str, Any]) -> str:
    where = f"{problem['path']}:{problem['line']}:{problem['column']}"
    hint = f" ({problem['hint']})" if problem.get("hint") else ""
    return f"{where}: {level}: {problem['message']}{hint}"
