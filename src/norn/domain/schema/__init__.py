"""Will old code run on the new schema? Schemas as data, and what each change between two of them does to it."""

from norn.domain.schema.access import Access
from norn.domain.schema.change import Change, Effect
from norn.domain.schema.compare import changes
from norn.domain.schema.contents import StepLoss, lost_on_the_way, step_losses
from norn.domain.schema.findings import drift_finding, schema_findings, unread_tables
from norn.domain.schema.state import Schema

__all__ = [
    "Access",
    "Change",
    "Effect",
    "Schema",
    "StepLoss",
    "changes",
    "drift_finding",
    "lost_on_the_way",
    "schema_findings",
    "step_losses",
    "unread_tables",
]
