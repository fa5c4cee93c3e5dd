"""All pages, one router each."""

from __future__ import annotations

from fastapi import FastAPI

from norn.ui import app_pages, assets, audit, docs, errors, operation_pages, retention, rollback, snapshots
from norn.ui.looks import Looks

ROUTERS = (
    assets.router,
    app_pages.router,
    operation_pages.router,
    rollback.router,
    snapshots.router,
    retention.router,
    audit.router,
    docs.router,
)


def install(app: FastAPI) -> None:
    """Add them to an application that has the API's routes and handlers already."""
    for router in ROUTERS:
        app.include_router(router)
    app.state.looks = Looks()
    errors.install(app)
