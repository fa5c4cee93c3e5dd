"""Routes of tokens: who has access."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse

from norn.domain.access import Permission, Role
from norn.domain.durations import parse_duration
from norn.domain.ports.access import NewToken
from norn.errors import Invalid
from norn.http import schemas
from norn.http.answers import problems
from norn.http.permissions import Of, may
from norn.http.requests import CallerOf, ContextOf
from norn.operations.access import create_token, revoke_token

TokenName = Annotated[
    str, Path(max_length=256, pattern=r"^[^\x00]*$", description="As in the list of tokens", examples=["on-call"])
]
_MAX_S = 3_650 * 86_400.0

router = APIRouter(
    prefix="/api",
    responses=problems(),
    tags=["access"],
    dependencies=[may(Permission.ADMINISTER, Of.ALL)],
)


@router.get("/tokens", response_model=schemas.TokensAnswer)
async def list_tokens(context: ContextOf) -> JSONResponse:
    """All that are not revoked, by name; what lets in is not shown."""
    return JSONResponse({"tokens": [token.to_json() for token in await context.gate.tokens.tokens()]})


@router.post("/tokens", status_code=201, response_model=schemas.NewTokenAnswer, responses=problems(404, 409))
async def post_token(context: ContextOf, caller: CallerOf, body: schemas.TokenBody) -> JSONResponse:
    """Make one. The answer has it, and nothing else ever will: Idempotency-Key has no effect here."""
    new = NewToken(body.name, Role(body.role), body.apps, _lasts(body.expires))
    token, secret = await create_token(context.services, context.gate, new, caller)
    return JSONResponse(token.to_json() | {"token": secret}, 201, {"Cache-Control": "no-store"})


@router.delete("/tokens/{name}", status_code=204, responses=problems(404))
async def delete_token(name: TokenName, context: ContextOf, caller: CallerOf) -> Response:
    """Revoke it: from now on it lets nobody in on any server, sessions included, and open streams end."""
    await revoke_token(context.services, context.gate, name, caller)
    return Response(status_code=204)


def _lasts(expires: str | None) -> float | None:
    if expires is None:
        return None
    try:
        seconds = parse_duration(expires, _MAX_S)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"expires: {error}.", hint="For example 90d or 12h.") from error
    if seconds <= 0:
        raise Invalid("expires: a token that never lets in is of no use.", hint="For example 90d or 12h.")
    return seconds
