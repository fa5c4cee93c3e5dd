"""Reads YAML into nodes that know their place, and refuses what a configuration file has no need of.

Aliases (they explode), tags (they build objects), merge keys, several documents, deep nesting and large files.
Duplicate keys, too: YAML's last one wins, and nobody sees the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml
from yaml.events import AliasEvent, CollectionStartEvent, DocumentStartEvent, Event, NodeEvent, ScalarEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from norn.domain.infraspec.problems import Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """The document cannot be read at all."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read_document(text: bytes | str, path: str) -> MappingNode:
    """The top-level mapping. Raises Refused with the first thing that is wrong."""
    decoded = _decode(text, path)
    try:
        _look_at_events(decoded, path)
        root = yaml.compose(decoded, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise Refused(Problem(path, line, column, "", f"this is not YAML: {what}")) from error
    except yaml.YAMLError as error:
        raise Refused(Problem(path, 1, 1, "", f"this is not YAML: {error}")) from error
    if root is None:
        raise Refused(Problem(path, 1, 1, "", "the file is empty", "It needs at least `app`, `role` and `command`."))
    if not isinstance(root, MappingNode):
        raise Refused(_at(path, root, "the file is no mapping", "It begins with `app: NAME`."))
    return root


def entries(node: MappingNode, path: str) -> tuple[dict[str, tuple[ScalarNode, Node]], list[Problem]]:
    """The entries of a mapping by key; problems for keys that are no text, and for those that come twice."""
    found: dict[str, tuple[ScalarNode, Node]] = {}
    problems = []
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            problems.append(_at(path, key, "a key has to be a word"))
        elif key.value in found:
            first = found[key.value][0].start_mark.line + 1
            problems.append(_at(path, key, f"{key.value!r} stands here a second time (first in line {first})"))
        else:
            found[key.value] = (key, value)
    return found, problems


def place(node: Node) -> tuple[int, int]:
    """Line and column of a node, from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def _at(path: str, node: Node, message: str, hint: str = "") -> Problem:
    return Problem(path, *place(node), "", message, hint)


def _decode(text: bytes | str, path: str) -> str:
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        limit = f"the file has {size:,} bytes; at most {MAX_BYTES:,} are read"
        raise Refused(Problem(path, 1, 1, "", limit, "An infraspec is a page of text."))
    if isinstance(text, bytes):
        raw = text
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            column = error.start - raw.rfind(b"\n", 0, error.start)
            raise Refused(Problem(path, line, column, "", "the file is not UTF-8", "Save it as UTF-8.")) from error
    nul = text.find("\x00")
    if nul >= 0:
        line, column = text.count("\n", 0, nul) + 1, nul - text.rfind("\n", 0, nul)
        raise Refused(Problem(path, line, column, "", "the file has a NUL character", "Remove it."))
    return text


def _look_at_events(text: str, path: str) -> None:
    """Everything is refused here, before a node is built: an alias costs nothing until it is followed."""
    depth = documents = 0
    for event in _events(text):
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)

        def refuse(message: str, hint: str, line: int = line, column: int = column) -> Refused:
            return Refused(Problem(path, line, column, "", message, hint))

        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise refuse("a second document begins", "One file describes one app.")
        if isinstance(event, AliasEvent):
            raise refuse(f"*{event.anchor} is an alias; aliases are not read", "Write the value out.")
        if isinstance(event, NodeEvent) and event.anchor is not None:
            raise refuse(f"&{event.anchor} is an anchor; anchors are not read", "Write the value out where it is used.")
        if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None:
            raise refuse(f"{event.tag} is a tag; tags are not read", "Remove it; quote the value if it is a text.")
        if isinstance(event, ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise refuse("<< is a merge key; these are not read", "Write the values out.")
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise refuse(f"this is nested more than {MAX_DEPTH} deep", "An infraspec is not.")
        elif isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1


def _events(text: str) -> Iterator[Event]:
    events: Iterator[Event] = yaml.parse(text, Loader=_LOADER)
    return events


__all__ = ["MappingNode", "Node", "Refused", "ScalarNode", "SequenceNode", "entries", "place", "read_document"]
