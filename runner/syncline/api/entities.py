"""Entities over HTTP: built, compared, published and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response, StreamingResponse

from syncline import control, db, preview
from syncline.api import answers, problems
from syncline.api.access import Operator, RequestId, Viewer
from syncline.api.auth import Caller
from syncline.api.problems import unknown_is_404
from syncline.api.reports import entity_rows
from syncline.api.runs import BuildRequest, Requester, accepted, check_entities, located
from syncline.api.state import Shared, State
from syncline.pipeline import publish_candidates
from syncline.publish import rollback

LINES = "application/x-ndjson"

_DIFF: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "At most `limit` rows. As application/x-ndjson: one a line, all of them without `limit`.",
        "content": {LINES: {"schema": {"type": "string"}}},
    },
    **problems.responses(401, 403, 404, 409, 429),
}

router = APIRouter(prefix="/api/v1", tags=["entities"])

Entity = Annotated[str, Path(max_length=200, pattern=r"^[^\x00]+$")]


@router.get("/entities", response_model=answers.EntityList, responses=problems.responses(401, 403, 429))
def list_entities(state: Shared, _: Viewer) -> answers.Json:
    """Show the entities: what is published, since when, what waits, what is wrong."""
    with state.connection() as connection:
        return answers.Json({"entities": entity_rows(state, connection)})


@router.post(
    "/entities/{entity}/build",
    status_code=202,
    response_model=answers.RunReport,
    responses=located(202) | problems.responses(401, 403, 404, 413, 415, 429),
)
def build_entity(
    state: Shared, caller: Operator, request_id: RequestId, entity: Entity, wanted: BuildRequest | None = None
) -> answers.Json:
    """Request a run that builds and checks the entity from what is loaded: it leaves a candidate to publish."""
    with unknown_is_404():
        check_entities(state, [entity])
    wish = wanted or BuildRequest()
    options: dict[str, Any] = {"steps": ["build", "check"]}
    options |= {name: True for name in ("full_refresh", "allow_mass_delete") if getattr(wish, name)}
    return accepted(Requester(state, caller, request_id).request([], [entity], options, wish, wish.triggered_by))


@router.post(
    "/entities/{entity}/publish",
    response_model=answers.Published,
    responses=problems.responses(401, 403, 404, 409, 429),
)
def publish_entity(state: Shared, caller: Operator, request_id: RequestId, entity: Entity) -> answers.Json:
    """Publish the entity's checked candidate exactly as it was shown, and lift its hold."""
    return _publish(state, caller, request_id, entity)


@router.post("/publish", response_model=answers.Published, responses=problems.responses(401, 403, 409, 429))
def publish_all(state: Shared, caller: Operator, request_id: RequestId) -> answers.Json:
    """Publish all checked candidates in one transaction, and lift all holds."""
    return _publish(state, caller, request_id, None)


@router.post(
    "/entities/{entity}/rollback",
    response_model=answers.RolledBack,
    responses=problems.responses(401, 403, 404, 409, 429),
)
def roll_back_entity(state: Shared, caller: Operator, request_id: RequestId, entity: Entity) -> answers.Json:
    """Take the entity back to what was published before, with those of that run that read it, and hold them."""
    return _roll_back(state, caller, request_id, entity)


@router.post("/rollback", response_model=answers.RolledBack, responses=problems.responses(401, 403, 409, 429))
def roll_back_all(state: Shared, caller: Operator, request_id: RequestId) -> answers.Json:
    """Take back what the last publishing run swapped, and hold it."""
    return _roll_back(state, caller, request_id, None)


@router.get(
    "/entities/{entity}/diff",
    response_model=answers.Difference,
    responses=_DIFF,
)
def diff_entity(
    state: Shared,
    _: Viewer,
    entity: Entity,
    limit: Annotated[int | None, Query(ge=1, le=10_000, description="Of JSON 100 by default.")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
) -> Response:
    """Show row by row what the candidate would change, by field; with none, what the last publish changed."""
    with state.connection() as connection, unknown_is_404():
        shown = preview.summary(connection, entity)
    if LINES in accept:
        lines = StreamingResponse(_lines(state, shown, limit), media_type=LINES)
        return state.downloads.held_by(lines)
    most = limit or 100
    with state.connection() as connection:
        rows = list(_changes(connection, shown, most + 1))
    told = {"entity": entity, "shows": shown.shows, "counts": shown.counts}
    told |= {"columns_added": shown.columns_added, "columns_dropped": shown.columns_dropped}
    return answers.Json(told | {"rows": rows[:most], "has_more": len(rows) > most})


def _lines(state: State, shown: preview.Summary, limit: int | None) -> Iterator[bytes]:
    # A connection of its own: a slow reader keeps it for long.
    with db.connect(state.dsn) as connection:
        yield from preview.in_pieces(_changes(connection, shown, limit))


def _changes(connection: db.Connection, shown: preview.Summary, limit: int | None) -> Iterator[dict[str, Any]]:
    for row in preview.changes(connection, shown.entity, limit):
        yield row | {"shows": shown.shows}


def _publish(state: State, caller: Caller, request_id: str, entity: str | None) -> answers.Json:
    with state.own_connection(request_id) as connection:
        if entity is not None:
            with unknown_is_404():
                db.call(connection, "check_known", [entity])
        with state.engine() as engine:
            published = publish_candidates(engine, connection, [entity] if entity else None)
        control.log(connection, "info", "published", entities=sorted(published), by=caller.name)
    return answers.Json({"published": published})


def _roll_back(state: State, caller: Caller, request_id: str, entity: str | None) -> answers.Json:
    with state.own_connection(request_id) as connection:
        with unknown_is_404():
            entities = rollback(connection, entity)
        control.log(connection, "warning", "rolled_back", entities=entities, by=caller.name)
    return answers.Json({"rolled_back": entities})
