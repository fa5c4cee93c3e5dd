"""Will old code run on the new schema? Schemas as data, and what each change between two of them does to it."""

from norn.domain.schema.access import Access
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.compare import Schema, changes

__all__ = ["Access", "Change", "Effect", "Schema", "changes"]
