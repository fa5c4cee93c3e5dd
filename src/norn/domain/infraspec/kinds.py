"""The kinds of value that an infraspec has: each reads a node, and describes itself as JSON Schema."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from norn.domain.durations import PATTERN as DURATION_PATTERN
from norn.domain.durations import parse_duration
from norn.domain.infraspec.document import MappingNode, Node, ScalarNode, SequenceNode
from norn.domain.infraspec.problems import Wrong

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)\Z")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SHELL = re.compile(r"&&|\|\||[|;<>`]|\$[A-Za-z_({]|(?<!\w)&(?=\s|$)")


class Kind(Protocol):
    def read(self, node: Node) -> Any:
        """The value. Raises Wrong."""
        ...

    def schema(self) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of it."""
        ...


def scalar(node: Node, what: str) -> str:
    """The text of a scalar as it is written. Raises Wrong for lists, mappings and null."""
    if not isinstance(node, ScalarNode):
        raise Wrong(f"{what} is wanted, this is a {'list' if isinstance(node, SequenceNode) else 'mapping'}")
    if node.tag == "tag:yaml.org,2002:null" and _plain(node):
        raise Wrong(f"{what} is wanted, there is nothing", "Give a value, or leave the key out.")
    value: str = node.value
    return value


def _plain(node: Node) -> bool:
    """Whether it stands there without quotes; the two parsers of PyYAML say that differently."""
    return isinstance(node, ScalarNode) and not node.style


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a certain form. What YAML takes for a number or a truth value has to be quoted."""

    what: str
    pattern: str
    hint: str = ""
    check: Callable[[str], str | None] = lambda _value: None
    """Says what else is wrong with a value."""
    secret: bool = False
    """It may hold a password or a token: the value is not repeated in messages."""

    def read(self, node: Node) -> str:
        value = scalar(node, self.what)
        if node.tag == "tag:yaml.org,2002:bool" and _plain(node):
            raise Wrong(f"YAML takes {value} for a truth value, and {self.what} is wanted", f'Quote it: "{value}".')
        if not re.fullmatch(self.pattern, value):
            raise Wrong(f"{'this' if self.secret else repr(value)} is not {self.what}", self.hint)
        if (also := self.check(value)) is not None:
            raise Wrong(also, self.hint)
        return value

    def schema(self) -> dict[str, Any]:
        # YAML's own types: a commit-like value 123456 is a number to an editor, and is read as it is written.
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True, slots=True)
class Choice:
    values: tuple[str, ...]

    def read(self, node: Node) -> str:
        value = scalar(node, f"one of {', '.join(self.values)}")
        if value not in self.values:
            raise Wrong(f"{value!r} is not one of {', '.join(self.values)}", nearest(value, self.values))
        return value

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


@dataclass(frozen=True, slots=True)
class Integer:
    least: int
    most: int

    def read(self, node: Node) -> int:
        value = scalar(node, "a whole number")
        if not _plain(node) or not _INTEGER.match(value):
            raise Wrong(f"{value!r} is not a whole number", f"From {self.least} to {self.most}, without quotes.")
        if len(value) > 12 or not self.least <= int(value) <= self.most:
            raise Wrong(f"{value} is not from {self.least} to {self.most}")
        return int(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class Flag:
    def read(self, node: Node) -> bool:
        value = scalar(node, "true or false")
        if value not in ("true", "false") or not _plain(node):
            raise Wrong(f"{value!r} is neither true nor false", "Write true or false, without quotes.")
        return value == "true"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Duration:
    positive: bool = False

    def read(self, node: Node) -> float:
        value = scalar(node, "a duration")
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            hint = f"{value}s?" if value.isdecimal() else "For example 500ms, 5s, 1m30s or 2h; a week at most."
            raise Wrong(str(error), hint) from error
        if self.positive and seconds == 0:
            raise Wrong("this has to be longer than nothing", "For example 5s.")
        return seconds

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": DURATION_PATTERN}


@dataclass(frozen=True, slots=True)
class Command:
    """A string, split like a shell would but run by none, or a list."""

    def read(self, node: Node) -> tuple[str, ...]:
        if isinstance(node, SequenceNode):
            words = tuple(self._word(item) for item in node.value)
        else:
            text = scalar(node, "a command (a text or a list)")
            try:
                words = tuple(shlex.split(text))
            except ValueError as error:
                raise Wrong(f"the command cannot be split into words: {error}", "Close the quotes.") from error
            if (found := _SHELL.search(_unquoted(text))) is not None:
                raise Wrong(
                    f"{found.group()!r} means something to a shell, and no shell runs this",
                    'Where one is wanted: sh -c "…".',
                )
        if not words or not words[0]:
            raise Wrong("the command is empty")
        if any("\x00" in word for word in words):
            raise Wrong("the command has a NUL character")
        return words

    def _word(self, node: Node) -> str:
        try:
            return scalar(node, "a word of the command")
        except Wrong as wrong:
            raise Wrong(wrong.message, wrong.hint, node) from wrong

    def schema(self) -> dict[str, Any]:
        word = {"type": ["string", "number", "boolean"]}
        return {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": word, "minItems": 1}]}


def _unquoted(text: str) -> str:
    """What stands outside of quotes and behind no backslash."""
    return re.sub(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"", lambda found: "_" * len(found.group()), text)


@dataclass(frozen=True, slots=True)
class EnvName:
    def read(self, node: Node) -> str:
        value = scalar(node, "the name of a variable")
        if not _ENV_NAME.match(value):
            raise Wrong(f"{value!r} is not the name of a variable", "Letters, digits and _, no digit first.")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Kind | Section
    unique: Callable[[Any], object] = lambda value: value

    def read(self, node: Node) -> tuple[Any, ...]:
        if not isinstance(node, SequenceNode):
            raise Wrong("a list is wanted", "In brackets, or each on a line of its own behind a dash.")
        assert not isinstance(self.item, Section), "the reader reads sections itself"
        values: list[Any] = []
        for each in node.value:
            try:
                value = self.item.read(each)
            except Wrong as wrong:
                raise Wrong(wrong.message, wrong.hint, wrong.node or each) from wrong
            if self.unique(value) in [self.unique(other) for other in values]:
                raise Wrong(f"{self.unique(value)!r} is listed twice", "", each)
            values.append(value)
        return tuple(values)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema()}


@dataclass(frozen=True, slots=True)
class Environment:
    """Names to values; a value is taken as it is written: `010` is "010", `true` is "true"."""

    def read(self, node: Node) -> Mapping[str, str]:
        if not isinstance(node, MappingNode):
            raise Wrong("names and their values are wanted", "For example {LOG_LEVEL: info}.")
        values: dict[str, str] = {}
        for key, value in node.value:
            try:
                at = key
                name = EnvName().read(key)
                if name in values:
                    raise Wrong(f"{name!r} stands here a second time")
                at = value
                values[name] = scalar(value, "a text")
            except Wrong as wrong:
                raise Wrong(wrong.message, wrong.hint, at) from wrong
        return values

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        }


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    kind: Kind | Section
    about: str
    default: Any = None
    required: bool = False
    example: Any = None


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping with keys of its own."""

    fields: tuple[Field, ...]
    ignored: Mapping[str, str] = field(default_factory=dict)
    """Keys of other installations: a warning each, with why."""

    def field(self, name: str) -> Field | None:
        return next((found for found in self.fields if found.name == name), None)

    def schema(self) -> dict[str, Any]:
        properties = {each.name: _described(each) for each in self.fields}
        properties |= {name: {"description": f"Ignored: {why}"} for name, why in self.ignored.items()}
        required = [each.name for each in self.fields if each.required]
        more = {"required": required} if required else {}
        return {"type": "object", "properties": properties, "additionalProperties": False} | more


def _described(each: Field) -> dict[str, Any]:
    described = each.kind.schema() | {"description": each.about}
    if each.default is not None:
        described["default"] = each.default
    if each.example is not None:
        described["examples"] = [each.example]
    return described


def nearest(word: str, words: tuple[str, ...]) -> str:
    """`Did you mean …?`, or what there is."""
    import difflib

    near = difflib.get_close_matches(word, words, 1, 0.6)
    return f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(words)}."
