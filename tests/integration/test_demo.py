"""`norn demo`, as `make demo` runs it: the main job on a throw-away server, and nothing left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def test_the_demo_comes_back_to_the_good_version_and_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory(prefix="norn-test-") as directory:
        Path(directory).chmod(0o755)  # apps run as another user where the tests are root
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NORN_")}
        done = subprocess.run(
            [sys.executable, "-m", "norn", "demo"],
            env=environment | {"TMPDIR": directory},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "The column city of public.entries was dropped" in done.stderr
        assert "The good version answers again, with the data of then." in done.stdout
        assert list(Path(directory).iterdir()) == []
