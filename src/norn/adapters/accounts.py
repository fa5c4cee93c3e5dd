"""As whom things run. Where Norn is root, neither apps nor PostgreSQL are; elsewhere everything is the one user.

Apps run as `nobody`; the embedded PostgreSQL (which refuses to be root) as the system user `norn`, so that an app
cannot touch the database's files or processes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from norn.errors import ProgramFailed

APP_USER = "nobody"
DATABASE_USER = "norn"


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int

    def as_popen(self) -> dict[str, object]:
        """Keyword arguments of `subprocess.Popen` that start a program as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def _find(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid)


def of_owner(path: Path) -> Account | None:
    """The owner of a file where Norn is root and it belongs to somebody else: git is run as that user."""
    uid = path.stat().st_uid
    if os.geteuid() != 0 or uid == 0:
        return None
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, path.stat().st_gid)
    return Account(entry.pw_name, uid, entry.pw_gid)


def for_apps() -> Account | None:
    """The account that apps, their builds and migrations run as; None where Norn is not root."""
    return (_find(APP_USER) or Account(APP_USER, 65534, 65534)) if os.geteuid() == 0 else None


def for_database() -> Account | None:
    """The account of the embedded PostgreSQL; None where Norn is not root. Made where it is missing.

    Raises ProgramFailed where it cannot be made.
    """
    if os.geteuid() != 0:
        return None
    if found := _find(DATABASE_USER):
        return found
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is not None:
        subprocess.run(
            [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
             "--shell", "/usr/sbin/nologin", DATABASE_USER],
            check=False, capture_output=True,
        )  # fmt: skip
        if found := _find(DATABASE_USER):  # another server may have made it meanwhile
            return found
    raise ProgramFailed(
        f"PostgreSQL refuses to run as root, and the system user {DATABASE_USER!r} could not be made.",
        hint=f"Make it with `useradd --system {DATABASE_USER}`, run Norn as an ordinary user, "
        "or set NORN_DATABASE_URL and NORN_POSTGRES_URL.",
    )


def can_reach(path: Path, account: Account | None) -> bool:
    """Whether the account may enter every directory on the way to `path` and read it (mode bits; no ACLs)."""
    if account is None:
        return os.access(path, os.R_OK)

    def allowed(at: Path, bit_other: int) -> bool:
        info = at.stat()
        shift = 6 if info.st_uid == account.uid else 3 if info.st_gid == account.gid else 0
        return bool(stat.S_IMODE(info.st_mode) & (bit_other << shift))

    try:
        real = path.resolve(strict=True)
        return all(allowed(parent, 0o1) for parent in real.parents) and allowed(real, 0o4)
    except OSError:
        return False
