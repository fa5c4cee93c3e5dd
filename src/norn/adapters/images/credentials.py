"""What `buildah login`, `podman login` and `docker login` have written down: who Norn is to a registry."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path


def credentials(registry: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """User and password for a registry, from the first auth file that knows it (containers-auth.json(5))."""
    for path in _auth_files(environment):
        try:
            auths = json.loads(path.read_text(encoding="utf-8")).get("auths") or {}
        except (OSError, ValueError, AttributeError):
            continue
        for name in (registry, f"https://{registry}", f"https://{registry}/v1/"):
            entry = auths.get(name)
            if isinstance(entry, dict) and (found := _decoded(entry.get("auth"))):
                return found
    return None


def _auth_files(environment: Mapping[str, str]) -> Iterator[Path]:
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
        return
    if directory := environment.get("XDG_RUNTIME_DIR"):
        yield Path(directory) / "containers" / "auth.json"
    yield Path(f"/run/containers/{os.getuid()}/auth.json")
    yield Path("~/.config/containers/auth.json").expanduser()
    yield Path(environment.get("DOCKER_CONFIG") or "~/.docker").expanduser() / "config.json"


def _decoded(auth: object) -> tuple[str, str] | None:
    if not isinstance(auth, str):
        return None
    try:
        user, colon, password = base64.b64decode(auth).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None
