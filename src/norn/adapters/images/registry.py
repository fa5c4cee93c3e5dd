"""A registry, asked over plain HTTP: does an image exist, and which digest has a tag?

OCI Distribution Specification 1.1; the token protocol of Docker's registries ("Token Authentication Specification").
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies

import httpx2

from norn.adapters.http_transport import FastTransport
from norn.adapters.images.credentials import credentials
from norn.errors import RegistryUnavailable

_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_TIMEOUT_S = 3.0
_FORBIDDEN = (403, 405)
_PAGE = 1_000
_PAGES = 50
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_DOCKER_HUB = "registry-1.docker.io"
_LOCAL = re.compile(r"(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image by its place: registry, repository within it, and a tag or digest."""

    registry: str
    repository: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """`registry:5000/team/app:tag`, `…@sha256:…`; without a registry, Docker Hub's (as everywhere)."""
        name, _, digest = text.partition("@")
        path, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            path, tag = name, "latest"
        first, slash, rest = path.partition("/")
        if not slash or not ("." in first or ":" in first or first == "localhost"):
            first, rest = "docker.io", path if slash else f"library/{path}"
        return cls(first, rest, digest or tag)

    def at(self, version: str) -> Reference:
        return Reference(self.registry, self.repository, version)


def is_local(registry: str) -> bool:
    """A registry of this machine: asked without TLS, as every builder does."""
    return _LOCAL.match(registry) is not None


class Registry:
    """Any registry. `insecure` names those that are asked without TLS, besides those of this machine."""

    def __init__(self, insecure: frozenset[str] = frozenset()) -> None:
        self._insecure = insecure
        self._client: httpx2.AsyncClient | None = None
        self._tokens: dict[tuple[str, str, str], str] = {}

    def insecure(self, registry: str) -> bool:
        """Asked without TLS."""
        return is_local(registry) or registry in self._insecure

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def digest(self, reference: Reference) -> str | None:
        """The digest of what the reference names, None where there is nothing. Raises RegistryUnavailable."""
        answer = await self._ask("HEAD", reference, f"manifests/{reference.version}", {"Accept": _ACCEPT})
        if answer.status_code == 404:
            return None
        digest: str | None = answer.headers.get("Docker-Content-Digest")
        if digest is None:
            raise RegistryUnavailable(f"The registry {reference.registry} does not tell digests.")
        return digest

    async def config(self, reference: Reference) -> dict[str, Any]:
        """The image's configuration (labels and so on). Raises RegistryUnavailable."""
        manifest = (await self._ask("GET", reference, f"manifests/{reference.version}", {"Accept": _ACCEPT})).json()
        digest = (manifest.get("config") or {}).get("digest")
        if digest is None:
            return {}
        found: dict[str, Any] = (await self._ask("GET", reference, f"blobs/{digest}", {})).json()
        return found.get("config") or {}

    async def tags(self, reference: Reference) -> set[str]:
        """All tags of its repository. Raises RegistryUnavailable."""
        found: set[str] = set()
        path = f"tags/list?n={_PAGE}"
        for _ in range(_PAGES):
            answer = await self._ask("GET", reference, path, {})
            if answer.status_code == 404:
                return found
            page = answer.json().get("tags") or []
            found |= set(map(str, page))
            if "next" not in answer.links or not page:
                return found
            path = f"tags/list?n={_PAGE}&last={quote(str(page[-1]), safe='')}"
        raise RegistryUnavailable(f"{reference.repository} has more than {_PAGE * _PAGES} tags.")

    async def delete(self, reference: Reference) -> str:
        """Delete a manifest by its digest: empty where it is gone now, else that the registry does not let anybody.

        Raises RegistryUnavailable.
        """
        answer = await self._ask("DELETE", reference, f"manifests/{reference.version}", {}, also=(202, *_FORBIDDEN))
        if answer.status_code in _FORBIDDEN:
            return f"the registry {reference.registry} does not allow to delete ({answer.status_code})"
        return ""

    async def _ask(
        self, method: str, reference: Reference, path: str, headers: dict[str, str], also: tuple[int, ...] = ()
    ) -> httpx2.Response:
        """200, 404 or one of `also`. Raises RegistryUnavailable for everything else, and for silence."""
        scheme = "http" if self.insecure(reference.registry) else "https"
        host = _DOCKER_HUB if reference.registry == "docker.io" else reference.registry
        url = f"{scheme}://{host}/v2/{reference.repository}/{path}"
        scope = "pull,delete" if method == "DELETE" else "pull"
        key = (reference.registry, reference.repository, scope)
        try:
            async with asyncio.timeout(_TIMEOUT_S * 2):
                answer = await self._send(method, url, headers, self._tokens.get(key))
                if answer.status_code == 401:
                    token = await self._token(answer, reference, scope)
                    if token is not None:
                        self._tokens[key] = token
                        answer = await self._send(method, url, headers, token)
        except (httpx2.HTTPError, TimeoutError, OSError, ValueError) as error:
            what = str(error) or "no answer in time"
            raise RegistryUnavailable(f"The registry {reference.registry} does not answer: {what}.") from error
        if answer.status_code not in (200, 404, *also):
            raise RegistryUnavailable(
                f"The registry {reference.registry} answers {answer.status_code}.",
                hint="Log in on the server: `buildah login`, `podman login` or `docker login`."
                if answer.status_code in (401, 403)
                else "",
            )
        return answer

    async def _send(self, method: str, url: str, headers: dict[str, str], authorization: str | None) -> httpx2.Response:
        if self._client is None:
            # As a mount: what the environment says of proxies comes before it, but for one that is for all.
            fast = {} if "all" in getproxies() else {"all://": FastTransport()}
            self._client = httpx2.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=True, mounts=fast)
        more = {"Authorization": authorization} if authorization else {}
        return await self._client.request(method, url, headers=headers | more)

    async def _token(self, refused: httpx2.Response, reference: Reference, scope: str) -> str | None:
        """What to put into Authorization, as the registry's challenge says; None where there is nothing to try."""
        challenge = refused.headers.get("WWW-Authenticate", "")
        kind, _, rest = challenge.partition(" ")
        known = credentials(reference.registry)
        if kind.lower() == "basic" and known is not None:
            return "Basic " + base64.b64encode(":".join(known).encode()).decode()
        if kind.lower() != "bearer":
            return None
        given = dict(_PARAMETER.findall(rest))
        query = {"service": given.get("service", ""), "scope": f"repository:{reference.repository}:{scope}"}
        realm = given.get("realm", "")
        if not realm.startswith("https://") and not is_local(realm.removeprefix("http://").partition("/")[0]):
            return None  # credentials are not sent over the open net
        assert self._client is not None
        auth = httpx2.BasicAuth(*known) if known else None
        with contextlib.suppress(httpx2.HTTPError):
            answer = await self._client.get(realm, params=query, auth=auth)
            if answer.status_code == 200:
                document = answer.json()
                token = document.get("token") or document.get("access_token")
                return f"Bearer {token}" if token else None
        return None
