"""What an infraspec.yaml says, as values. Durations are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["webserver", "worker"]


@dataclass(frozen=True, slots=True)
class Hosts:
    internal: str | None = None
    external: str | None = None


@dataclass(frozen=True, slots=True)
class Repo:
    url: str
    branch: str = "main"


@dataclass(frozen=True, slots=True)
class Build:
    """Commands are argument lists; no shell sees them."""

    dockerfile: str | None = None
    command: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class PostgresService:
    database: str
    url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Migrations:
    command: tuple[str, ...]
    lock_timeout_s: float = 5.0
    at_start: bool = False
    """The app migrates when it starts, too."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    retain: int = 5
    registry: Literal["keep", "delete"] | None = None


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    keep_replaced_s: float = 604_800.0


@dataclass(frozen=True, slots=True)
class RollbackPolicy:
    auto: bool = True
    bake_s: float = 60.0
    timeout_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Dependency:
    name: str
    url: str
    expect: int = 200


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is told of what becomes of the app."""

    url: str = field(repr=False)
    """May hold a token."""
    on: tuple[str, ...] = ()
    """Of which events; none: of all."""


@dataclass(frozen=True, slots=True)
class Infraspec:
    app: str
    role: Role
    port: int | None = None
    healthcheck: str | None = None
    replicas: int = 1
    command: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    hosts: Hosts = Hosts()
    repo: Repo | None = None
    build: Build = Build()
    postgres: PostgresService | None = None
    migrations: Migrations | None = None
    artifacts: Artifacts = Artifacts()
    snapshots: SnapshotPolicy = SnapshotPolicy()
    rollback: RollbackPolicy = RollbackPolicy()
    dependencies: tuple[Dependency, ...] = ()
    notify: tuple[Receiver, ...] = ()
    deploy: bool = True
