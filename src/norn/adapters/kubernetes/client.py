"""The connection to the API server: which one, who asks, and what its answers mean."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import structlog
import yaml
from lightkube import AsyncClient
from lightkube.config.client_adapter import AsyncClient as RawClient
from lightkube.config.client_adapter import ConnectionParams, verify_cluster
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.core.resource import api_info
from lightkube.types import CascadeType, PatchType

from norn.adapters.http_transport import FastTransport
from norn.adapters.kubernetes.pod_proxy import beginning, meaning
from norn.adapters.kubernetes.resources import Deployment, Kind, Object
from norn.errors import ClusterRefused, RuntimeUnavailable, SettingInvalid

log = structlog.get_logger(__name__)

MANAGER = "norn"
"""The field manager of everything that Norn writes."""
PATIENCE_S = 90.0
"""How long a change is tried again while the API server does not answer: the time that one takes to restart."""
_REQUEST_S = 5.0
_PAUSES_S = (0.1, 0.3, 1.0, 2.0)
_PASSING = frozenset({429, 500, 502, 503, 504})
_TEST_FAILED = 422
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
REFUSED_S = 15.0
"""How long a refusal is tried again where it may pass."""
T = TypeVar("T")


class PatchTestFailed(Exception):
    """A `test` of a JSON patch did not hold (RFC 6902, section 4.6), or the object is not as the patch wants it."""


class Refusals:
    """401 and 403 of an API server that has just started: for some seconds it does not know its roles.

    See kubernetes issue 121635. Where the right was there before, they are waited out.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def bear(self, refused: ClusterRefused) -> None:
        """Raises it where it is another one, or lasts."""
        now = asyncio.get_running_loop().time()
        self._since = now if self._since is None else self._since
        if refused.facts.get("clusterStatus") not in (401, 403) or now - self._since >= REFUSED_S:
            raise refused

    def over(self) -> None:
        """An answer has come."""
        self._since = None


class Conflict(Exception):
    """Other field managers own what was to be applied."""

    def __init__(self, causes: Sequence[tuple[str, str]]) -> None:
        super().__init__("conflict")
        self.causes = causes
        """(manager, field path) each."""


def load_config(context: str | None, environment: Mapping[str, str] = os.environ) -> SingleConfig:
    """KUBECONFIG (several files merged as kubectl does), else the service account here, else ~/.kube/config.

    Raises SettingInvalid.
    """
    named = [path for path in environment.get("KUBECONFIG", "").split(os.pathsep) if path]
    try:
        if not named and (Path(SERVICE_ACCOUNT) / "token").exists():
            config = KubeConfig.from_service_account(SERVICE_ACCOUNT)
        else:
            config = _merged([Path(path) for path in named] or [Path("~/.kube/config").expanduser()])
        found = config.get(context)
    except (ConfigError, LookupError, OSError, yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        raise SettingInvalid(
            f"The kubeconfig cannot be used: {error}.",
            hint="Look at KUBECONFIG and NORN_KUBE_CONTEXT; `kubectl config get-contexts` lists the contexts.",
        ) from error
    assert found is not None
    plugin = found.user.exec if found.user is not None else None
    if plugin is not None and plugin.apiVersion == "client.authentication.k8s.io/v1":
        # It differs from v1beta1, which is all that lightkube knows, in nothing that matters for tokens.
        plugin.apiVersion = "client.authentication.k8s.io/v1beta1"
    return found


def _merged(paths: Sequence[Path]) -> KubeConfig:
    """The first file that says something wins, entry by entry."""
    whole: dict[str, Any] = {}
    first: Path | None = None
    for path in paths:
        if not path.is_file():
            continue
        first = first or path
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        whole.setdefault("current-context", document.get("current-context") or None)
        whole["current-context"] = whole["current-context"] or document.get("current-context")
        for part in ("clusters", "contexts", "users"):
            known = {entry["name"] for entry in whole.setdefault(part, [])}
            new = [entry for entry in document.get(part) or () if entry["name"] not in known]
            whole[part] += [_beside(path, entry) for entry in new]
    if first is None:
        raise ConfigError(f"there is no {' or '.join(map(str, paths))}")
    return KubeConfig.from_dict(whole, fname=first)


def _beside(path: Path, entry: Object) -> Object:
    """With the files that it names where they are for kubectl: relative to the file in which it stands."""
    for body in (entry.get("cluster") or {}, entry.get("user") or {}):
        for name in _FILES:
            if body.get(name):
                body[name] = str(path.absolute().parent / body[name])
    return entry


class Cluster:
    """One namespace of a cluster. Connects when first asked; a missing cluster is no reason not to start."""

    def __init__(self, namespace: str, context: str | None = None) -> None:
        self.namespace = namespace
        self._context = context
        self._client: AsyncClient | None = None
        self._raw: httpx2.AsyncClient | None = None

    @property
    def client(self) -> AsyncClient:
        if self._client is None:
            config = load_config(self._context)
            try:
                verify = verify_cluster(config.cluster, config.user or User(), config.abs_file)
                self._client = AsyncClient(
                    config,
                    namespace=self.namespace,
                    timeout=httpx2.Timeout(_REQUEST_S),
                    field_manager=MANAGER,
                    transport=FastTransport(verify),
                )
            except (ConfigError, OSError, ValueError) as error:
                raise SettingInvalid(
                    f"The kubeconfig cannot be used: {error}.", hint="Try `kubectl get pods`."
                ) from error
        return self._client

    @property
    def raw(self) -> httpx2.AsyncClient:
        """For what lightkube has no words for."""
        if self._raw is None:
            config = load_config(self._context)
            verify = verify_cluster(config.cluster, config.user or User(), config.abs_file)
            transport = FastTransport(verify)
            params = ConnectionParams(httpx2.Timeout(_REQUEST_S), trust_env=False, transport=transport)  # type: ignore[arg-type]
            self._raw = RawClient(config, params)
        return self._raw

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._raw is not None:
            await self._raw.aclose()

    # ---- requests ------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, name: str) -> Object | None:
        """The object, None where there is none. Raises RuntimeUnavailable, ClusterRefused."""
        async with translated():
            try:
                return await self.client.get(kind, name)
            except ApiError as error:
                if error.status.code == 404:
                    return None
                raise

    async def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, fields: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        async with translated():
            found = self.client.list(
                kind, labels=dict(labels) if labels else None, fields=dict(fields) if fields else None
            )
            return [obj async for obj in found]

    async def reachable(self) -> None:
        """One small request. Raises RuntimeUnavailable, ClusterRefused."""
        async with translated():
            async for _ in self.client.list(Deployment, chunk_size=1):
                break

    async def ask_pod(self, pod: str, scheme: str, port: int, path: str, timeout_s: float) -> int | str | None:
        """GET `path` from a pod, through the API server's proxy: the status, or why there is no answer.

        None where Norn may not ask. Raises RuntimeUnavailable where it is the API server that does not answer.
        """
        target = pod if scheme == "http" else f"{scheme}:{pod}"
        url = f"/api/v1/namespaces/{self.namespace}/pods/{target}:{port}/proxy/{path.removeprefix('/')}"
        async with translated():
            try:
                async with asyncio.timeout(timeout_s), self.raw.stream("GET", url) as response:
                    if response.status_code < 400 or "json" not in response.headers.get("content-type", ""):
                        return response.status_code
                    return meaning(response.status_code, await beginning(response))
            except (TimeoutError, httpx2.TimeoutException):
                await self.reachable()  # or it is the API server that is silent
                return f"no answer within {timeout_s:g} s"

    async def create(self, obj: Object, kind: Kind) -> Object | None:
        """The object as it was made; None where there is one of that name already."""
        async with translated():
            try:
                made: Object = await self.client.create(kind.from_dict(obj))
                return made
            except ApiError as error:
                if error.status.code == 409:
                    return None
                raise

    async def delete(self, kind: Kind, name: str) -> None:
        """Delete it and all that it owns; what is not there is deleted already."""
        async with translated():
            try:
                await self.client.delete(kind, name, cascade=CascadeType.BACKGROUND)
            except ApiError as error:
                if error.status.code != 404:
                    raise

    async def delete_as_seen(self, kind: Kind, obj: Object) -> None:
        """The same, of the object as it was looked at. Raises PatchTestFailed where it has changed since."""
        info, metadata = api_info(kind), obj["metadata"]
        path = f"/apis/{obj['apiVersion']}/namespaces/{self.namespace}/{info.plural}/{metadata['name']}"
        seen = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": seen,
        }
        async with translated():
            response = await self.raw.request("DELETE", path, json=options)
            if response.status_code == 409:
                raise PatchTestFailed(response.text)
            if response.status_code >= 400 and response.status_code != 404:
                raise ApiError(response.request, response)

    async def json_patch(self, kind: Kind, name: str, operations: Sequence[Object]) -> Object | None:
        """RFC 6902. Raises PatchTestFailed; None where there is no such object."""
        return await self._patch(kind, name, list(operations), PatchType.JSON)

    async def merge_patch(self, kind: Kind, name: str, patch: Object) -> Object | None:
        """RFC 7386; None where there is no such object."""
        return await self._patch(kind, name, patch, PatchType.MERGE)

    async def has(self, kind: Kind, name: str, path: str) -> bool:
        """Whether an object is there, and has something at that JSON pointer.

        Found out by a patch that changes nothing: the right to patch is enough.
        Raises RuntimeUnavailable, ClusterRefused.
        """
        same = [{"op": "move", "from": path, "path": path}]  # `copy` takes what is missing for null
        try:
            return await self._patch(kind, name, same, PatchType.JSON, dry_run=True) is not None
        except PatchTestFailed:
            return False

    async def _patch(
        self, kind: Kind, name: str, patch: Any, patch_type: PatchType, *, dry_run: bool = False
    ) -> Object | None:
        async with translated():
            try:
                patched: Object = await self.client.patch(
                    kind, name, patch, patch_type=patch_type, field_manager=MANAGER, dry_run=dry_run
                )
                return patched
            except ApiError as error:
                if error.status.code == 404:
                    return None
                if error.status.code == _TEST_FAILED and patch_type is PatchType.JSON:
                    raise PatchTestFailed(error.status.message or "") from error
                raise

    async def apply(self, kind: Kind, obj: Object, *, force: bool = False, dry_run: bool = False) -> Object:
        """Server-side apply. Raises Conflict, naming each manager and field."""
        async with translated():
            try:
                return await self.client.patch(
                    kind,
                    obj["metadata"]["name"],
                    obj,
                    patch_type=PatchType.APPLY,
                    field_manager=MANAGER,
                    force=force,
                    dry_run=dry_run,
                )
            except ApiError as error:
                if error.status.code == 409:
                    raise Conflict(_causes(error)) from error
                raise

    async def patiently(
        self, attempt: Callable[[], Awaitable[T]], patience_s: float = PATIENCE_S, *, allowed: bool = False
    ) -> T:
        """Try again while the API server does not answer, up to `patience_s`.

        A request that failed may have been carried out: `attempt` looks first. Raises what it raised last.
        `allowed`: Norn had the right to it a moment ago; then, and once the server was away, a refusal is borne
        for a while, too.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        refusals = Refusals() if allowed else None
        number = 0
        while True:
            pause = _PAUSES_S[min(number, len(_PAUSES_S) - 1)] * random.uniform(0.8, 1.2)
            try:
                return await attempt()
            except RuntimeUnavailable as error:
                refusals = refusals or Refusals()
                if loop.time() + pause > deadline:
                    raise
                if number == 0:
                    log.warning("cluster_asked_again", error=error.message)
            except ClusterRefused as refused:
                if refusals is None:
                    raise
                refusals.bear(refused)
            number += 1
            await asyncio.sleep(pause)


def _causes(error: ApiError) -> list[tuple[str, str]]:
    """From `conflict with "kubectl-edit" using apps/v1` and its field."""
    details = error.status.details
    found = []
    for cause in (details.causes if details is not None else None) or ():
        message = cause.message or ""
        manager = message.split('"')[1] if message.count('"') >= 2 else message
        found.append((manager, cause.field or ""))
    return found


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """What the API server says, as Norn's errors."""
    try:
        yield
    except ApiError as error:
        status = error.status
        message = " ".join((status.message or str(error)).split())
        if status.code in _PASSING:
            raise RuntimeUnavailable(
                f"The Kubernetes API server answers {status.code}: {message}.", hint="`kubectl get --raw /readyz`"
            ) from error
        raise ClusterRefused(
            f"The Kubernetes API server refused: {message}.",
            hint="What Norn needs is in deploy/kubernetes/rbac.yaml." if status.code in (401, 403) else "",
            clusterStatus=status.code,
            clusterReason=status.reason,
        ) from error
    except httpx2.StreamError as error:
        # The answer to a stream was an error whose text lightkube has not read: a container has not started, say.
        raise RuntimeUnavailable("The Kubernetes API server refuses the stream.") from error
    except httpx2.HTTPStatusError as error:
        raise RuntimeUnavailable(
            f"The Kubernetes API server answers {error.response.status_code}.", hint="`kubectl get --raw /readyz`"
        ) from error
    except (httpx2.HTTPError, ConfigError, OSError) as error:
        what = str(error) or type(error).__name__
        raise RuntimeUnavailable(
            f"The Kubernetes API server does not answer: {what}.", hint="Look at KUBECONFIG; try `kubectl get pods`."
        ) from error
