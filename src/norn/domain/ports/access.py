"""Tokens and the sessions of browsers, as they are kept. Secrets come here as SHA-256 hashes only.

What a token gives, and when that ends, is decided by the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from norn.domain.access import Grant, Role
from norn.domain.audit import Who
from norn.domain.deployments import rfc3339


@dataclass(frozen=True, slots=True)
class Known:
    """A token that is valid, as whoever shows it is let in by it."""

    hash: bytes
    grant: Grant
    home: bool
    """It is the file of a NORN_HOME: whoever uses it may say their name."""
    left_s: float | None
    """Until it expires, from the moment that it was read; None: never."""


@dataclass(frozen=True, slots=True)
class KnownSession:
    """A session that is valid; so is its token."""

    hash: bytes
    token: Known
    left_s: float
    """Until it or its token expires, from the moment that it was read."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as people see it: everything but what lets in."""

    id: str
    name: str
    role: Role
    apps: Sequence[str] | None
    """None: all."""
    home: bool
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""
    expired: bool

    def gives(self) -> dict[str, Any]:
        """What the audit says of it."""
        return {name: value for name, value in self.to_json().items() if name in ("role", "apps", "expiresAt")}

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role.value,
            "apps": sorted(self.apps) if self.apps is not None else None,
            "home": self.home,
            "createdBy": self.created_by,
            "createdAt": rfc3339(self.created_at),
            "expiresAt": rfc3339(self.expires_at),
            "lastUsedAt": rfc3339(self.last_used_at),
            "expired": self.expired,
        }


@dataclass(frozen=True, slots=True)
class NewToken:
    """What somebody wants a token for."""

    name: str
    role: Role
    apps: Sequence[str] | None
    lasts_s: float | None
    """None: for ever."""


class Tokens(Protocol):
    async def valid(self) -> Sequence[Known]:
        """All that are valid, the newest first; of very many only the newest."""
        ...

    async def find(self, hash_: bytes) -> Known | None:
        """The valid token of this hash."""
        ...

    async def token(self, name: str) -> Token | None:
        """The token of this name that is not revoked."""
        ...

    async def tokens(self) -> Sequence[Token]:
        """All that are not revoked, by name; expired ones, too."""
        ...

    async def add(self, id_: str, hash_: bytes, new: NewToken, who: Who) -> Token:
        """Who made it gets into the audit with it. Raises NameTaken."""
        ...

    async def enter_home(self, id_: str, hash_: bytes, name: str) -> bool:
        """Make the token of a NORN_HOME known, under this name or one like it; False where it has been revoked.

        One that is known already stays as it is; one that is not gets into the audit.
        """
        ...

    async def revoke(self, name: str, who: Who) -> Token | None:
        """End a token and its sessions; who did gets into the audit. None where none of this name is left."""
        ...

    async def used(self, ages_s: Mapping[str, float]) -> None:
        """Tokens, by id, were last used so many seconds ago."""
        ...

    async def begin_session(self, hash_: bytes, token_id: str, address: str, lasts_s: float) -> None: ...

    async def session(self, hash_: bytes) -> KnownSession | None:
        """The valid session of this hash."""
        ...

    async def end_session(self, hash_: bytes) -> None:
        """No harm where there is none."""
        ...
