"""An image of the local runtime is there whole, or not at all."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from norn.adapters import programs
from norn.adapters.local import files
from norn.adapters.local.images import LocalImages
from norn.domain.infraspec.parse import parse_infraspec

SPEC = b"app: shop\nrole: worker\ncommand: python3 main.py\n"
SHA = "a" * 40


async def test_a_build_that_is_stopped_as_it_is_written_down_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    writing, may_go_on, written = threading.Event(), threading.Event(), threading.Event()
    write_json = files.write_json

    def on_a_slow_disk(path: Path, value: Any) -> None:
        writing.set()
        may_go_on.wait()
        write_json(path, value)
        written.set()

    monkeypatch.setattr(files, "write_json", on_a_slow_disk)
    with tempfile.TemporaryDirectory(prefix="norn-test-") as directory:  # builds run as others, and must get there
        home = Path(directory)
        home.chmod(0o755)
        context = home / "work" / "context"
        context.mkdir(parents=True)
        images = LocalImages(home)
        spec = parse_infraspec(SPEC, path="infraspec.yaml", directory_name="shop").spec
        build = asyncio.create_task(images.build(spec, SHA, context, programs.ignore))
        await asyncio.to_thread(writing.wait)
        build.cancel()
        await asyncio.wait({build}, timeout=0.05)
        may_go_on.set()
        await asyncio.to_thread(written.wait)
        with pytest.raises(asyncio.CancelledError):
            await build
        assert list((home / "images" / "shop").iterdir()) == []
