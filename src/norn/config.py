"""Settings: what `norn.environment` found, checked, with the defaults of the reference."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from norn.environment import DEFAULT_LISTEN, Environment
from norn.errors import SettingInvalid


class Settings(NamedTuple):
    """What an installation is told from outside. Paths are absolute; URLs are as given; None means "embedded"."""

    home: Path
    apps_dir: Path
    snapshots_dir: Path
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
    notify: tuple[str, ...]
    notify_key: bytes | None
    tls_cert: Path | None
    tls_key: Path | None
    insecure: bool
    proxies: tuple[str, ...]
    """Addresses and networks whose word for where a request comes from is taken."""

    @property
    def token_file(self) -> Path:
        return self.home / "admin-token"


def load_settings(variables: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Raises:
        SettingInvalid: a value cannot be taken, or norn.toml has an unknown key.
    """
    given = Environment(variables)
    home = Path(given.home)
    listen = given.get("listen", DEFAULT_LISTEN) or DEFAULT_LISTEN
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingInvalid(f"NORN_LISTEN={listen!r} is not HOST:PORT.", hint=f"For example {DEFAULT_LISTEN}.")
    in_cluster = Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
    runtime = given.get("runtime", "kubernetes" if in_cluster else "local") or "local"
    if runtime not in ("local", "kubernetes"):
        raise SettingInvalid(f"NORN_RUNTIME={runtime!r} is neither 'local' nor 'kubernetes'.")

    def path(name: str, default: Path) -> Path:
        return optional_path(name) or default

    def optional_path(name: str) -> Path | None:
        value = given.get(name)
        return Path(value).expanduser().absolute() if value else None

    return Settings(
        home=home,
        apps_dir=path("apps_dir", Path("~/projects").expanduser()),
        snapshots_dir=path("snapshots_dir", home / "snapshots"),
        listen_host=host.strip("[]"),
        listen_port=int(port),
        database_url=given.get("database_url"),
        postgres_url=given.get("postgres_url"),
        postgres_pod_url=given.get("postgres_pod_url"),
        scratch_postgres_url=given.get("scratch_postgres_url"),
        runtime=runtime,
        namespace=given.get("namespace", "default") or "default",
        kube_context=given.get("kube_context"),
        registry=given.get("registry"),
        builder=given.get("builder"),
        apps_address=given.get("apps_address", "127.0.0.1") or "127.0.0.1",
        notify=_receivers(given.get("notify")),
        notify_key=_notify_key(given.get("notify_key")),
        tls_cert=optional_path("tls_cert"),
        tls_key=optional_path("tls_key"),
        insecure=_yes("NORN_INSECURE", given.get("insecure")),
        proxies=_proxies("NORN_PROXIES", given.get("proxies")),
    )


def _yes(name: str, given: str | None) -> bool:
    if given is None or given.lower() in ("0", "no", "false"):
        return False
    if given.lower() in ("1", "yes", "true"):
        return True
    raise SettingInvalid(f"{name}={given!r} is neither yes nor no.", hint="1 or 0.")


def _proxies(name: str, given: str | None) -> tuple[str, ...]:
    found = re.split(r"[\s,]+", given.strip()) if given else []
    for address in found:
        try:
            ipaddress.ip_network(address)
        except ValueError as error:
            raise SettingInvalid(f"{name}: {error}.", hint="For example 10.0.0.5 or 10.0.0.0/24.") from error
    return tuple(found)


def _receivers(given: str | None) -> tuple[str, ...]:
    """The URLs; what is wrong with one is said without repeating it, since it may hold a token."""
    urls = [url for url in re.split(r"[\s,]+(?=[a-z]+://)|\s+|,$", given or "") if url]
    for number, url in enumerate(urls, 1):
        if not _is_receiver(url):
            raise SettingInvalid(
                f"NORN_NOTIFY: URL number {number} is not an http or https URL.",
                hint="For example https://hooks.example.com/norn; several with blanks between them.",
            )
    return tuple(dict.fromkeys(urls))


def _is_receiver(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https") and bool(parts.hostname) and re.fullmatch(r"[!-~]{1,2000}", url) is not None
    )


def _notify_key(given: str | None) -> bytes | None:
    if given is None:
        return None
    try:
        key = base64.b64decode(given.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not given.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise SettingInvalid(
            "NORN_NOTIFY_KEY is not `whsec_` and 24 to 64 bytes in base64.",
            hint='For example "whsec_$(openssl rand -base64 32)".',
        )
    return key
