"""The port of a replica that somebody else was quicker to take, with real processes."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import cast

import pytest

from norn.adapters.local import ports
from norn.adapters.local.app import LocalApp, Machine
from norn.adapters.local.images import LocalImages
from norn.adapters.local.instances import Tuning
from norn.adapters.local.state import Desired
from norn.domain.images import Image
from norn.domain.ports import Template
from norn.errors import RolloutFailed

IMAGE = Image("web:a", "sha256:1", "")
TEMPLATE = Template("webserver", 1, 8080, None, {}, (), 300.0)
SERVE = 'import http.server, os; http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), None).serve_forever()'


class Images:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def command(self, _app: str, _tag: str) -> list[str]:
        return [sys.executable, "-c", SERVE]

    def directory(self, _app: str, _tag: str) -> Path:
        return self._directory


async def no_environment(_app: str, _template: Template) -> Mapping[str, str]:
    return {}


@pytest.fixture
async def app() -> AsyncIterator[LocalApp]:
    with tempfile.TemporaryDirectory(prefix="norn-test-") as directory:
        home = Path(directory)
        home.chmod(0o755)  # apps run as somebody else
        images = cast("LocalImages", Images(home))
        machine = Machine(home, "127.0.0.1", images, no_environment, Tuning(), 1.0, asyncio.Lock())
        app = LocalApp(machine, "web")
        app.prepare()
        yield app
        await app.remove_instances(["1-1"])


def taken(monkeypatch: pytest.MonkeyPatch, times: int) -> list[socket.socket]:
    """The ports that are chosen next so often are somebody else's before the replica is there."""
    strangers: list[socket.socket] = []
    choose = ports.choose

    def choose_too_late(others: set[int]) -> int:
        port = choose(others)
        if len(strangers) < times:
            strangers.append(socket.create_server(("127.0.0.1", port)))
        return port

    monkeypatch.setattr(ports, "choose", choose_too_late)
    return strangers


async def test_a_replica_whose_port_somebody_was_quicker_to_take_begins_anew_on_another(
    app: LocalApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers, printed = taken(monkeypatch, 1), list[str]()
    (upstream,) = await app.bring_up(Desired(1, "c", "", IMAGE, TEMPLATE), 60, printed.append)
    (stranger,) = strangers
    assert upstream.port not in (None, stranger.getsockname()[1])
    assert upstream.port == app.instance("1-1").port
    assert any("begins anew on another port" in line for line in printed)
    stranger.close()


async def test_it_does_not_begin_anew_for_ever(app: LocalApp, monkeypatch: pytest.MonkeyPatch) -> None:
    strangers = taken(monkeypatch, 100)
    with pytest.raises(RolloutFailed, match="belongs to") as failed:
        await app.bring_up(Desired(1, "c", "", IMAGE, TEMPLATE), 60, lambda _: None)
    assert failed.value.facts["reason"] == "port_taken"
    assert len(strangers) == 3
    for stranger in strangers:
        stranger.close()
