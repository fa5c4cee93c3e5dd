"""The text of definitions, where PostgreSQL writes one thing in two ways: as first parsed, and as read back.

`x IN (…)` is what it happens to. Nothing else is known to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ARRAY = "(ARRAY["
_CAST = re.compile(r"\]\)::([a-z_\" .]+)\[\]", re.IGNORECASE)
_OPERATOR = re.compile(r" (OR|AND) ")
_QUOTES = "'\""


def settled(definition: str) -> str:
    """As PostgreSQL writes it in a restored copy, and from then on.

    >>> settled("((x)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[]))")
    "((x)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text]))"
    >>> settled("(((x = a) OR (x = b)) OR (x = c))")
    '((x = a) OR (x = b) OR (x = c))'
    """
    return _flat(_cast_one_by_one(definition))


def _cast_one_by_one(definition: str) -> str:
    """`x IN ('a', 'b')` on a varchar casts a whole array at first, and each of its items when it is read back."""
    if _ARRAY not in definition:
        return definition
    starts = [place for place, _ in _unquoted(definition) if definition.startswith(_ARRAY, place)]
    for start in reversed(starts):  # from the end on, where nothing that is still to come moves
        items, end = _items(definition, start + len(_ARRAY))
        cast = _CAST.match(definition, end)
        if cast:
            array = ", ".join(f"({item})::{cast[1]}" for item in items)
            definition = f"{definition[:start]}ARRAY[{array}]{definition[cast.end() :]}"
    return definition


def _flat(definition: str) -> str:
    """`x IN (a, b, c)` of columns is `(… OR …) OR …` at first: the inner parentheses go when it is read back."""
    if ") OR " not in definition and ") AND " not in definition:
        return definition
    groups: list[tuple[int, set[str]]] = []  # where each open one begins, and what is between its parts
    dropped = set()
    for place, letter in _unquoted(definition):
        if letter == "(":
            groups.append((place, set()))
        elif letter == " " and groups:
            operator = _OPERATOR.match(definition, place)
            if operator:
                groups[-1][1].add(operator[0])
        elif letter == ")" and groups:
            start, operators = groups.pop()
            follows = _OPERATOR.match(definition, place + 1)
            if follows and operators == {follows[0]} and groups and groups[-1][0] == start - 1:
                dropped |= {start, place}
    return "".join(letter for place, letter in enumerate(definition) if place not in dropped)


def _items(text: str, start: int) -> tuple[list[str], int]:
    """The items of a list that begins there, and where the bracket is that ends it."""
    items: list[str] = []
    depth, first = 0, start
    for place, letter in _unquoted(text, start):
        if letter in "([":
            depth += 1
        elif letter in ")]" and depth:
            depth -= 1
        elif letter == "]":
            return [*items, text[first:place]], place
        elif letter == "," and not depth:
            items.append(text[first:place])
            first = place + 2
    return items, len(text)


def _unquoted(text: str, start: int = 0) -> Iterator[tuple[int, str]]:
    """The letters that are not within quotes, and where they are."""
    quote = ""
    for place in range(start, len(text)):
        letter = text[place]
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        else:
            yield place, letter
