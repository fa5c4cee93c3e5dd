"""What the routes have in common: an app's name, problem documents, and the answer to an accepted operation."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from fastapi.responses import JSONResponse

from norn.domain.operations import Operation
from norn.http.problems import MEDIA_TYPE

AppName = Annotated[str, Path(max_length=256, description="The app's name", examples=["myapp"])]

_PROBLEMS: dict[int, str] = {
    400: "malformed",
    401: "no token, or an unknown one",
    403: "the token does not permit it",
    408: "the body did not arrive in time",
    429: "too many wrong tokens from this address",
    404: "unknown",
    405: "no such method here",
    409: "refused, busy, or nothing to do it with; `type` tells which",
    507: "the disk has not the room that is needed",
    413: "the body is too large",
    422: "a value is wrong",
    500: "a defect",
    503: "the runtime or the database does not answer",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problem documents."""
    always = (400, 401, 403, 408, 413, 422, 429, 500, 503)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _PROBLEMS[status], "content": content} for status in sorted({*always, *statuses})}


def accepted(operation: Operation) -> JSONResponse:
    return JSONResponse(operation.to_json(), 202, {"Location": f"/api/operations/{operation.id}"})
