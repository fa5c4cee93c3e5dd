"""Pages without a server: how values are written, how far a rollout is, what each role sees."""

from __future__ import annotations

import gzip
import hashlib
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from fastapi import Request

from norn.domain.access import Grant, Role
from norn.domain.deployments import Status
from norn.domain.operations import Operation, OperationKind, OperationStatus, StepRecord, StepStatus
from norn.domain.verdict import Level
from norn.errors import DatabaseUnavailable
from norn.http.problems import problem_response
from norn.ui import formatting
from norn.ui.assets import DIRECTORY, url_of
from norn.ui.errors import page_of, wants_page
from norn.ui.operation_pages import _no_steering, _shown, _step
from norn.ui.progress import Rollout, rollout_of
from norn.ui.rendering import environment, render

# ---- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["2026-11-25T22:25:45.123Z", datetime(2026, 11, 25, 22, 25, 45, 123_000, UTC)])
def test_a_time_is_written_in_utc_for_machines_and_for_people(at: datetime | str) -> None:
    assert formatting.machine_time(at) == "2026-11-25T22:25:45.123Z"
    assert formatting.utc(at) == "2026-11-25 22:25:45 UTC"
    assert formatting.clock(at) == "22:25 UTC"


def test_a_time_of_another_zone_is_converted() -> None:
    at = datetime(2026, 11, 25, 1, tzinfo=timezone(timedelta(hours=2)))
    assert formatting.utc(at) == "2026-11-24 23:00:00 UTC"


@pytest.mark.parametrize(
    ("start", "end", "took"),
    [
        ("2026-11-25T22:00:00.000Z", "2026-11-25T22:01:30.000Z", "1m 30s"),
        ("2026-11-25T22:00:00.000Z", None, ""),
        (None, None, ""),
        ("2026-11-25T22:00:01.000Z", "2026-11-25T22:00:00.000Z", "0s"),
    ],
)
def test_how_long_it_took(start: str | None, end: str | None, took: str) -> None:
    assert formatting.between(start, end) == took


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes"), (1_536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB")])
def test_sizes_have_a_unit(count: int, text: str) -> None:
    assert formatting.size(count) == text


@pytest.mark.parametrize("state", [*Status, *OperationStatus, *StepStatus, *Level], ids=str)
def test_every_state_has_a_tone(state: str) -> None:
    assert state in formatting._TONES


# ---- rollouts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "rollout"),
    [
        ("", None),
        ("compiling\n", None),
        ("starting shop:1: 3 processes\n", Rollout(3, 3, 0)),
        ("starting shop:1: 1 process\n1-1 is ready (1 of 1)\n", Rollout(1, 1, 1, ("1-1",))),
        ("starting shop:1: 2 processes\n4-2 is ready (1 of 2)\n", Rollout(2, 2, 1, ("4-2",))),
        ("0 of 4 updated, 4 available\n2 of 4 updated, 4 available\n", Rollout(4, 2, 0)),
        ("2 of 4 updated, 4 available\nweb-b is ready (1 of 4)\n", Rollout(4, 2, 1, ("web-b",))),
        ("web-a is ready (1 of 4)\n2 of 4 updated, 5 available\n", Rollout(4, 2, 1, ("web-a",))),
        ("web-a is ready (1 of 2)\nweb-a is not ready any more (0 of 2)\n", Rollout(2, 2, 0)),
        ("web-a is ready (1 of 2)\nweb-b is ready (2 of 2)\nweb-c is ready (1 of 2)\n", Rollout(2, 2, 1, ("web-c",))),
        ("1 of 4 updated, 4 available; web-1: crash\n", Rollout(4, 1, 0, (), "web-1: crash")),
    ],
)
def test_how_far_a_rollout_is_by_its_output(output: str, rollout: Rollout | None) -> None:
    assert rollout_of(output) == rollout


@pytest.mark.parametrize(
    "line", ["{} of 1 updated, 1 available", "1-1 is ready (1 of {})", "starting shop:1: {} processes"]
)
def test_a_number_without_end_is_none_of_replicas(line: str) -> None:
    assert rollout_of(line.format("9" * 5_000)) is None


def test_each_replica_has_a_state() -> None:
    states = [state for state, _ in Rollout(4, 2, 1).replicas]
    assert states == ["ready", "starting", "waiting", "waiting"]


def test_no_output_makes_a_list_without_end() -> None:
    found = rollout_of("1 of 999999 updated, 1 available")
    assert found is not None
    assert len(found.replicas) == 100


@pytest.mark.parametrize("status", StepStatus)
def test_what_an_app_prints_as_it_fails_is_not_taken_for_a_rollout(status: StepStatus) -> None:
    step = StepRecord(0, "deploy", status, datetime.now(UTC), None, "5 of 5 updated, 5 available\n")
    assert (_step(step)["rollout"] is None) == (status in (StepStatus.FAILED, StepStatus.UNDONE))


# ---- who sees what -----------------------------------------------------------------------------------------------

APP: dict[str, Any] = {
    "name": "shop", "role": "webserver", "problem": None, "externalHost": None, "operation": None,
    "live": {"imageTag": "shop:1", "deploymentId": "d1", "commitSubject": "one", "since": "2026-11-25T22:00:00.000Z"},
    "health": {"healthy": True, "wanted": 1, "ready": 1, "restarts": 0, "message": ""},
}  # fmt: skip


def request(grant: Grant | None, path: str = "/") -> Request:
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    return Request(scope | {"state": {"grant": grant, "session": None}})


def head(role: Role, app: str = "shop") -> str:
    grant = Grant("t", "lena", role, frozenset({app}))
    rollback = {"possible": False, "why": "there is no deployment in the history", "target": None, "verdict": None}
    answer = render(request(grant), "app_head.html", app=APP, deployment=None, rollback=rollback)
    return bytes(answer.body).decode()


def test_whoever_may_operate_sees_the_buttons() -> None:
    assert 'href="/apps/shop/rollback"' in head(Role.OPERATOR)
    assert 'action="/apps/shop/restart"' in head(Role.OPERATOR)


def test_a_viewer_sees_why_there_is_no_button() -> None:
    page = head(Role.VIEWER)
    assert "/apps/shop/rollback" not in page
    assert "/apps/shop/restart" not in page
    assert "has the role viewer; this wants operator" in page


@pytest.mark.parametrize(
    ("apps", "said"), [(None, ""), ({"shop", "pay"}, ""), ({"shop"}, "The token &#39;lena&#39; is not for pay.")]
)
def test_who_may_not_answer_for_each_app_that_is_affected_is_told_so_and_has_no_yes(
    apps: set[str] | None, said: str
) -> None:
    grant = Grant("t", "lena", Role.ADMIN, None if apps is None else frozenset(apps))
    operation = Operation(
        "0" * 26, 1, "shop", OperationKind.RESTORE, OperationStatus.RUNNING, {"affects": ["pay"]}, "lena", "",
        datetime.now(UTC), asks={"about": "loss", "message": ""},
    )  # fmt: skip
    values: dict[str, Any] = {
        "operation": _shown(operation), "ended": False, "deployment": None, "seq": 1,
        "no_steering": _no_steering(grant, operation),
    }  # fmt: skip
    page = bytes(render(request(grant), "operation_progress.html", **values).body)
    text = (gzip.decompress(page) if page[:2] == b"\x1f\x8b" else page).decode()
    assert ('<button type="button" class="primary" disabled>' in text) == bool(said)
    assert ("No, stop it" in text) == (not said)
    assert said in text


def test_who_has_not_signed_in_sees_neither_menu_nor_sign_out() -> None:
    page = bytes(render(request(None), "sign_in.html", next="/", error="", hint="").body).decode()
    assert "/sign-out" not in page
    assert "/audit" not in page


def test_an_error_of_the_api_is_a_page_with_its_message_its_hint_and_when_to_try_again() -> None:
    error = DatabaseUnavailable("It does not <answer>.", hint="Wait.")
    page = page_of(request(None, "/apps/shop"), problem_response(error))
    text = bytes(page.body).decode()
    assert (page.status_code, page.headers["Retry-After"]) == (503, "2")
    assert "It does not &lt;answer&gt;." in text
    assert "Wait." in text
    assert '<a class="button" href="/apps/shop">Try again</a>' in text


@pytest.mark.parametrize(
    ("path", "page"),
    [("/", True), ("/apps/api", True), ("/apiary", True), ("/api/apps", False), ("/metrics", False),
     ("/openapi.json", False)],
)  # fmt: skip
def test_the_api_answers_with_problem_documents_and_all_else_with_pages(path: str, page: bool) -> None:
    assert wants_page(path) is page


# ---- files -------------------------------------------------------------------------------------------------------


def test_htmx_is_the_very_file_that_was_published() -> None:
    readme = (DIRECTORY / "README.md").read_text()
    name, digest = re.findall(r"`(htmx-[\d.]+\.min\.js)`.*SHA-256 `([0-9a-f]{64})`", readme)[0]
    assert hashlib.sha256((DIRECTORY / name).read_bytes()).hexdigest() == digest
    assert url_of(name)


@pytest.mark.parametrize("name", sorted(environment().list_templates()))
def test_every_template_can_be_read_and_turns_nothing_off(name: str) -> None:
    environment().get_template(name)
    source = (DIRECTORY.parent / "templates" / name).read_text()
    assert "|safe" not in source.replace(" ", "")
    assert "autoescape" not in source
    assert not re.search(r"<script(?! src=)|<style|\son[a-z]+=|style=|javascript:", source)


def test_the_style_and_the_script_need_no_other_host() -> None:
    for name in ("norn.css", "norn.js"):
        assert not re.search(r"https?://|@import|url\(", (DIRECTORY / name).read_text())
