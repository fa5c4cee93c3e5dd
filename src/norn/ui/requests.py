"""What the pages' routes have in common."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from fastapi.responses import RedirectResponse

Before = Annotated[int | None, Query(ge=0, lt=2**63, description="What is older than the one of this number.")]


def see_other(path: str) -> RedirectResponse:
    """After a form: to the page that shows what came of it, so that loading that again sends nothing again."""
    return RedirectResponse(path, 303, {"Cache-Control": "no-store"})
