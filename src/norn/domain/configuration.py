"""What an app is told when it starts, compared by keyed hashes, and what of the way it is run has to fit an image."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from norn.domain.verdict import Finding, Level, Way

Texts = Mapping[str, str]
"""By what it is (`env LOG_LEVEL`), its value: in memory only, never stored."""
Digests = Mapping[str, str]
"""By what it is, the keyed hash of its value, which tells only what is equal."""
Shape = Mapping[str, str]
"""By what it is (`port of web`), how it is declared: what of a template has to fit an image."""

IN_TEMPLATE = ("env ", "template ", "volumes", "pod")
"""What is written in the template itself, and comes back with it."""
_DIGITS = 32
_NAMED = 8


def digests(values: Texts, key: bytes) -> dict[str, str]:
    """HMAC-SHA-256 (RFC 2104) of each value under its name, so that equal values do not show as such; 128 bits."""
    return {
        name: hmac.new(key, f"{name}\0{value}".encode(), hashlib.sha256).hexdigest()[:_DIGITS]
        for name, value in values.items()
    }


def configuration_finding(then: Digests, now: Digests, app: str, image_tag: str) -> Finding | None:
    """What a rollback of the image leaves as it is, and was otherwise when the target ran; None where all is the same.

    What was only added is said, and does no harm.
    """
    changed = sorted(name for name in then.keys() & now.keys() if then[name] != now[name])
    removed = sorted(then.keys() - now.keys())
    added = sorted(now.keys() - then.keys())
    if not (changed or removed or added):
        return None
    said = [f"{', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''} {verb}"
            for names, verb in ((changed, "changed"), (removed, "removed"), (added, "added")) if names]  # fmt: skip
    return Finding(
        "configuration_changed",
        Level.CAUTION if changed or removed else Level.SAFE,
        f"Since {image_tag} ran, this is different and stays so: {'; '.join(said)}.",
        {"changed": changed, "removed": removed, "added": added},
        (
            Way(
                "Brings back the variables of that version, with its whole template; secrets are set by hand.",
                f"norn rollback {app} --to {image_tag} --template",
            ),
        )
        if any(name.startswith(IN_TEMPLATE) for name in (*changed, *removed))
        else (),
    )


def template_finding(then: Shape, now: Shape, app: str, image_tag: str) -> Finding | None:
    """Where the image would be run in a way that it was not made for; None where that fits."""
    different = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    if not different:
        return None
    return Finding(
        "template_incompatible",
        Level.UNSAFE,
        f"{image_tag} was run otherwise than what is live: {', '.join(different)}. Its image alone may not start so.",
        {"different": different},
        (
            Way(
                "Brings back the whole template of that version, and not the image alone.",
                f"norn rollback {app} --to {image_tag} --template",
            ),
        ),
    )
