"""`norn rollback --no-wait` as a whole process, against the same interpreter doing nothing, in turn."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, until

from benchmarks.installed import compile_modules
from benchmarks.report import show

RUNS = 30
REACH = 4.0


def seconds(argv: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(done.stderr.decode())
    return took


def main() -> None:
    compile_modules()
    with tempfile.TemporaryDirectory(prefix="norn-bench-") as directory:
        server = NornServer(Path(directory))
        server.start()
        try:
            app = App(server, "bench")
            tags = [app.deploy("one"), app.deploy("two")]
            norn = str(Path(sys.executable).with_name("norn"))
            commands, bare = [], []
            for number in range(RUNS):
                # To and fro between two versions, by name: each run really changes the image.
                look = server.api("POST", "/api/apps/bench/rollback", {"imageTag": tags[number % 2], "dryRun": True})
                assert look.status == 200  # the verdict is up to date, as it always is for what a rollback goes to
                argv = [norn, "rollback", "bench", "--to", tags[number % 2], "--no-wait", "-o", "json"]
                commands.append(seconds(argv, server.environment))
                bare.append(seconds([sys.executable, "-I", "-c", "pass"], server.environment))
                until(lambda: server.status("bench")["operation"] is None, "the end of the rollback")
        finally:
            server.stop_all()
    ratio = median(commands) / median(bare)
    show(
        "norn rollback --no-wait",
        {
            "medianMs": round(median(commands) * 1_000, 1),
            "bare Python, medianMs": round(median(bare) * 1_000, 1),
            "ratio": round(ratio, 2),
        },
        reach=f"at most {REACH} times `python -I -c pass`",
        reached=ratio <= REACH,
    )


if __name__ == "__main__":
    main()
