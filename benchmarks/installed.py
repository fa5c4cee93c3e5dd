"""Norn as it is installed: its modules compiled, as pip leaves them, and as a checkout may forbid."""

from __future__ import annotations

import compileall
from pathlib import Path

import norn


def compile_modules() -> None:
    """What is not compiled is compiled at every start of a command: that would be measured, too."""
    compileall.compile_dir(Path(norn.__file__).parent, quiet=1)
