"""Names of images: `<app>:<first 12 of the commit>`, and what a person may call a version."""

from __future__ import annotations

import re
from dataclasses import dataclass

TAG_LENGTH = 12
MIN_PREFIX = 4
_HEX = re.compile(r"[0-9a-f]{4,64}\Z")


@dataclass(frozen=True, slots=True)
class Image:
    """One built version of an app: what runs is the digest, what people see is the tag."""

    tag: str
    """`myapp:abc123def456`, with a registry in front where one is configured."""
    digest: str
    """`sha256:` and 64 hexadecimal digits, of all that the image contains."""
    commit_sha: str
    """The whole commit id (40 or 64 hexadecimal digits)."""


def image_tag(app: str, commit_sha: str, registry: str | None = None) -> str:
    """The tag under which the build of a commit is known."""
    name = f"{app}:{commit_sha[:TAG_LENGTH]}"
    return f"{registry.rstrip('/')}/{name}" if registry else name


def commit_prefix(app: str, version: str) -> str | None:
    """The commit prefix that `version` names for `app`, or None where it cannot be one.

    `myapp:abc123`, `registry.example.com/myapp:abc123` and `abc123` all give `abc123`. A tag of another app, fewer
    than four digits, or anything that is not hexadecimal gives None.
    """
    name, colon, tag = version.rpartition(":")
    if colon and name.rpartition("/")[2] != app:
        return None
    tag = tag.lower()
    return tag if _HEX.match(tag) else None
