"""Following an operation: when the time is over."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from norn.cli.context import Context
from norn.cli.follow import follow
from norn.errors import StillRunning


class Silent:
    """A server on which nothing happens: it only says that it is still there."""

    status = 200

    def __init__(self) -> None:
        self.said = 0

    def open(self, *_: object, **__: object) -> Silent:
        return self

    def chunks(self) -> Iterator[bytes]:
        for _ in range(100):
            self.said += 1
            yield b": still here\n\n"


def test_the_time_is_looked_at_while_nothing_happens() -> None:
    context, server = Context(argparse.Namespace(output="json", quiet=True)), Silent()
    context.client = cast("Any", server)
    with pytest.raises(StillRunning):
        follow(context, "id", lambda _: False, "1s", since=time.monotonic() - 2)
    assert server.said == 1
