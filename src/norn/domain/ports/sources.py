"""Apps and their commits, as the operations need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from norn.domain.infraspec import Infraspec
from norn.domain.ports.output import Output


@dataclass(frozen=True, slots=True)
class AppDirectory:
    """An app as found under NORN_APPS_DIR."""

    name: str
    path: Path
    """The directory with infraspec.yaml; its name is the app's."""


@dataclass(frozen=True, slots=True)
class Commit:
    sha: str
    subject: str
    author: str
    committed_at: datetime


class Source(Protocol):
    """Apps and their commits: directories under NORN_APPS_DIR, git work trees or clones of `repo.url`."""

    async def apps(self) -> Sequence[AppDirectory]:
        """All directories with an infraspec.yaml, by name. Looked up afresh each time."""
        ...

    async def app(self, name: str) -> AppDirectory:
        """One app. Raises UnknownApp, naming the nearest that exist."""
        ...

    async def infraspec(self, app: AppDirectory, commit_sha: str | None = None) -> Infraspec:
        """The infraspec as it is in the directory now, or as it was in a commit. Raises InfraspecInvalid."""
        ...

    async def resolve(self, app: AppDirectory, ref: str) -> Commit:
        """The commit that a ref (commit, branch, tag) names. Raises UnknownVersion."""
        ...

    async def export(self, app: AppDirectory, commit_sha: str, into: Path, output: Output) -> None:
        """Write the commit's files into the new directory `into`; nothing of git, nothing uncommitted."""
        ...
