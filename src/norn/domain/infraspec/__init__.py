"""infraspec.yaml: what an app needs, read and checked."""

from norn.domain.infraspec.spec import (
    Artifacts,
    Build,
    Dependency,
    Hosts,
    Infraspec,
    Migrations,
    PostgresService,
    Receiver,
    Repo,
    Role,
    RollbackPolicy,
    SnapshotPolicy,
)

__all__ = [
    "Artifacts",
    "Build",
    "Dependency",
    "Hosts",
    "Infraspec",
    "Migrations",
    "PostgresService",
    "Receiver",
    "Repo",
    "Role",
    "RollbackPolicy",
    "SnapshotPolicy",
]
