"""The parts that belong to a NORN_HOME, put together for the runtime that the settings name."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict

from norn.adapters.accounts import for_database
from norn.adapters.images.credentials import credentials
from norn.adapters.local.images import LocalImages
from norn.adapters.local.runtime import LocalRuntime
from norn.adapters.postgres.databases import PostgresDatabases
from norn.adapters.postgres.embedded import EmbeddedPostgres
from norn.adapters.postgres.passwords import Passwords
from norn.adapters.postgres.schema import ensure_database
from norn.adapters.secrets import SecretFiles, keep
from norn.adapters.source.directory import AppsDirectory
from norn.config import Settings
from norn.domain.notifications import key_text
from norn.domain.ports import Images, Runtime, Secrets, Template
from norn.errors import NotPossible, ServerNotStarted
from norn.operations.access import new_secret
from norn.operations.services import new_id

if TYPE_CHECKING:
    from norn.adapters.kubernetes.runtime import KubernetesRuntime


def prepare_home(home: Path) -> None:
    """NORN_HOME: may be entered by the users that apps run as; what is secret in it has modes of its own."""
    home.mkdir(parents=True, exist_ok=True)
    if home.stat().st_uid == os.geteuid():
        home.chmod(0o755)
    for name in ("work", "apps", "images"):
        (home / name).mkdir(exist_ok=True, mode=0o755)
    for name in ("secrets", "postgres-passwords"):
        (home / name).mkdir(exist_ok=True, mode=0o700)


def home_token(path: Path) -> str:
    """The token in `path`; made at the first start: 256 bits, in a file that only its owner reads."""
    keep(path, new_secret() + "\n", replace=False)  # another server may have just made one
    return path.read_text(encoding="ascii").strip()


def lock_home(home: Path) -> IO[str]:
    """Keep a second server off this home. Raises ServerNotStarted, naming the process that has it."""
    file = (home / "serve.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise ServerNotStarted(
            f"A server runs on {home} already (process {file.read().strip() or 'unknown'}).",
            hint="`norn status` asks it; another server wants another NORN_HOME.",
        ) from error
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
    return file


class Installation:
    """The parts that belong to a NORN_HOME, whether a server runs or only `--stop-all` is asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        home = settings.home
        account = for_database()
        self.own_postgres = EmbeddedPostgres(home / "postgres" / "norn", account=account)
        pods_host = _host(settings.postgres_pod_url) if settings.postgres_url is None else None
        self.apps_postgres = EmbeddedPostgres(
            home / "postgres" / "apps", account=account, keep_port=True, also_on=pods_host
        )
        self.passwords = Passwords(home / "postgres-passwords")
        self.databases = PostgresDatabases(self._apps_server_url, self.passwords, settings.postgres_pod_url)
        self.source = AppsDirectory(settings.apps_dir, mirrors=home / "repos")
        self.local: LocalRuntime | None = None
        self.cluster: KubernetesRuntime | None = None
        self.images: Images
        self.secrets: Secrets
        self.runtime: Runtime
        if settings.runtime == "kubernetes":
            self._on_kubernetes()
        else:
            local_images = LocalImages(home)
            self.images = local_images
            self.secrets = SecretFiles(home / "secrets")
            self.runtime = self.local = LocalRuntime(
                home=home, apps_address=settings.apps_address, images=local_images, environment=self._environment
            )

    def _on_kubernetes(self) -> None:
        """Its clients are loaded where they are used: that takes as long as a fifth of a local server's start."""
        from norn.adapters.images.registry import Registry
        from norn.adapters.images.registry_images import RegistryImages
        from norn.adapters.kubernetes.client import Cluster
        from norn.adapters.kubernetes.runtime import KubernetesRuntime
        from norn.adapters.kubernetes.secrets import KubernetesSecrets

        cluster = Cluster(self.settings.namespace, self.settings.kube_context)
        name, insecure = registry_name(self.settings.registry)
        self.images = RegistryImages(Registry(insecure), name, self.settings.builder)
        self.secrets = KubernetesSecrets(cluster)
        self.runtime = self.cluster = KubernetesRuntime(cluster, self._database_environment)

    async def _apps_server_url(self) -> str:
        return self.settings.postgres_url or await self.apps_postgres.start()

    async def _environment(self, app: str, template: Template) -> Mapping[str, str]:
        """What an app's processes are told: its env, its secrets as they are now, its database."""
        values = await self.secrets.values(app)
        found = {name: values[name] for name in template.secrets if name in values}
        environment = {**template.env, **found}
        return (
            environment
            if "DATABASE_URL" in environment
            else {**await self._database_environment(app, template), **environment}
        )

    async def _database_environment(self, app: str, _template: Template) -> Mapping[str, str]:
        """DATABASE_URL as the app reaches its database; empty where it has none. Raises NotPossible."""
        spec = await self.source.infraspec(await self.source.app(app))
        if spec.postgres is None:
            return {}
        embedded = self.settings.postgres_url is None and spec.postgres.url is None
        if embedded and self.cluster is not None and self.settings.postgres_pod_url is None:
            raise NotPossible(
                f"{app} wants a database, and pods cannot reach the embedded PostgreSQL.",
                hint="Set NORN_POSTGRES_URL to a server that they can reach, or NORN_POSTGRES_POD_URL to this "
                "machine as they see it (postgresql://ADDRESS).",
            )
        return {"DATABASE_URL": (await self.databases.ensure(app, spec.postgres)).url}

    def own_secrets(self) -> list[str]:
        """Values of Norn's own that nobody is to see in what is printed."""
        settings = self.settings
        urls = [settings.database_url, settings.postgres_url, settings.postgres_pod_url, settings.scratch_postgres_url]
        passwords = (conninfo_to_dict(url).get("password") for url in urls if url)
        found = [*(str(password) for password in passwords if password), *settings.notify]
        if settings.notify_key is not None:
            found.append(key_text(settings.notify_key))
        files = [settings.token_file, *(settings.home / "postgres").glob("*/password")]
        found += [path.read_text(encoding="ascii").strip() for path in files if path.exists()]
        if settings.registry is not None:
            name, _ = registry_name(settings.registry)
            known = credentials((name or "").partition("/")[0])
            found += [known[1]] if known is not None else []
        return found

    def place(self) -> str | None:
        """Where alone operations that are asked for here can be worked on: processes and images are of one home.

        None where any server can, or there is no other. It goes with the home, whatever the machine is called.
        """
        if self.settings.runtime == "kubernetes" or self.settings.database_url is None:
            return None
        path = self.settings.home / "place"
        keep(path, new_id(), replace=False)
        return path.read_text(encoding="ascii")

    async def database_url(self) -> str:
        """Norn's own database, started where it is embedded."""
        if self.settings.database_url is not None:
            return self.settings.database_url
        return await ensure_database(await self.own_postgres.start(), "norn")

    async def keep_postgres(self) -> None:
        """Start the embedded servers again where they have gone."""
        if self.settings.database_url is None:
            await self.own_postgres.start()
        if self.settings.postgres_url is None and (self.settings.home / "postgres" / "apps").exists():
            await self.apps_postgres.start()

    async def stop_all(self) -> None:
        """End all local apps and the embedded PostgreSQL; what runs in a cluster runs on."""
        if self.local is not None:
            await self.local.stop_all()
        await self.apps_postgres.stop()
        await self.own_postgres.stop()


def registry_name(setting: str | None) -> tuple[str | None, frozenset[str]]:
    """NORN_REGISTRY without its scheme, and the registries that are asked without TLS: `http://…` says so."""
    if setting is None:
        return None, frozenset()
    name = setting.removeprefix("https://").removeprefix("http://").rstrip("/")
    host = name.partition("/")[0]
    return name, frozenset({host}) if setting.startswith("http://") else frozenset()


def _host(url: str | None) -> str | None:
    """The host of a PostgreSQL URL."""
    return str(conninfo_to_dict(url).get("host") or "") or None if url else None
