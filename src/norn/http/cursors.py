"""Where a page of a list, or a stream of events, ended, as callers give it back."""

from __future__ import annotations

import base64
import binascii

from norn.errors import Malformed

_DIGITS = 19
"""So many has 2**63; of very many Python makes no number at all."""


def encode_cursor(seq: int) -> str:
    return base64.urlsafe_b64encode(str(seq).encode()).decode().rstrip("=")


def number_of(text: str) -> int | None:
    """The number that an entry or an event may have; None where the text is none."""
    digits = text.isascii() and text.isdecimal() and len(text) <= _DIGITS
    return int(text) if digits and int(text) < 2**63 else None


def decode_cursor(cursor: str | None) -> int | None:
    """Raises Malformed."""
    if cursor is None:
        return None
    try:
        seq = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error) as error:
        raise Malformed("The cursor is not one of this server's.", hint="Take it from the page before.") from error
    if not 0 <= seq < 2**63:
        raise Malformed("The cursor is not one of this server's.", hint="Take it from the page before.")
    return seq
