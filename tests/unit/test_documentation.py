"""The reference names all there is, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from norn.cli.main import COMMANDS
from norn.config import load_settings
from norn.domain.infraspec.fields import ROOT
from norn.domain.infraspec.kinds import ListOf, Section
from norn.http.app import create_app
from norn.http.metrics import Metrics

TOP = Path(__file__).parents[2]
PAGES = sorted(
    [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("benchmarks/*.md"), *TOP.glob("examples/*/*.md")]
)
REFERENCE = TOP / "docs" / "reference"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_reference(command: str) -> None:
    assert f"`norn {command}" in (REFERENCE / "commands.md").read_text()


def test_every_setting_is_in_the_reference() -> None:
    page = (REFERENCE / "settings.md").read_text()
    given = set(re.findall(r'"(NORN_[A-Z_]+)"', (TOP / "src" / "norn" / "config.py").read_text()))
    assert load_settings({"NORN_HOME": "/nonexistent"}).home == Path("/nonexistent")
    assert [name for name in sorted(given) if f"`{name}`" not in page] == []


def test_every_route_is_in_the_reference() -> None:
    unused = cast("Any", None)
    app = create_app(unused, Metrics(), unused)
    page = (REFERENCE / "http.md").read_text()
    missing = []
    for path in app.openapi()["paths"]:
        shown = path.replace("{operation_id}", "{id}").replace("{deployment_id}", "{id}")
        if shown not in page and f"…/{shown.rpartition('/')[2]}" not in page:
            missing.append(path)
    assert missing == []


def keys(section: Section, prefix: str = "") -> list[str]:
    found = []
    for field in section.fields:
        inner = field.kind.item if isinstance(field.kind, ListOf) else field.kind
        mark = "[]" if isinstance(field.kind, ListOf) else ""
        if isinstance(inner, Section):
            found += keys(inner, f"{prefix}{field.name}{mark}.")
        else:
            found.append(f"{prefix}{field.name}")
    return found


@pytest.mark.parametrize("key", keys(ROOT))
def test_every_key_of_the_infraspec_is_in_the_reference(key: str) -> None:
    assert f"| `{key}` |" in (REFERENCE / "infraspec.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


CODES = sorted(
    {
        code
        for package in ("domain", "operations")
        for path in (TOP / "src" / "norn" / package).rglob("*.py")
        for code in re.findall(
            r"""(?:Change|Finding|_added|_not_filled)\(\s*"([a-z_]+)",""", path.read_text(encoding="utf-8")
        )
    }
)
HARMLESS = {"column_added", "relation_added", "check_loosened", "renamed_behind_view"}
"""They are counted in `schema_compatible`."""


def test_the_codes_of_findings_are_found_in_the_source() -> None:
    assert {"column_dropped", "check_added", "foreign_key_stricter", "not_checked", "rows_changed"} <= set(CODES)


@pytest.mark.parametrize("code", [code for code in CODES if code not in HARMLESS])
def test_every_finding_has_an_example_and_a_way_out(code: str) -> None:
    text = (TOP / "docs" / "verdict.md").read_text(encoding="utf-8")
    assert any(line.startswith(("|", "`not_checked`")) and f"`{code}`" in line for line in text.splitlines()), code
