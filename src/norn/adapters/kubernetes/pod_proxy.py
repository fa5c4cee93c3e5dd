"""What the API server's pod proxy answers: the app's own words, or those of the API server."""

from __future__ import annotations

import json

import httpx2

from norn.errors import RuntimeUnavailable

_BYTES = 16_384


async def beginning(response: httpx2.Response) -> bytes:
    found = b""
    async for chunk in response.aiter_bytes():
        found += chunk
        if len(found) > _BYTES:
            break
    return found


def meaning(status: int, body: bytes) -> int | str | None:
    """The app's own status; where the API server speaks for itself, what it says; None where it refuses."""
    try:
        said = json.loads(body)
    except ValueError:
        return status
    if not isinstance(said, dict) or (said.get("kind"), said.get("apiVersion")) != ("Status", "v1"):
        return status
    message = " ".join(str(said.get("message") or status).split())
    if status in (401, 403, 404):  # a pod that is not there is not ill
        return None
    if "trying to reach service" not in message:
        raise RuntimeUnavailable(
            f"The Kubernetes API server answers {status}: {message}.", hint="`kubectl get --raw /readyz`"
        )
    return message
