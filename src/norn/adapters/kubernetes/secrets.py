"""Values that apps get and nobody sees, in the Secret `<app>-secrets`.

Setting and removing want the right to patch, not to read; the answer to a patch holds the whole Secret all the same,
and nobody looks at it. Listing the names wants the right to read, and says so where it is missing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from norn.adapters.kubernetes.client import Cluster, PatchTestFailed
from norn.adapters.kubernetes.manifests import app_secret, secret
from norn.adapters.kubernetes.resources import Secret
from norn.domain.secrets import check_name, check_value
from norn.errors import ClusterRefused, NotAllowed, UnknownSecret

_FORBIDDEN = 403


class KubernetesSecrets:
    """The protocol `Secrets`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def names(self, app: str) -> Sequence[str]:
        """Raises NotAllowed where Norn may not read the Secret."""
        return sorted(await self.values(app))

    async def values(self, app: str) -> Mapping[str, str]:
        """Raises NotAllowed where Norn may not read the Secret."""
        try:
            found = await self._cluster.get(Secret, app_secret(app))
        except ClusterRefused as refused:
            if refused.facts.get("clusterStatus") != _FORBIDDEN:
                raise
            raise NotAllowed(
                f"Norn may not read the Secret {app_secret(app)}.",
                hint=f"Setting works without. To list, add {app_secret(app)} to `norn-read-secrets` in "
                "deploy/kubernetes/rbac.yaml.",
            ) from refused
        data = (found or {}).get("data") or {}
        return {name: base64.b64decode(value).decode("utf-8", "replace") for name, value in data.items()}

    async def set(self, app: str, name: str, value: str) -> None:
        """Raises Invalid for a wrong name or value."""
        check_name(name)
        check_value(value)
        new = secret(app_secret(app), app, {name: value})

        async def attempt() -> None:
            for _ in range(2):  # somebody else may make the Secret in between
                if await self._cluster.merge_patch(Secret, app_secret(app), {"data": new["data"]}) is not None:
                    return
                if await self._cluster.create(new, Secret) is not None:
                    return

        await self._cluster.patiently(attempt)

    async def unset(self, app: str, name: str) -> None:
        """Raises UnknownSecret."""
        check_name(name)
        try:
            done = await self._cluster.json_patch(Secret, app_secret(app), [{"op": "remove", "path": f"/data/{name}"}])
        except PatchTestFailed:
            done = None
        if done is None:
            raise UnknownSecret(f"{app} has no secret {name!r}.", hint=f"`norn secrets list {app}` lists them.")
