"""Fields of forms and of addresses, read with the same limits as the bodies of the API."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import Request
from starlette.datastructures import ImmutableMultiDict

from norn.errors import Invalid
from norn.http.requests import grant_of, who_of
from norn.operations.services import Caller

MAX_NAME = 256
MAX_REASON = 2_000
_MAX_ITEMS = 1_000


class Fields:
    """What was sent, by name; a field that was not sent is empty."""

    def __init__(self, sent: ImmutableMultiDict[str, Any]) -> None:
        self._sent = sent

    def line(self, name: str, limit: int = MAX_NAME) -> str:
        """A name: one line without control characters. Raises Invalid."""
        return _line(name, self._sent.get(name, ""), limit)

    def lines(self, name: str) -> tuple[str, ...]:
        """Names, each as `line`; what is empty is left out. Raises Invalid."""
        values = self._sent.getlist(name)[:_MAX_ITEMS]
        return tuple(filter(None, (_line(name, value, MAX_NAME) for value in values)))

    def text(self, name: str, limit: int = MAX_REASON) -> str:
        """What a person has written, without blanks at its ends. Raises Invalid."""
        value = self._sent.get(name, "")
        if not isinstance(value, str) or "\0" in value or len(value) > limit:
            raise Invalid(f"{name}: at most {limit} characters.")
        return value.strip()

    def ticked(self, name: str) -> bool:
        return bool(self._sent.get(name))


def _line(name: str, value: object, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit or any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise Invalid(f"{name}: one line of at most {limit} characters.")
    return value.strip()


async def form_of(request: Request) -> tuple[Fields, Caller]:
    """The form that was sent, and who sent it.

    Its hidden `key` makes it the same request when it is sent again: by a second press, or by loading the answer anew.
    """
    sent = await request.form(max_files=0, max_fields=_MAX_ITEMS)
    fields = Fields(sent)
    key = fields.line("key")
    who, digest = who_of(request), ""
    if key:
        items = sorted((name, str(value)) for name, value in sent.multi_items() if name != "csrf")
        digest = hashlib.sha256(f"{request.url.path}\n{items!r}".encode()).hexdigest()
    return fields, Caller(who.actor, key or None, digest, who.token, who.address, grant_of(request))
