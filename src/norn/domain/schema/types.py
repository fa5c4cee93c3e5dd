"""What it means for old code when a column has another type than it knows.

Which casts happen by themselves: https://www.postgresql.org/docs/current/typeconv.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from norn.domain.schema.change import Effect
from norn.domain.schema.structure import Structure, facts_of

_TYPE = re.compile(
    r"^(?P<base>.*?)(?:\((?P<mods>[\d,-]+)\))?(?P<rest>(?: with(?:out)? time zone)?)(?P<array>(?:\[\])*)$"
)
_INTEGERS = ("smallint", "integer", "bigint")
_FLOATS = ("real", "double precision")
_TEXTS = ("text", "character varying")
_TIMES = ("date", "timestamp without time zone", "timestamp with time zone")

Meaning = tuple[Effect, str]


class _Type:
    def __init__(self, text: str) -> None:
        found = _TYPE.match(text)
        assert found is not None
        self.text = text
        self.base = found["base"] + found["rest"]
        self.mods = tuple(int(mod) for mod in found["mods"].split(",")) if found["mods"] else ()
        self.array = found["array"]


def compare_types(
    old: str, new: str, before: Structure, after: Structure, renamed: Mapping[str, str] | None = None
) -> Meaning | None:
    """The effect of a column's new type on old code, and why; None where it is the same type.

    Args:
        renamed: types of the old schema that are called otherwise in the new one.
    """
    was, now = _Type(old), _Type(new)
    base = (renamed or {}).get(was.base, was.base)
    if base == now.base and was.mods == now.mods and was.array == now.array:
        return None
    if was.array != now.array:
        return Effect.BREAKS_WRITES, "an array and a single value are not the same"
    return (
        _by_modifiers(was, now)
        or _within_texts(was, now)
        or _within_numbers(was, now)
        or _within_times(was, now)
        or _enums(was.base, now.base, before, after)
        or _domains(was, now, before, after)
        or _documents(was.base, now.base)
        or (Effect.BREAKS_WRITES, "what was valid before may not be valid any more, and comparisons may fail")
    )


def _by_modifiers(was: _Type, now: _Type) -> Meaning | None:
    """The same type with another length or precision."""
    if was.base != now.base:
        return None
    if was.base in ("character varying", "character", "bit varying", "bit"):
        if not now.mods or (was.mods and now.mods[0] >= was.mods[0]):
            same_form = was.base in ("character varying", "bit varying")
            return (Effect.HARMLESS, "it is longer") if same_form else (Effect.CHANGES_MEANING, "it is padded further")
        return Effect.BREAKS_WRITES, "values that were not too long before are now"
    if was.base == "numeric":
        if not now.mods:
            return Effect.HARMLESS, "it holds more digits"
        if not was.mods:
            return Effect.BREAKS_WRITES, "values that had room before may have none"
        (wide, fine), (wider, finer) = _precision(was.mods), _precision(now.mods)
        if wider - finer < wide - fine:
            return Effect.BREAKS_WRITES, "values that had room before may have none"
        return (Effect.HARMLESS, "it holds more digits") if finer >= fine else (
            Effect.CHANGES_MEANING, "values are rounded further")  # fmt: skip
    return Effect.CHANGES_MEANING, "its precision is another one"


def _precision(mods: tuple[int, ...]) -> tuple[int, int]:
    return mods[0], mods[1] if len(mods) > 1 else 0


def _within_texts(was: _Type, now: _Type) -> Meaning | None:
    if was.base in _TEXTS and now.base in _TEXTS:
        if now.base == "text" or not now.mods:
            return Effect.HARMLESS, "it holds the same, and longer ones"
        return Effect.BREAKS_WRITES, "values that were not too long before are now"
    if was.base == "character" and now.base in _TEXTS:
        if now.mods and was.mods and now.mods[0] < was.mods[0]:
            return Effect.BREAKS_WRITES, "values that were not too long before are now"
        return Effect.CHANGES_MEANING, "blanks at the end count now"
    if {was.base, now.base} <= {*_TEXTS, "public.citext"}:
        return Effect.CHANGES_MEANING, "whether capital letters count is another matter now"
    return None


def _within_numbers(was: _Type, now: _Type) -> Meaning | None:
    numbers = (*_INTEGERS, "numeric", *_FLOATS)
    if was.base not in numbers or now.base not in numbers:
        return None
    if was.base in _INTEGERS and now.base in _INTEGERS:
        if _INTEGERS.index(now.base) < _INTEGERS.index(was.base):
            return Effect.BREAKS_WRITES, "large values do not fit any more"
        return Effect.CHANGES_MEANING, "values may be larger than old code expects"
    if now.base in _INTEGERS:
        return Effect.BREAKS_WRITES, "fractions are lost, and large values do not fit any more"
    if now.base == "numeric" and now.mods:
        return Effect.BREAKS_WRITES, "values that had room before may have none"
    return Effect.CHANGES_MEANING, "drivers give another kind of number"


def _within_times(was: _Type, now: _Type) -> Meaning | None:
    if was.base in _TIMES and now.base in _TIMES:
        return Effect.CHANGES_MEANING, "times are read in another way"
    return None


def _documents(old: str, new: str) -> Meaning | None:
    if (old, new) == ("json", "jsonb"):
        return Effect.CHANGES_MEANING, "the order of keys, and repeated ones, are not kept"
    return None


def _enums(old: str, new: str, before: Structure, after: Structure) -> Meaning | None:
    was, now = before.enums.get(old), after.enums.get(new)
    if was is None:
        return None
    if new in _TEXTS:
        return Effect.CHANGES_MEANING, "it holds any text now"
    if now is None:
        return None
    known = {label for _, label in facts_of(now)["labels"]}
    if all(label in known for _, label in facts_of(was)["labels"]):
        return Effect.CHANGES_MEANING, "its values are of another type, which has the same ones"
    return Effect.BREAKS_WRITES, "values that were valid before are not any more"


def _domains(was: _Type, now: _Type, before: Structure, after: Structure) -> Meaning | None:
    theirs = before.domains.get(was.base)
    ours = after.domains.get(now.base)
    if ours is not None:
        if facts_of(ours)["notNull"] or after.parts("constraint", ours):
            return Effect.BREAKS_WRITES, "the domain allows less"
        new = str(facts_of(ours)["base"])
    elif theirs is not None:
        new = now.text
    else:
        return None
    old = str(facts_of(theirs)["base"]) if theirs is not None else was.text
    return compare_types(old, new, before, after) or (Effect.HARMLESS, "it holds the same")
