"""What an app is told when it starts, compared by keyed hashes, and what of the way it is run has to fit an image."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterator, Mapping, Sequence

from norn.domain.verdict import Finding, Level, Way, not_checked

Texts = Mapping[str, str]
"""By what it is (`env LOG_LEVEL`), its value: in memory only, never stored."""
Digests = Mapping[str, str]
"""By what it is, the keyed hash of its value, which tells only what is equal."""
Shape = Mapping[str, str]
"""By what it is (`port of web`), how it is declared: what of a template has to fit an image."""

IN_TEMPLATE = ("env ", "template ", "volumes", "pod")
"""What is written in the template itself, and comes back with it."""
UNREAD, NOTED = "unread ", "noted "
"""Before the name of a Secret or ConfigMap that Norn may not read. Of one that it fills itself it has noted when."""
_DIGITS = 32
_NAMED = 8
_HIDDEN = "secret "


def digests(values: Texts, key: bytes) -> dict[str, str]:
    """HMAC-SHA-256 (RFC 2104) of each value under its name, so that equal values do not show as such; 128 bits."""
    return {
        name: hmac.new(key, f"{name}\0{value}".encode(), hashlib.sha256).hexdigest()[:_DIGITS]
        for name, value in values.items()
    }


def foreseen(now: Digests, before: Texts, after: Texts) -> Digests:
    """What a version will be told that is about to be deployed over another, which is told what `now` says.

    Args:
        before: the variables that are declared for the one.
        after: and for the other.
    """
    found = dict(now)
    for name in before.keys() | after.keys():
        if name not in after:
            found.pop(f"env {name}", None)
        elif before.get(name) != after[name]:
            found[f"env {name}"] = ""  # it is no digest of anything
    return found


def _readable(then: Digests, now: Digests) -> tuple[Digests, Digests]:
    """Both without what could not be read for one of them: it is neither removed nor added."""
    hidden = tuple(
        f"{name.removeprefix(mark)}/" for name in (*then, *now) for mark in (UNREAD, NOTED) if name.startswith(mark)
    )
    left_out = (UNREAD, NOTED, *hidden)
    kept = [{name: value for name, value in side.items() if not name.startswith(left_out)} for side in (then, now)]
    return kept[0], kept[1]


def unread_finding(then: Digests, now: Digests) -> Finding | None:
    """What may be another one without anybody knowing; None where there is no such thing."""
    names = sorted({name.removeprefix(UNREAD) for name in (*then, *now) if name.startswith(UNREAD)})
    if not names:
        return None
    may_not = f"Norn may not read {', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''}"
    return not_checked(
        "the configuration",
        may_not,
        Way("Lets Norn read them, of which it keeps keyed hashes: name them in deploy/kubernetes/rbac.yaml."),
    )


def configuration_finding(
    then: Digests, now: Digests, app: str, image_tag: str, set_since: Collection[str] = ()
) -> Finding | None:
    """What a rollback of the image leaves as it is, and was otherwise when the target ran; None where all is the same.

    What was only added is said, and does no harm.

    Args:
        set_since: secrets that Norn has set or removed since, and may not read.
    """
    then, now = _readable(then, now)
    noted = [f"secret {name}" for name in set_since]
    changed = sorted(noted + [name for name in then.keys() & now.keys() if then[name] != now[name]])
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
        tuple(_ways([*changed, *removed], app, image_tag)),
    )


def _ways(different: Sequence[str], app: str, image_tag: str) -> Iterator[Way]:
    written = [name for name in different if name.startswith(IN_TEMPLATE)]
    own = (name.removeprefix(_HIDDEN).removeprefix(f"{app}-secrets/") for name in different if name.startswith(_HIDDEN))
    secrets = [name for name in own if "/" not in name]
    if written:
        yield Way(
            "Brings back the variables of that version, with its whole template; secrets are set by hand.",
            f"norn rollback {app} --to {image_tag} --template",
        )
    for name in secrets[:_NAMED]:
        yield Way(
            f"Sets {name} as that version had it, which Norn has not kept; processes get it when they start.",
            f"norn secrets set {app} {name}",
        )
    if len(written) + len(secrets) < len(different):
        yield Way("Look at what that version expects of the rest, and set it back by hand where it needs it.")


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
