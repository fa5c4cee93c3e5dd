"""The local runtime takes a change only where what is live is what the caller saw."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import cast

import pytest
from tests.fixtures.turns import turn

from norn.adapters import programs
from norn.adapters.local.app import Environment
from norn.adapters.local.images import LocalImages
from norn.adapters.local.runtime import LocalRuntime
from norn.adapters.local.state import AppFiles, Desired
from norn.domain.images import Image
from norn.domain.ports import Release, Template
from norn.errors import Stale


async def test_a_whole_template_is_not_brought_back_over_what_the_caller_has_not_seen(tmp_path: Path) -> None:
    nobody = cast("LocalImages", None), cast("Environment", None)
    runtime = LocalRuntime(home=tmp_path, apps_address="127.0.0.1", images=nobody[0], environment=nobody[1])
    template = Template("worker", 1, None, None, {}, (), 300.0)
    release = Release("web", "c", Image("web:a", "sha256:1", ""), template, expected_digest="sha256:2")
    with pytest.raises(Stale, match="nothing is live"):
        await runtime.apply(release, turn())


async def test_a_change_that_is_stopped_as_it_is_accepted_does_not_outlive_its_undo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image("web:a", "sha256:1", "")
    writing, may_go_on, written = threading.Event(), threading.Event(), threading.Event()
    write_desired = AppFiles.write_desired

    def on_a_slow_disk(files: AppFiles, desired: Desired | None) -> None:
        if desired is not None:
            writing.set()
            may_go_on.wait()
        write_desired(files, desired)
        if desired is not None:
            written.set()

    class Images:
        async def find(self, _app: str, _tag: str) -> Image:
            return image

    monkeypatch.setattr(AppFiles, "write_desired", on_a_slow_disk)
    nobody = cast("Environment", None)
    runtime = LocalRuntime(
        home=tmp_path, apps_address="127.0.0.1", images=cast("LocalImages", Images()), environment=nobody
    )
    template = Template("worker", 1, None, None, {}, (), 300.0)
    change = asyncio.create_task(runtime.apply(Release("web", "c", image, template), turn()))
    await asyncio.to_thread(writing.wait)
    change.cancel()
    undo = asyncio.create_task(runtime.put_back("web", turn(), None, programs.ignore))
    await asyncio.wait({undo}, timeout=0.2)
    may_go_on.set()
    await asyncio.to_thread(written.wait)
    await asyncio.gather(change, undo, return_exceptions=True)
    assert undo.exception() is None
    assert AppFiles(tmp_path, "web").pending() is None
