"""The files that browsers are given: read once, packed once, known by a hash of their content."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from norn.errors import NotFound

DIRECTORY = Path(__file__).with_name("static")
_TYPES = {
    "norn.css": "text/css; charset=utf-8",
    "norn.js": "text/javascript; charset=utf-8",
    "norn.svg": "image/svg+xml",
    "htmx-4.0.1.min.js": "text/javascript; charset=utf-8",
}
"""All there are: a name is looked up here, never on the disk."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    packed: bytes
    media_type: str
    digest: str


@cache
def _assets() -> dict[str, Asset]:
    found = {}
    for name, media_type in _TYPES.items():
        content = (DIRECTORY / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:16]
        found[name] = Asset(content, gzip.compress(content, 9, mtime=0), media_type, digest)
    return found


def url_of(name: str) -> str:
    """The path of a file, another one whenever its content changes."""
    return f"/static/{_assets()[name].digest}/{name}"


def accepts_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


@router.get("/static/{digest}/{name}")
async def get_static(request: Request, digest: str, name: str) -> Response:
    asset = _assets().get(name)
    if asset is None or asset.digest != digest:
        raise NotFound("There is no such file.", hint="Load the page anew: the server may be another version by now.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if not accepts_gzip(request):
        return Response(asset.content, headers=headers, media_type=asset.media_type)
    return Response(asset.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=asset.media_type)
