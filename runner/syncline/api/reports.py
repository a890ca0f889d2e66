"""What there is and what is wrong with it: status and row errors."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from syncline import db
from syncline.api import answers, problems
from syncline.api.access import Viewer
from syncline.api.runs import LARGEST
from syncline.api.state import Shared, State

router = APIRouter(prefix="/api/v1", tags=["reports"])

Name = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]+$")]


def entity_rows(state: State, connection: db.Connection) -> list[dict[str, Any]]:
    with db.translated():
        rows = connection.execute("select * from syncline.entity_status order by entity").fetchall()
    return [row | {"is_in_project": row["entity"] in state.models} for row in rows]


def stream_rows(state: State, connection: db.Connection) -> list[dict[str, Any]]:
    with db.translated():
        rows = connection.execute("select * from syncline.stream_status order by source, stream").fetchall()
    declared = state.project.stream_labels
    return [row | {"is_in_project": f"{row['source']}.{row['stream']}" in declared} for row in rows]


@router.get("/status", response_model=answers.WholeStatus, responses=problems.responses(401, 403, 429))
def read_status(state: Shared, _: Viewer) -> answers.Json:
    """Show entities and streams: what is published, since when, what waits, what is wrong."""
    with state.connection() as connection:
        return answers.Json({"entities": entity_rows(state, connection), "streams": stream_rows(state, connection)})


@router.get("/row-errors", response_model=answers.RowErrorList, responses=problems.responses(401, 403, 429))
def list_row_errors(
    state: Shared,
    _: Viewer,
    entity: Name = None,
    stream: Annotated[Name, Query(description="Its name, or source.stream.")] = None,
    run: Annotated[
        int | None, Query(ge=1, le=LARGEST, description="All errors of this run, whether they still hold or not.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> answers.Json:
    """List the records and values that did not fit and came no better since."""
    with state.connection() as connection:
        db.call(connection, "check_reported", entity, stream, run)
        return answers.Json({"errors": db.call(connection, "list_errors", entity, stream, run, limit)})
