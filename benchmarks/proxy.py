"""Requests per second through the front proxy, against the same app without it, in turn (keep-alive, 50 clients).

`--bare` takes an app that does nothing at all; `--rounds N`, `--seconds S`, `--json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.report import show
from norn.adapters.local import files, ports

REACH = 0.5
_START_S = 20.0


def _option(name: str, default: float) -> float:
    return float(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


@contextmanager
def running(argv: list[str], up: Callable[[], bool]) -> Iterator[None]:
    """A process, from when it is up to the end of the block."""
    process = subprocess.Popen(argv)
    try:
        deadline = time.monotonic() + _START_S
        while not up():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(argv)} did not start")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def per_second(port: int, seconds: float) -> float:
    argv = [sys.executable, "-m", "benchmarks.load", str(port), "--seconds", str(seconds)]
    done = subprocess.run(argv, capture_output=True, check=True)
    tally = json.loads(done.stdout)
    if tally["lost"]:
        raise SystemExit(f"requests were lost: {tally['why']}")
    return float(tally["perSecond"])


def main() -> None:
    rounds, seconds = int(_option("--rounds", 5)), _option("--seconds", 2)
    bare = [*(["--bare"] if "--bare" in sys.argv else [])]
    direct_port = ports.choose(())
    front_port = ports.choose({direct_port})
    with tempfile.TemporaryDirectory(prefix="norn-bench-") as directory:
        home = Path(directory)
        (home / "proxy" / str(front_port)).mkdir(parents=True)
        upstreams = [{"instance": "1-1", "port": direct_port}]
        files.write_json(home / "active.json", {"generation": 1, "upstreams": upstreams})
        app = [sys.executable, "-m", "benchmarks.quick_app", str(direct_port), *bare]
        proxy = [sys.executable, "-m", "norn.adapters.local.proxy", directory, "127.0.0.1", str(front_port)]
        with (
            running(app, lambda: ports.try_bind("127.0.0.1", direct_port) is not None),
            running([*proxy, "-1", "-1"], lambda: ports.try_bind("127.0.0.1", front_port) is not None),
        ):
            per_second(front_port, 0.5)  # warms both up
            pairs = [(per_second(direct_port, seconds), per_second(front_port, seconds)) for _ in range(rounds)]
    ratios = [through / direct for direct, through in pairs]
    show(
        f"front proxy, {'an app that does nothing' if bare else 'a quick app'}",
        {
            "direct, requests per second": round(median(direct for direct, _ in pairs)),
            "through the proxy": round(median(through for _, through in pairs)),
            "ratio": round(median(ratios), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
        },
        reach=f"at least {REACH} of the requests per second without it",
        reached=median(ratios) >= REACH,
    )


if __name__ == "__main__":
    main()
