"""What was published and where it came from: the feed of changes, the life of a row, lineage and mapping."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from syncline import db
from syncline.api import problems
from syncline.api.access import Viewer
from syncline.api.answers import Json, Shape
from syncline.api.conflicts import KeyFilter
from syncline.api.paths import ROW, Entity, Key
from syncline.api.problems import Problem, unknown_is_404
from syncline.api.reports import Name
from syncline.api.runs import LARGEST
from syncline.api.state import Shared
from syncline.errors import RefusedError

router = APIRouter(prefix="/api/v1", tags=["changes"])


class PublishedChange(Shape):
    change_id: int
    entity: str
    key: str = Field(alias="_key")
    change: Literal["inserted", "updated", "deleted"]
    old: dict[str, Any] | None = Field(description="Of an update the fields that changed, else the whole row.")
    new: dict[str, Any] | None
    published_at: datetime
    publication_id: int
    run_id: int | None
    is_rollback: bool


class ChangeList(Shape):
    changes: list[PublishedChange]
    next_before: int | None = Field(description="Give it as `before` for the next page; null on the last one.")


class LifeEvent(Shape):
    happened_at: datetime
    event: str = Field(examples=["updated", "override set", "conflict"])
    column_name: str | None = Field(description="null for the row as a whole.")
    old: Any
    new: Any
    run_id: int | None
    done_by: str | None
    detail: str | None


class Life(Shape):
    events: list[LifeEvent] = Field(description="Newest first.")
    has_more: bool


class FieldLineage(Shape):
    """Where one field of a row came from."""

    key: str = Field(alias="_key")
    column_name: str
    value: Any
    rule: str | None = Field(examples=["typed", "source_of_truth", "override"])
    source: str | None
    stream: str | None = Field(examples=["agency.talents"])
    path: str | None = Field(description="The JSON path in the record.")
    row_number: int | None = Field(description="The record's place in its load.")
    load_id: int | None
    run_id: int | None
    loaded_at: datetime | None
    candidates: dict[str, Any] | None = Field(description="Of a merged field what each source says.")
    previous: Any = Field(description="The value before the last change that is recorded.")
    changed_at: datetime | None
    changed_by_run: int | None
    override: dict[str, Any] | None


class Lineage(Shape):
    fields: list[FieldLineage]


class MappedColumn(Shape):
    column_name: str
    column_type: str
    rule: str | None
    source: str | None
    stream: str | None
    path: str | None
    type: str | None
    is_required: bool | None
    priority: int | None = Field(description="Of a merged field: 1 is asked first.")


class Mapping(Shape):
    columns: list[MappedColumn] = Field(description="Of a merged field one for each source.")


@router.get("/changes", response_model=ChangeList, responses=problems.responses(401, 403, 429))
def list_changes(
    state: Shared,
    _: Viewer,
    entity: Name = None,
    key: KeyFilter = None,
    run: Annotated[int | None, Query(ge=1, le=LARGEST, description="What this run published.")] = None,
    since: Annotated[datetime | None, Query(description="Published then or later; UTC without an offset.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: Annotated[int | None, Query(ge=1, le=LARGEST, description="Only changes with a smaller number.")] = None,
) -> Json:
    """List what was published and rolled back, row by row, newest first."""
    with state.connection() as connection:
        db.call(connection, "check_reported", entity, None, run)
        found = db.call_exact(connection, "list_changes", entity, key, run, since, limit, before)
    return Json({"changes": found, "next_before": found[-1]["change_id"] if len(found) == limit else None})


@router.get(ROW + "/history", response_model=Life, responses=problems.responses(401, 403, 404, 409, 429))
def read_history(
    state: Shared, _: Viewer, entity: Entity, key: Key, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Json:
    """Tell the life of one row, newest first: changes, overrides, conflicts and row errors."""
    with state.connection() as connection, unknown_is_404():
        found = db.call_exact(connection, "life_of", entity, key, limit + 1)
    if not found:
        raise Problem(404, "unknown", f"nothing is known of a row {key} in {entity}", _HINT)
    return Json({"events": found[:limit], "has_more": len(found) > limit})


@router.get(ROW + "/lineage", response_model=Lineage, responses=problems.responses(401, 403, 404, 409, 429))
def read_lineage(state: Shared, _: Viewer, entity: Entity, key: Key, column: Name = None) -> Json:
    """Tell where each field of a published row, or one of them, came from: source, stream, path, load and run."""
    with state.connection() as connection:
        with unknown_is_404():
            db.call(connection, "published_model", entity)
        try:
            return Json({"fields": db.call_exact(connection, "lineage", entity, key, column)})
        except RefusedError as error:
            raise Problem(404, "unknown", error.message, _HINT) from None


@router.get("/entities/{entity}/mapping", response_model=Mapping, responses=problems.responses(401, 403, 404, 409, 429))
def read_mapping(state: Shared, _: Viewer, entity: Entity) -> Json:
    """Tell which column of an entity comes from which JSON path of which stream, and by what rule."""
    with state.connection() as connection, unknown_is_404():
        return Json({"columns": db.call(connection, "column_mapping", entity)})


_HINT = "Give its _key or its unique key. GET /api/v1/changes has what was there once."
