"""`norn demo`, as `make demo` runs it: the main job on a throw-away server, and nothing left of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_comes_back_to_the_good_version_and_leaves_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)  # apps run as another user where the tests are root
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NORN_")}
    done = subprocess.run(
        [sys.executable, "-m", "norn", "demo"],
        env=environment | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The good version answers again." in done.stdout
    assert list(tmp_path.iterdir()) == []
