"""For the platform that the API runs on: does the process live, and can it work."""

from __future__ import annotations

from fastapi import APIRouter

from syncline import __version__
from syncline.api import answers, problems
from syncline.api.problems import Problem
from syncline.api.state import Shared
from syncline.errors import ConfigurationError
from syncline.migrate import is_up_to_date

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=answers.Health)
async def healthz() -> answers.Json:
    """Say that the process lives; the database is not asked."""
    return answers.Json({"status": "ok", "version": __version__})


@router.get("/readyz", response_model=answers.Health, responses=problems.responses(503))
def readyz(state: Shared) -> answers.Json:
    """Say that the database answers and that the control schema is up to date; else a problem 503."""
    with state.connection() as connection:
        try:
            is_ready = is_up_to_date(connection, state.project)
        except ConfigurationError as error:
            # Of a newer release, or not for this user: nothing that who asks has sent.
            raise _not_migrated(error.message, error.hint) from None
    if not is_ready:
        raise _not_migrated("the control schema is not up to date", "`syncline migrate` brings it up to date.")
    return answers.Json({"status": "ready", "version": __version__})


def _not_migrated(detail: str, hint: str | None) -> Problem:
    return Problem(503, "not_migrated", detail, hint)
