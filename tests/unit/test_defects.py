"""A defect is answered like any other error: counted, logged and with the headers that all answers have."""

from __future__ import annotations

from typing import Any, cast

import pytest
import structlog

from norn.http.app import create_app
from norn.http.metrics import Metrics


class Counted(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.answers: list[int] = []

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self.answers.append(status)


@pytest.fixture
def metrics() -> Counted:
    return Counted()


async def answer(metrics: Metrics) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer of a route with a defect."""

    async def broken() -> dict[str, Any]:
        raise RuntimeError("of the inside")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    scope = {"type": "http", "method": "GET", "path": "/api/health", "raw_path": b"/api/health", "query_string": b"",
             "headers": [], "scheme": "http", "client": ("192.0.2.1", 1), "server": ("norn", 80)}  # fmt: skip
    await create_app(cast("Any", None), metrics, broken)(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def test_a_defect_is_a_problem_document_with_the_headers_of_all_answers(metrics: Counted) -> None:
    status, headers, body = await answer(metrics)
    assert (status, headers[b"content-type"]) == (500, b"application/problem+json")
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"of the inside" not in body


async def test_a_defect_is_counted_and_has_a_line_in_the_log(metrics: Counted) -> None:
    with structlog.testing.capture_logs() as logs:
        await answer(metrics)
    assert metrics.answers == [500]
    assert [entry["event"] for entry in logs] == ["defect", "request"]
