"""`norn rollback APP --direct`, as the process that it becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from norn.bootstrap import __main__ as program
from norn.bootstrap import direct

DONE = {
    "app": "web", "unchanged": False, "dryRun": False, "imageTag": "r/web:1", "fromImageTag": "r/web:2",
    "target": {"deploymentId": "a", "why": "it rolled out last"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is configured for this test's standard error would outlive it."""
    monkeypatch.setattr(program, "configure_logging", lambda: None)


async def done(*_arguments: Any, **_more: Any) -> dict[str, Any]:
    return DONE


async def interrupted(*_arguments: Any, **_more: Any) -> dict[str, Any]:
    raise KeyboardInterrupt


def test_one_that_is_interrupted_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(direct, "rollback_direct", interrupted)
    assert program.main(["--direct=web"]) == 130
    assert "kubectl rollout status deployment/web" in capsys.readouterr().err


@pytest.mark.parametrize(("how", "read"), [("json", json.loads), ("yaml", yaml.safe_load), (None, json.loads)])
def test_it_prints_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str | None, read: Any
) -> None:
    monkeypatch.setattr(direct, "rollback_direct", done)
    assert program.main(["--direct=web", *([f"--output={how}"] if how else [])]) == 0
    printed = capsys.readouterr().out
    assert read(printed) == DONE
    assert printed.startswith("{") is (how != "yaml")


def test_the_command_hands_its_format_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from norn.cli import main as command

    became: list[str] = []
    monkeypatch.setattr("os.execv", lambda _program, argv: became.extend(argv))
    command.main(["rollback", "web", "--direct", "-o", "yaml"])
    assert "--output=yaml" in became
