"""What is wrong in an infraspec, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    path: str
    line: int
    """From 1."""
    column: int
    """From 1, in characters."""
    key: str
    """`build.command`; empty for the whole file."""
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "line": self.line,
            "column": self.column,
            "key": self.key,
            "message": self.message,
            "hint": self.hint,
        }


class Wrong(Exception):
    """A value that cannot be taken; the reader turns it into a Problem, with the place."""

    def __init__(self, message: str, hint: str = "", node: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.node = node
        """Where, if it is not the value as a whole."""
