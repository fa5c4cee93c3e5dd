"""Where steps print to."""

from __future__ import annotations

from collections.abc import Callable

Output = Callable[[str], None]
"""Takes text that a step prints, as it comes (any length, not only whole lines). Never blocks, never fails."""
