"""A verdict as text: what was found, the most serious first, and once at the end what helps."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Document = Mapping[str, Any]


def findings(verdict: Document | None, *, harmless: bool = True) -> list[str]:
    """A line for each finding; without those that do no harm where nobody asked for them."""
    found = (verdict or {}).get("findings", ())
    return [
        f"  {finding['level']}: {_of_app(finding)}{finding['message']}"
        for finding in found
        if harmless or finding["level"] != "safe"
    ]


def ways(verdict: Document | None) -> list[str]:
    """What helps, each way once."""
    told: dict[str, str] = {}
    for finding in (verdict or {}).get("findings", ()):
        for way in finding.get("ways", ()):
            what = f"    {way['command']}" if way["command"] else f"    {way['statement']};"
            told.setdefault(what, f"  {_of_app(finding)}{way['text']}")
    lines = [line for what, text in told.items() for line in (text, what)]
    return ["what helps:", *lines] if lines else []


def _of_app(finding: Document) -> str:
    """Whose it is, where the verdict is one of several apps together."""
    return f"{finding['app']}: " if "app" in finding else ""
