"""What a secret may be called, and what its value may be. No message repeats either."""

from __future__ import annotations

import re

from norn.errors import Invalid

MAX_BYTES = 65_536
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")


def check_name(name: str) -> None:
    """Raises Invalid for what an environment cannot hold as a name: somebody may have written the value behind it."""
    if not NAME.match(name):
        raise Invalid("This is not the name of a secret.", hint="Letters, digits and _, no digit first.")


def check_value(value: str) -> None:
    """Raises Invalid for a value over 64 KiB, or one that an environment cannot hold."""
    if "\x00" in value or len(value.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise Invalid("The value has a NUL or is over 64 KiB.", hint="Keep files elsewhere, and their path here.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Invalid("The value is not text.", hint="Encode it, with base64 for example.") from error
