"""Settings: the environment first, then `norn.toml` in NORN_HOME, then the defaults of the reference.

Imports nothing but the standard library: the command line reads it on every start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from norn.errors import SettingInvalid

DEFAULT_LISTEN = "127.0.0.1:8800"


class Settings(NamedTuple):
    """What an installation is told from outside. Paths are absolute; URLs are as given; None means "embedded"."""

    home: Path
    apps_dir: Path
    snapshots_dir: Path
    url: str
    token: str | None
    listen_host: str
    listen_port: int
    database_url: str | None
    postgres_url: str | None
    postgres_pod_url: str | None
    scratch_postgres_url: str | None
    runtime: str
    namespace: str
    kube_context: str | None
    registry: str | None
    builder: str | None
    apps_address: str

    @property
    def token_file(self) -> Path:
        return self.home / "admin-token"


def _default_home(environ: Mapping[str, str]) -> str:
    return "/var/lib/norn" if os.geteuid() == 0 else str(Path(environ.get("HOME") or "~").expanduser() / ".norn")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, PermissionError):
        return {}  # most installations have none; an unreadable one belongs to the server's user
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingInvalid(f"{path} is not TOML: {error}", hint="Mend the line that the message names.") from error


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. A key in `norn.toml` is the variable's name in lower case without `norn_`.

    Raises:
        SettingInvalid: a value cannot be taken, or norn.toml has an unknown key.
    """
    environ = os.environ if environ is None else environ
    home = Path(environ.get("NORN_HOME") or _default_home(environ)).expanduser().absolute()
    toml_path = home / "norn.toml"
    toml = _read_toml(toml_path)
    known = {
        "apps_dir", "url", "token", "listen", "database_url", "postgres_url", "postgres_pod_url",
        "scratch_postgres_url", "snapshots_dir", "runtime", "namespace", "kube_context", "registry", "builder",
        "apps_address",
    }  # fmt: skip
    for key in toml:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, known, 1)
            raise SettingInvalid(
                f"{toml_path}: there is no setting {key!r}.",
                hint=f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(sorted(known))}.",
            )

    def get(name: str, default: str | None = None) -> str | None:
        return environ.get(f"NORN_{name.upper()}") or (str(toml[name]) if name in toml else None) or default

    listen = get("listen", DEFAULT_LISTEN) or DEFAULT_LISTEN
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingInvalid(f"NORN_LISTEN={listen!r} is not HOST:PORT.", hint=f"For example {DEFAULT_LISTEN}.")
    in_cluster = Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
    runtime = get("runtime", "kubernetes" if in_cluster else "local") or "local"
    if runtime not in ("local", "kubernetes"):
        raise SettingInvalid(f"NORN_RUNTIME={runtime!r} is neither 'local' nor 'kubernetes'.")

    def path(name: str, default: Path) -> Path:
        value = get(name)
        return Path(value).expanduser().absolute() if value else default

    return Settings(
        home=home,
        apps_dir=path("apps_dir", Path("~/projects").expanduser()),
        snapshots_dir=path("snapshots_dir", home / "snapshots"),
        url=get("url", f"http://{DEFAULT_LISTEN}") or "",
        token=get("token"),
        listen_host=host.strip("[]"),
        listen_port=int(port),
        database_url=get("database_url"),
        postgres_url=get("postgres_url"),
        postgres_pod_url=get("postgres_pod_url"),
        scratch_postgres_url=get("scratch_postgres_url"),
        runtime=runtime,
        namespace=get("namespace", "default") or "default",
        kube_context=get("kube_context"),
        registry=get("registry"),
        builder=get("builder"),
        apps_address=get("apps_address", "127.0.0.1") or "127.0.0.1",
    )
