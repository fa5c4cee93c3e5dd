"""Takes the values of secrets, and credentials in URLs, out of texts.

A value is found as it is, and as base64, percent-encoding and JSON write it; of one with several lines each long
line as well, of a URL its password as well. What overlaps goes as one. Values under four characters are left out: they
are in every text, and guessed at once. Where base64 is broken into lines, or a value is printed letter by letter, it is
not recognised.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

MARK = "•••"
"""Shorter than any value, and of a character that none should hold: what was taken out makes up no other one."""
LEAST_CHARS = 4
_LINE_CHARS = 16
_ANCHOR = 8
_URL_CHARS = 8_192
"""How much of a URL that is not over yet is held back in a stream."""

_CREDENTIALS = re.compile(r"""(?<=://)(?:[^\s/:@"'<>]*:(?P<password>[^\s/"'<>]*)|(?P<token>[^\s/:@"'<>]{20,}))(?=@)""")
_UNFINISHED = re.compile(r""":(?:/(?:/[^\s/"'<>]*)?)?\Z""")
_CUT_CREDENTIALS = re.compile(r"""[^\s/"'<>]+(?=@)""")

Span = tuple[int, int]


def _base64_forms(data: bytes) -> Iterator[str]:
    """As it looks at each place among other bytes, without the characters that those have a part in."""
    for offset, mixed in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")[mixed:]
        if offset == 0:
            yield encoded
        if (offset + len(data)) % 3:
            encoded = encoded[:-1]
        if len(encoded) >= 2 * LEAST_CHARS:
            yield encoded


def forms_of(value: str) -> frozenset[str]:
    """The texts in which a value may appear; none where it is too short."""
    plain = value.strip()
    if len(plain) < LEAST_CHARS:
        return frozenset()
    found = {plain, quote(plain, safe=""), quote(plain), quote_plus(plain)}
    found |= {json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1]}
    lines = plain.splitlines()
    if len(lines) > 1:
        stripped = (line.strip() for line in lines)
        found |= {line for line in stripped if len(line) >= _LINE_CHARS and not line.startswith("-----")}
        found.add("\r\n".join(lines))
    for data in {plain.encode("utf-8", "replace"), value.encode("utf-8", "replace")}:
        for encoded in _base64_forms(data):
            found |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    for password in filter(None, [password_of(plain)]):
        found |= {one for one in (password, unquote(password)) if len(one) >= LEAST_CHARS}
    return frozenset(found)


def password_of(url: str) -> str:
    """The password in a URL, as it stands there; empty where there is none."""
    try:
        return (urlsplit(url).password or "") if "://" in url else ""
    except ValueError:
        return ""


class Scrubber:
    """Knows some values. Immutable."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.values = frozenset(values)

    @cached_property
    def _forms(self) -> tuple[str, ...]:
        return tuple(sorted({form for value in self.values for form in forms_of(value)}, key=len, reverse=True))

    def text(self, text: str, *, cut: bool = False) -> str:
        """The text without them; `cut`: it is a piece of a longer one, and may begin or end within a value."""
        if not text:
            return text
        spans = self.spans(text)
        if cut:
            spans = _merged([*spans, *self._cut(text)])
        return _replaced(text, spans, len(text), covered=0)[0]

    def json(self, value: Any) -> Any:
        """The same value with every text in it scrubbed; `output` is taken for a piece of a longer one."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                name: self.text(inner, cut=True) if name == "output" and isinstance(inner, str) else self.json(inner)
                for name, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.json(inner) for inner in value]
        return value

    def stream(self) -> Stream:
        return Stream(self)

    def spans(self, text: str) -> list[Span]:
        """What is to be taken out, in order; nothing overlaps."""
        found: list[Span] = []
        for form in self._forms:
            at = text.find(form)
            while at != -1:
                found.append((at, at + len(form)))
                at = text.find(form, at + 1)
        if "://" in text:
            matches = _CREDENTIALS.finditer(text)
            found += [match.span("token" if match["password"] is None else "password") for match in matches]
        return _merged(found)

    def open_from(self, text: str) -> int:
        """Where the first value begins that the end of the text may be the beginning of; its length where none does."""
        first = len(text)
        tail_at = max(0, len(text) - _URL_CHARS)
        if (match := _UNFINISHED.search(text, tail_at)) is not None:
            first = match.start()
        for form in self._forms:
            at = max(0, len(text) - len(form) + 1)
            while at < first:
                anchor = form[: min(_ANCHOR, len(text) - at)]
                at = text.find(anchor, at)
                if at == -1:
                    # Less than an anchor is left: each place for itself.
                    at = max(len(text) - len(anchor) + 1, len(text) - len(form) + 1, 0)
                    if len(anchor) == 1:
                        break
                    at = next((near for near in range(at, first) if form.startswith(text[near:])), first)
                    first = min(first, at)
                    break
                if at < first and form.startswith(text[at:]):
                    first = at
                    break
                at += 1
        return first

    def _cut(self, text: str) -> list[Span]:
        found: list[Span] = []
        for form in self._forms:
            if (length := _overlap(form, text, LEAST_CHARS)) > 0:
                found.append((0, length))
            if (length := _overlap(text, form, max(LEAST_CHARS, len(form) // 2))) > 0:
                found.append((len(text) - length, len(text)))
        if (match := _CUT_CREDENTIALS.match(text)) is not None:
            found.append(match.span())
        return found


def _overlap(first: str, second: str, least: int) -> int:
    """With how many characters, at least so many, the first ends that the second begins with; 0 where with fewer."""
    at = max(0, len(first) - len(second))
    while (at := first.find(second[:least], at)) != -1:
        if second.startswith(first[at:]):
            return len(first) - at
        at += 1
    return 0


NOTHING = Scrubber()
"""Knows no value; credentials in URLs go all the same."""


class Stream:
    """Scrubs a text that comes in pieces: what may be the beginning of a value is held back until it is known."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._held = ""
        self._covered = 0
        """So much of the beginning of what is held is of a value whose mark has been passed on."""

    def write(self, text: str) -> str:
        """What can be passed on by now."""
        whole = self._held + text
        return self._pass_on(whole, self._scrubber.open_from(whole))

    def rest(self) -> str:
        """What was held back, at the end."""
        return self._pass_on(self._held, len(self._held))

    def _pass_on(self, whole: str, until: int) -> str:
        spans = self._scrubber.spans(whole)
        if self._covered:
            spans = _merged([(0, self._covered), *spans])
        passed, self._covered = _replaced(whole, spans, until, self._covered)
        self._held = whole[until:]
        return passed


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > begin:
            merged.append((begin, end))
    return merged


def _replaced(text: str, spans: list[Span], until: int, covered: int) -> tuple[str, int]:
    """The text up to there with its marks, and how much of what is behind there belongs to the last of them."""
    parts: list[str] = []
    at, over = 0, 0
    for begin, end in spans:
        if begin >= until and not (begin == 0 and covered):
            break
        parts.append(text[at:begin])
        if not (begin == 0 and covered):
            parts.append(MARK)
        at, over = min(end, until), max(0, end - until)
    parts.append(text[at:until])
    return "".join(parts), over
