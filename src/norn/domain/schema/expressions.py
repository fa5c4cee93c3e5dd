"""Conditions as PostgreSQL writes them: whether two are the same, and whether a null passes one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_TEXT, _NAME = r"'(?:[^']|'')*'", r'"(?:[^"]|"")*"'
_NUMBERS = r"(?:smallint|integer|bigint|numeric|real|double precision)"
_CAST = re.compile(
    rf"(?P<constant>{_TEXT}|\(-?[\d.]+\))::{_NUMBERS}(?![\w(\[])"
    rf"|(?P<text>(?P<open>\()?(?P<thing>{_TEXT}|\w+|{_NAME})(?(open)\)))::(?:text|character varying)(?![\w(\[])"
    rf"|{_TEXT}|{_NAME}"
)
_SINGLE = re.compile(rf'(?<![\w"])\((?P<what>[\w.]+|{_TEXT}|{_NAME})\)|{_TEXT}|{_NAME}')
_LIST = re.compile(r"(?:ANY|ALL) \(\(?ARRAY\[0(?:, 0)*\]\)?\)")
_WORD = re.compile(rf"{_NAME}|[A-Za-z_]\w*")
_ANY_CAST = re.compile(
    r"::(?:character varying|double precision|(?:time|timestamp)(?:\(\d\))? with(?:out)? time zone"
    rf"|(?:[a-z_]\w*|{_NAME})(?:\.(?:[a-z_]\w*|{_NAME}))?)(?:\([\d,]+\))?(?:\[\])?"
)
_COUNTED = re.compile(r"^num_nonnulls\((?P<columns>[^()]+)\) (?:=|>=) [1-9]\d*$")
_STRICT = {"length", "char_length", "character_length", "octet_length", "lower", "upper", "btrim", "abs", "round",
           "cardinality", "array_length", "jsonb_typeof"}  # fmt: skip
"""Functions of PostgreSQL's own that are null where an argument is; others have a schema before their names."""


def unquoted(text: str) -> Iterator[tuple[int, str]]:
    """The letters that are not within quotes, and where they are."""
    quote = ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            yield place, letter


def plain(text: str, texts: Collection[str] = ()) -> str:
    """Without casts that are there for the type of a column only, and without parentheses around a single thing.

    Args:
        texts: the columns that hold text.

    >>> plain("((title)::text <> ''::text)", {"title"}) == plain("(title <> ''::text)", {"title"})
    True
    >>> plain("((a AND b) OR c)") == plain("(a AND (b OR c))")
    False
    """

    def uncast(found: re.Match[str]) -> str:
        if found["thing"] and (found["thing"].startswith("'") or found["thing"] in texts):
            return found["text"]
        return found["constant"] or found[0]

    while (simpler := _SINGLE.sub(lambda found: found["what"] or found[0], _CAST.sub(uncast, text))) != text:
        text = simpler
    return text


def balanced(text: str) -> bool:
    """Whether each parenthesis in it has its other half."""
    depth = 0
    for _, letter in unquoted(text):
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            return False
    return depth == 0


def null_passes(expression: str, null: Collection[str], *, others_pass: bool) -> bool:
    """Whether a check is certain to let a row pass that has null in these columns; false where it is not certain.

    Args:
        others_pass: whether what does not name these columns is satisfied.

    >>> null_passes("((tax > 0) AND (tax < 100))", {"tax"}, others_pass=False)
    True
    >>> null_passes("(COALESCE(tax, 0) > 0)", {"tax"}, others_pass=True)
    False
    """
    text = _inner(expression)
    if len(parts := _split(text, " AND ")) > 1:
        return all(null_passes(part, null, others_pass=others_pass) for part in parts)
    if len(parts := _split(text, " OR ")) > 1:  # one that is null or true is enough
        return any(null_passes(part, null, others_pass=False) for part in parts) or (
            others_pass and not _names(text, null)
        )
    if text.endswith(" IS NULL") and text.removesuffix(" IS NULL") in null:
        return True
    return _is_null(text, null) or (others_pass and not _names(text, null))


def null_fails(expression: str, null: Collection[str]) -> bool:
    """Whether a check is certain to refuse a row that has null in these columns; false where it is not certain.

    >>> null_fails("((email IS NOT NULL) OR (phone IS NOT NULL))", {"email", "phone"})
    True
    """
    text = _inner(expression)
    if len(parts := _split(text, " AND ")) > 1:
        return any(null_fails(part, null) for part in parts)
    if len(parts := _split(text, " OR ")) > 1:
        return all(null_fails(part, null) for part in parts)
    if counted := _COUNTED.match(text):
        return set(counted["columns"].split(", ")) <= set(null)
    return text.endswith(" IS NOT NULL") and text.removesuffix(" IS NOT NULL") in null


def _names(text: str, null: Collection[str]) -> bool:
    return any(word in null for word in _WORD.findall(re.sub(_TEXT, "0", text)))


def _is_null(text: str, null: Collection[str]) -> bool:
    """Whether it is made of nothing but operators and functions that give null for a null."""
    text = _ANY_CAST.sub("", re.sub(_TEXT, "0", text))
    while (simpler := _SINGLE.sub(lambda found: found["what"] or found[0], text)) != text:
        text = simpler
    text = re.sub(r"\b\d+(?:\.\d+)?\b", "0", text)
    text = _LIST.sub("0", text).replace("[0]", "")
    if re.search(r"[^\w\s\"().,<>=~+*/%!-]", text):
        return False
    words = _WORD.findall(text)
    called = set(re.findall(r"([\w.\"]+)\(", text))
    if not called <= _STRICT or {"IS", "CASE", "ANY", "ALL", "ARRAY", "AND", "OR"} & set(words):
        return False
    return any(word in null for word in words)


def _inner(text: str) -> str:
    """Without parentheses around the whole."""
    while text.startswith("(") and text.endswith(")") and balanced(text[1:-1]):
        text = text[1:-1]
    return text


def _split(text: str, operator: str) -> list[str]:
    """At the operators that are in no parentheses."""
    depth, first, parts = 0, 0, []
    for place, letter in unquoted(text):
        depth += (letter in "([") - (letter in ")]")
        if depth == 0 and text.startswith(operator, place):
            parts.append(text[first:place])
            first = place + len(operator)
    return [*parts, text[first:]]
