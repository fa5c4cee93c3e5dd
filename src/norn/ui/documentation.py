"""What /docs shows: the OpenAPI document of this server, read for people. It runs no script and loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]

_PROBLEM = "application/problem+json"
_METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Value:
    """A parameter, or a member of a body or an answer."""

    name: str
    kind: str
    """`text`, `number`, `list of text`, …"""
    about: str
    required: bool = False
    default: str = ""
    """As JSON has it; empty where there is none."""
    place: str = ""
    """Of a parameter: path, query, header."""


@dataclass(frozen=True, slots=True)
class Outcome:
    status: str
    about: str
    media_type: str = ""
    members: tuple[Value, ...] = ()
    """Of the answer's document, where it is one that is described."""


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str
    title: str
    about: str
    parameters: tuple[Value, ...]
    body: tuple[Value, ...]
    body_required: bool
    answers: tuple[Outcome, ...]
    errors: tuple[Outcome, ...]
    open: bool
    """Wants no token."""

    @property
    def anchor(self) -> str:
        """To link to it."""
        words = self.path.replace("{", "").replace("}", "").strip("/").replace("/", "-").replace(".", "-")
        return f"{self.method.lower()}-{words}"


def operations_by_subject(document: Document) -> list[tuple[str, list[Operation]]]:
    """Every method of the OpenAPI document, by its tag, in the document's order of tags."""
    groups: dict[str, list[Operation]] = {tag["name"]: [] for tag in document.get("tags", ())}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                tag = next(iter(methods[method].get("tags", ())), "more")
                groups.setdefault(tag, []).append(_operation(document, method, path, methods[method]))
    return [(name, found) for name, found in groups.items() if found]


def _operation(document: Document, method: str, path: str, described: Document) -> Operation:
    title, _, about = described.get("description", described.get("summary", "")).partition("\n")
    body = described.get("requestBody", {})
    outcomes = list(_outcomes(document, described.get("responses", {})))
    return Operation(
        method.upper(),
        path,
        title,
        about.strip(),
        tuple(_parameter(document, parameter) for parameter in described.get("parameters", ())),
        tuple(_members(document, _schema_of(body.get("content", {})))),
        bool(body.get("required", False)),
        tuple(outcome for outcome in outcomes if int(outcome.status) < 400),
        tuple(outcome for outcome in outcomes if int(outcome.status) >= 400),
        described.get("security") == [],
    )


def _parameter(document: Document, parameter: Document) -> Value:
    schema = parameter.get("schema", {})
    return Value(
        parameter["name"],
        _kind(document, schema),
        parameter.get("description", schema.get("description", "")),
        bool(parameter.get("required", False)),
        _default(schema),
        parameter.get("in", ""),
    )


def _outcomes(document: Document, responses: Document) -> Iterator[Outcome]:
    for status, response in sorted(responses.items()):
        content = response.get("content", {})
        media_type = next(iter(content), "")
        described = () if media_type == _PROBLEM else tuple(_members(document, _schema_of(content)))
        yield Outcome(status, response.get("description", ""), media_type, described)


def _schema_of(content: Document) -> Document:
    for described in content.values():
        schema: Document = described.get("schema", {})
        return schema
    return {}


def _members(document: Document, schema: Document) -> Iterable[Value]:
    """The members of an object; of a list, those of what is in it."""
    schema = _resolved(document, schema)
    if schema.get("type") == "array":
        schema = _resolved(document, schema.get("items", {}))
    required = schema.get("required", ())
    for name, member in schema.get("properties", {}).items():
        found = _resolved(document, member)
        about = member.get("description", found.get("description", ""))
        yield Value(name, _kind(document, member), about, name in required, _default(member))


def _resolved(document: Document, schema: Document) -> Document:
    """What a schema refers to; of several that may be, the one that is not null."""
    for _ in range(8):
        if "$ref" in schema:
            found: Any = document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found.get(part, {})
            schema = found
        elif "anyOf" in schema:
            schema = next((one for one in schema["anyOf"] if one.get("type") != "null"), {})
        else:
            break
    return schema


_WORDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "object", "null": "null"}


def _kind(document: Document, schema: Document) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(document, one) for one in schema["anyOf"])
    found = _resolved(document, schema)
    if "enum" in found:
        return " | ".join(str(one) for one in found["enum"])
    kind: str = found.get("type", "")
    if kind == "array":
        return f"list of {_kind(document, found.get('items', {})) or 'anything'}"
    return _WORDS.get(kind, kind)


def _default(schema: Document) -> str:
    """Nothing, an empty text and an empty list need not be said."""
    value: object = schema.get("default")
    if value is None or value in ("", []):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
