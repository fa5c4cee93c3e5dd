"""Who may do what: a role for all apps or for some, and what each role permits.

The roles are ordered, each may what those below it may. Somebody on call is an `operator`: they can roll back without
being able to deploy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from norn.domain.operations import Operation, OperationKind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
NORN = "norn"
"""What Norn does by itself has this name in the history, and nobody else has."""
_RESERVED = frozenset({NORN, "admin"})
"""The history has these as names of who asked: Norn itself, and who gave no name."""


class Role(Enum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    DEPLOYER = "deployer"
    ADMIN = "admin"


class Permission(Enum):
    """What a route or an operation asks for."""

    VIEW = "view"
    OPERATE = "operate"
    """Roll back, restart, cancel, take a snapshot, have one verified."""
    DEPLOY = "deploy"
    """Also adopt, set secrets, lift a quarantine."""
    ADMINISTER = "administer"
    """Also restore, prune, manage tokens and keys."""


_PERMITS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.VIEW}),
    Role.OPERATOR: frozenset({Permission.VIEW, Permission.OPERATE}),
    Role.DEPLOYER: frozenset({Permission.VIEW, Permission.OPERATE, Permission.DEPLOY}),
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token gives whoever shows it."""

    token_id: str
    token_name: str
    role: Role
    apps: frozenset[str] | None
    """None: all of them, those to come as well."""
    expires_at: datetime | None = None

    def refusal(self, permission: Permission, app: str | None) -> str:
        """Why this grant does not permit it, in words; empty where it does. `app` None: something of all apps."""
        if permission not in _PERMITS[self.role]:
            needed = next(role for role in Role if permission in _PERMITS[role])
            return f"The token {self.token_name!r} has the role {self.role.value}; this wants {needed.value}"
        if self.sees(app):
            return ""
        if app is None:
            return f"The token {self.token_name!r} is for some apps; this concerns all"
        return f"The token {self.token_name!r} is not for {app}"

    def sees(self, app: str | None) -> bool:
        """Whether it is for this app; None: for all."""
        return self.apps is None or (app is not None and app in self.apps)

    def visible(self, apps: Iterable[str]) -> list[str]:
        return [app for app in apps if self.sees(app)]


def token_name_problem(name: str) -> str:
    """What is wrong with the name of a token, in words; empty where nothing is."""
    if not _NAME.fullmatch(name):
        return "wants 1 to 64 letters, digits and .-_@+, a letter or digit first"
    return f"{name} has a meaning of its own in the history" if name.lower() in _RESERVED else ""


def token_name_of(host: str) -> str:
    """A host's name as it can stand in the name of a token."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", host)[:40] or "unknown"


def to_steer(operation: Operation) -> Permission:
    """What it takes to confirm or cancel an operation: that of data is left to those who may begin one."""
    with_data = operation.kind is OperationKind.RESTORE or operation.params.get("withData")
    return Permission.ADMINISTER if with_data else Permission.OPERATE
