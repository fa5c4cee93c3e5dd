"""What pages read and show without a server: /docs from the OpenAPI document, fields of forms, sentences with code."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import FormData

from norn.errors import Invalid
from norn.http.app import create_app
from norn.ui.documentation import Operation, operations_by_subject
from norn.ui.formatting import prose
from norn.ui.forms import Fields

NOBODY: Any = None


@pytest.fixture(scope="module")
def interface() -> dict[str, Operation]:
    """What /docs shows, by method and path."""
    app = create_app(NOBODY, NOBODY, NOBODY)
    found = [operation for _, group in operations_by_subject(app.openapi()) for operation in group]
    return {f"{operation.method} {operation.path}": operation for operation in found}


def test_docs_show_every_method_of_the_openapi_document(interface: dict[str, Operation]) -> None:
    document = create_app(NOBODY, NOBODY, NOBODY).openapi()
    assert set(interface) == {f"{method.upper()} {path}" for path, methods in document["paths"].items()
                              for method in methods}  # fmt: skip


def test_each_method_has_an_anchor_of_its_own(interface: dict[str, Operation]) -> None:
    assert len({operation.anchor for operation in interface.values()}) == len(interface)


def test_a_method_is_shown_with_what_is_asked_its_body_its_answers_and_its_errors(
    interface: dict[str, Operation],
) -> None:
    rollback = interface["POST /api/apps/{app}/rollback"]
    assert {value.name for value in rollback.parameters} == {"app", "Idempotency-Key", "Prefer"} or {
        value.name.lower() for value in rollback.parameters
    } == {"app", "idempotency-key", "prefer"}
    body = {value.name: value for value in rollback.body}
    assert (body["imageTag"].kind, body["force"].kind, body["force"].default) == (
        "text or null", "true or false", "false",
    )  # fmt: skip
    assert body["affects"].kind == "list of text"
    assert not rollback.body_required
    assert {answer.status for answer in rollback.answers} == {"200", "202"}
    assert {"401", "404", "409"} <= {error.status for error in rollback.errors}
    (accepted,) = (answer for answer in rollback.answers if answer.status == "202")
    assert "imageTag" in {member.name for member in accepted.members}


def test_what_wants_no_token_says_so(interface: dict[str, Operation]) -> None:
    assert [name for name, operation in interface.items() if operation.open] == ["GET /api/health"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`norn history` lists them", "<code>norn history</code> lists them"),
        ("<b> & `<i>`", "&lt;b&gt; &amp; <code>&lt;i&gt;</code>"),
        ("one ` alone", "one ` alone"),
        ("`two\nlines`", "`two\nlines`"),
    ],
)
def test_what_stands_between_backquotes_is_code_and_everything_is_escaped(text: str, shown: str) -> None:
    assert prose(text) == shown


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "a\x1bb", "a\x7fb", "x" * 257])
def test_a_name_is_one_line_of_bounded_length(value: str) -> None:
    with pytest.raises(Invalid):
        Fields(FormData([("to", value)])).line("to")
    with pytest.raises(Invalid):
        Fields(FormData([("to", value)])).lines("to")


@pytest.mark.parametrize("value", ["a\0b", "x" * 2_001])
def test_a_reason_has_bounds_as_in_the_api(value: str) -> None:
    with pytest.raises(Invalid):
        Fields(FormData([("reason", value)])).text("reason")


def test_fields_that_were_not_sent_are_empty() -> None:
    fields = Fields(FormData([("affects", "shop"), ("affects", "")]))
    assert (fields.line("to"), fields.text("reason"), fields.ticked("force")) == ("", "", False)
    assert fields.lines("affects") == ("shop",)
