"""Where a page of a list ended, as callers give it back."""

from __future__ import annotations

import base64
import binascii

from norn.errors import Malformed


def encode_cursor(seq: int) -> str:
    return base64.urlsafe_b64encode(str(seq).encode()).decode().rstrip("=")


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
