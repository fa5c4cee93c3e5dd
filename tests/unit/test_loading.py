"""What a start loads: most of the time of a start goes into that."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("part", "unwanted"),
    [
        ("server", {"aiohttp", "lightkube"}),  # where apps are local processes
        ("stopping", {"aiohttp", "lightkube", "fastapi", "httpx2", "jinja2"}),
        ("direct", {"fastapi", "psycopg", "jinja2", "uvicorn"}),
    ],
)
def test_each_part_of_the_program_loads_its_own_libraries_alone(part: str, unwanted: set[str]) -> None:
    code = f"import sys; import norn.bootstrap.__main__; import norn.bootstrap.{part}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not unwanted.intersection(loaded)
    assert f"norn.bootstrap.{part}" in loaded
