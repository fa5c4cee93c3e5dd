"""Where settings come from: the environment first, then `norn.toml` in NORN_HOME.

Imports next to nothing: whoever types `norn rollback` waits for it (docs/decisions/0002-command-line-start-up.md).
"""

# pathlib and typing would take longer to import than all the rest.
# ruff: noqa: PTH100, PTH111, PTH118, PTH123

from __future__ import annotations

import os

from norn.errors import SettingInvalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DEFAULT_LISTEN = "127.0.0.1:8800"
_KNOWN = frozenset(
    {
        "apps_dir", "url", "token", "listen", "database_url", "postgres_url", "postgres_pod_url",
        "scratch_postgres_url", "snapshots_dir", "runtime", "namespace", "kube_context", "registry", "builder",
        "apps_address", "notify", "notify_key", "tls_cert", "tls_key", "insecure", "proxies", "ca",
    }
)  # fmt: skip


class Environment:
    """The settings as they are given, as text; what the command line needs of them."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        """Raises SettingInvalid: norn.toml cannot be read, or has an unknown key."""
        self._variables = os.environ if variables is None else variables
        self.home = os.path.abspath(os.path.expanduser(self._variables.get("NORN_HOME") or self._default_home()))
        self._toml = _read_toml(os.path.join(self.home, "norn.toml"))

    def _default_home(self) -> str:
        return "/var/lib/norn" if os.geteuid() == 0 else os.path.join(self._variables.get("HOME") or "~", ".norn")

    def get(self, name: str, default: str | None = None) -> str | None:
        """The setting NORN_<NAME>; in norn.toml its key is the name in lower case."""
        given = self._variables.get(f"NORN_{name.upper()}")
        return given or (_text(self._toml[name]) if name in self._toml else None) or default

    @property
    def url(self) -> str:
        """Where the command line finds the server."""
        return self.get("url", f"http://{DEFAULT_LISTEN}") or ""

    @property
    def ca(self) -> str | None:
        """Certificates of the authorities that the server's is checked against; None: those of the system."""
        given = self.get("ca")
        return os.path.abspath(os.path.expanduser(given)) if given else None

    @property
    def token_file(self) -> str:
        return os.path.join(self.home, "admin-token")

    @property
    def token(self) -> str | None:
        """The one given, or the one that the server left in NORN_HOME; None where there is none to be read."""
        if given := self.get("token"):
            return given
        try:
            with open(self.token_file, "rb") as file:
                return file.read().decode("latin-1").strip()
        except OSError:
            return None


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (FileNotFoundError, PermissionError):
        return {}  # most installations have none; an unreadable one belongs to the server's user
    import tomllib

    try:
        toml = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingInvalid(f"{path} is not TOML: {error}", hint="Mend the line that the message names.") from error
    for key in toml:
        if key not in _KNOWN:
            import difflib

            near = difflib.get_close_matches(key, _KNOWN, 1)
            raise SettingInvalid(
                f"{path}: there is no setting {key!r}.",
                hint=f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(sorted(_KNOWN))}.",
            )
    return toml
