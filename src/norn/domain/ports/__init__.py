"""What the operations need of the outside world, as protocols; `norn.adapters` keeps them.

Everything here may be called again after a crash at any moment: an adapter looks at the world first, then acts.
Anything that goes wrong is a `NornError`.
"""

from norn.domain.ports.databases import AppDatabase, Databases, Moment, Restores, Room, Schemas, Snapshots, Verification
from norn.domain.ports.dependencies import Dependencies, DependencyAnswer
from norn.domain.ports.output import Output
from norn.domain.ports.runtimes import (
    Bounds,
    Direct,
    Found,
    Health,
    Images,
    Live,
    Presence,
    Release,
    Runtime,
    Switch,
    Template,
    Turn,
    Workload,
)
from norn.domain.ports.secrets import Secrets
from norn.domain.ports.sources import AppDirectory, Commit, Source

__all__ = [
    "AppDatabase",
    "AppDirectory",
    "Bounds",
    "Commit",
    "Databases",
    "Dependencies",
    "DependencyAnswer",
    "Direct",
    "Found",
    "Health",
    "Images",
    "Live",
    "Moment",
    "Output",
    "Presence",
    "Release",
    "Restores",
    "Room",
    "Runtime",
    "Schemas",
    "Secrets",
    "Snapshots",
    "Source",
    "Switch",
    "Template",
    "Turn",
    "Verification",
    "Workload",
]
