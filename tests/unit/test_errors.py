"""Each error has a code of its own and the exit status of the contract."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from norn import errors
from norn.errors import NornError, exit_status_of
from norn.http.problems import asked_for


def test_no_two_errors_share_a_code() -> None:
    ours = (cls for cls in errors._all_classes(NornError) if cls.__module__ == errors.__name__)
    codes = Counter(cls.code for cls in ours)
    assert [code for code, count in codes.items() if count > 1] == []


@pytest.mark.parametrize(
    ("code", "exit_status"),
    [
        ("rollout_failed", 1),
        ("infraspec_invalid", 2),
        ("unknown_app", 3),
        ("nothing_to_roll_back_to", 3),
        ("unsafe", 4),
        ("quarantined", 4),
        ("busy", 5),
        ("still_running", 6),
        ("server_unreachable", 7),
        ("database_unavailable", 7),
        ("not_authenticated", 8),
        ("from-a-newer-server", 1),
    ],
)
def test_the_exit_status_of_an_error_code(code: str, exit_status: int) -> None:
    assert exit_status_of(code) == exit_status


def test_an_error_as_json_carries_its_facts() -> None:
    error = errors.Busy("A deploy is running.", hint="Wait.", operationId="x")
    assert error.to_json() == {"code": "busy", "message": "A deploy is running.", "hint": "Wait.", "operationId": "x"}


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ({"path": "/api/apps"}, "PUT /api/apps"),
        ({"path": "/api/apps/shop/secrets/KEY"}, "PUT /api/apps/shop/…"),
        ({"path": "/api/apps/KEY=hunter2"}, "PUT /api/apps/…"),
        ({"path": "/", "route": SimpleNamespace(path="/"), "path_params": {}}, "PUT /"),
        (
            {"route": SimpleNamespace(path="/x/{app}/y/{name}"), "path_params": {"app": "shop", "name": "KEY"}},
            "PUT /x/shop/y/{name}",
        ),
        ({"route": SimpleNamespace(path="/x/{app}"), "path_params": {"app": "KEY=hunter2"}}, "PUT /x/{app}"),
    ],
)
def test_what_was_asked_for_is_written_down_without_what_may_be_secret(scope: dict[str, Any], said: str) -> None:
    assert asked_for({"method": "PUT"} | scope) == said
