"""The local runtime takes a change only where what is live is what the caller saw."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from tests.fixtures.turns import turn

from norn.adapters.local.app import Environment
from norn.adapters.local.images import LocalImages
from norn.adapters.local.runtime import LocalRuntime
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
