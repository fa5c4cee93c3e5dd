"""What is gone although the schema agrees: over several migrations, what one took away another may have put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from norn.domain.schema.change import Change, Effect
from norn.domain.schema.compare import changes
from norn.domain.schema.state import Schema

_GONE = ("column_dropped", "relation_dropped", "contents_lost")


@dataclass(frozen=True, slots=True)
class StepLoss:
    """Something whose contents were lost between two records that follow each other."""

    subject: str
    """As the schema before it calls it: `column public.notes.title`."""
    relation: str
    converted: bool
    """It is there, with another type."""

    def to_json(self) -> list[Any]:
        return [self.subject, self.relation, self.converted]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> StepLoss:
        """Raises ValueError where it is none."""
        subject, relation, converted = value
        return cls(str(subject), str(relation), bool(converted))


def step_losses(before: Schema, after: Schema) -> tuple[StepLoss, ...]:
    """What is written down of each step, so that nobody has to compare all of them again later."""
    found = []
    for change in changes(before, after):
        converted = change.code == "type_changed" and change.effect is not Effect.HARMLESS
        if change.code in _GONE or converted:
            found.append(StepLoss(change.subject, change.relation, converted))
    return tuple(found)


def lost_on_the_way(left: Schema, net: Sequence[Change], steps: Sequence[StepLoss]) -> Iterator[Change]:
    """Contents that were lost in one of the steps, and of which the first schema and the last say nothing.

    Args:
        left: the schema as the target left it.
        net: the changes between it and the present one.
        steps: what was lost since, the oldest first.
    """
    told = {change.subject for change in net if change.effect is not Effect.HARMLESS}
    there: Mapping[str, object] = {entry.label: None for entry in left.catalog}
    for step in steps:
        if step.subject in told or step.subject not in there:
            continue
        told.add(step.subject)
        what = "was converted to another type and back" if step.converted else "was dropped or emptied, and is back"
        yield Change(
            "contents_lost",
            Effect.CONTENTS_LOST,
            step.subject,
            f"The {step.subject} {what}: the schema agrees, and what was in it may not.",
            step.relation,
        )
