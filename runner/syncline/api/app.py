"""Puts the API together: routes, their order of layers, its document, and what it opens and closes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool

from syncline import __version__
from syncline.api import (
    changes,
    conflicts,
    document,
    entities,
    events,
    health,
    limits,
    metrics,
    problems,
    references,
    reports,
    runs,
    schedules,
    signatures,
    streams,
)
from syncline.api.requests import RequestLog
from syncline.api.settings import ApiSettings
from syncline.api.state import State
from syncline.config import Project

DESCRIPTION = """
Requests runs, follows them, takes pushed records, publishes and takes back what was published; decides conflicts, and
tells what changed and where a value came from.

Send a token as `Authorization: Bearer TOKEN` or as `x-sync-secret: TOKEN`. Roles: `viewer` reads, `operator` also
runs and publishes, `admin` also sets guards aside and overrides values. No GET changes anything. Every error is a
problem (RFC 9457) that says what to do next, and every answer has an `X-Request-Id`.
"""

TAGS = [
    {"name": "runs", "description": "Syncs: requested, followed, cancelled, tried again."},
    {"name": "streams", "description": "Raw records: what is loaded, and pushes."},
    {"name": "entities", "description": "What users read: built, compared, published, taken back."},
    {"name": "conflicts", "description": "What sources disagree on, and what people decided."},
    {"name": "changes", "description": "What was published, row by row, and where each value came from."},
    {"name": "references", "description": "Stable internal ids of records elsewhere."},
    {"name": "schedules", "description": "When runs are requested by themselves."},
    {"name": "reports", "description": "What there is and what is wrong with it."},
    {"name": "triggers", "description": "Signed calls of other systems."},
    {"name": "health", "description": "For the platform that the API runs on."},
]


def create_app(project: Project, dsn: str, settings: ApiSettings) -> FastAPI:
    """Return the application; its connections open as it starts and close as it stops."""
    state = State(project, dsn, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state.pool.open()
        try:
            yield
        finally:
            await run_in_threadpool(state.close)

    app = FastAPI(
        title="Syncline",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lifespan,
        # Problems tell more than FastAPI's own shape of errors.
        responses=problems.responses(400, 422, 500, 503),
        redirect_slashes=False,
        openapi_url="/api/v1/openapi.json",
        # They load scripts from elsewhere into a page that may hold a token.
        docs_url=None,
        redoc_url=None,
    )
    app.state.syncline = state
    problems.install(app)
    document.install(app)
    for part in (runs, events, streams, entities, conflicts, changes, references, schedules, reports):
        app.include_router(part.router, dependencies=[Depends(problems.check_query)])
    for part in (signatures, health, metrics):
        # Who calls them may add to the address what is theirs.
        app.include_router(part.router)
    limits.install(app, settings)
    app.add_middleware(RequestLog)  # the last one added is the outermost
    return app
