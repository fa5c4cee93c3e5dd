"""What is gone although the schema agrees: over several migrations, what one took away another may have put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from norn.domain.schema.change import Change, Effect
from norn.domain.schema.compare import changes
from norn.domain.schema.state import Schema

_GONE = ("column_dropped", "relation_dropped", "contents_lost")


def lost_on_the_way(chain: Sequence[Schema], net: Sequence[Change]) -> Iterator[Change]:
    """Contents that were lost in one of the steps, and of which the first schema and the last say nothing.

    Args:
        chain: the schema as the target left it, those after it, and the present one.
        net: the changes between the first and the last.
    """
    there = {entry.label for entry in chain[0].catalog}
    swapped = max((n for n, one in enumerate(chain, 1) if one.database != chain[-1].database), default=0)
    if not swapped and len(chain) <= 2:
        return  # the one step is all there is
    chain = chain[swapped:]  # what was done to a database before another one took its place is of no account
    told = {change.subject for change in net if change.effect is not Effect.HARMLESS}
    for before, after in pairwise(chain):
        for change in changes(before, after):
            if change.subject in told or change.subject not in there:
                continue
            converted = change.code == "type_changed" and change.effect is not Effect.HARMLESS
            if change.code not in _GONE and not converted:
                continue
            told.add(change.subject)
            what = "was converted to another type and back" if converted else "was dropped or emptied, and is back"
            yield Change(
                "contents_lost",
                Effect.CONTENTS_LOST,
                change.subject,
                f"The {change.subject} {what}: the schema agrees, and what was in it may not.",
                change.relation,
                facts=change.facts,
            )
