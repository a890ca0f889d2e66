"""What there is and what is wrong with it: status, and row errors, which may be replayed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from syncline import control, db
from syncline.api import answers, problems
from syncline.api.access import Operator, RequestId, Viewer
from syncline.api.problems import unknown_is_404
from syncline.api.runs import LARGEST, Text, accepted, check_entities, located
from syncline.api.state import Shared, State
from syncline.row_errors import read_error

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


@router.get(
    "/row-errors/{error_id}", response_model=answers.WholeRowError, responses=problems.responses(401, 403, 404, 429)
)
def read_row_error(
    state: Shared, _: Viewer, error_id: Annotated[int, Path(ge=1, le=LARGEST, description="The row error's number.")]
) -> answers.Json:
    """Return all that is known of one row error, and its record, unless its stream is redacted."""
    with state.connection() as connection, unknown_is_404():
        return answers.Json(read_error(connection, state.project, error_id))


ErrorId = Annotated[int, Field(ge=1, le=LARGEST)]


class ReplayRequest(BaseModel):
    """Which row errors: those that are all of this, or every open one."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"entity": "talents"}, {"errors": [17, 18]}, {"all": True}]}
    )

    errors: list[ErrorId] | None = Field(default=None, min_length=1, max_length=1000, description="By their numbers.")
    entity: Text | None = Field(default=None, description="Those of this entity.")
    stream: Text | None = Field(default=None, description="Those of this stream: its name, or source.stream.")
    run: ErrorId | None = Field(default=None, description="Those of this run.")
    all: bool = Field(default=False, description="Every open row error.")
    max_attempts: int = Field(default=3, ge=1, le=100, description="How often it is tried, the first attempt included.")


@router.post(
    "/row-errors/replay",
    status_code=202,
    response_model=answers.RunReport,
    responses=located(202) | problems.responses(401, 403, 409, 413, 415, 429),
)
def replay_row_errors(state: Shared, caller: Operator, request_id: RequestId, wanted: ReplayRequest) -> answers.Json:
    """Put a run in the queue that tries rejected records again; its event `errors_replayed` says how it went."""
    check_entities(state, [wanted.entity] if wanted.entity else [])
    with state.connection(request_id) as connection:
        run_id = db.call_value(
            connection,
            "replay_errors",
            p_errors=wanted.errors,
            p_entity=wanted.entity,
            p_stream=wanted.stream,
            p_run_id=wanted.run,
            p_is_all=wanted.all,
            p_trigger="api",
            p_triggered_by=caller.name,
            p_request_id=request_id,
            p_max_attempts=wanted.max_attempts,
        )
        return accepted(control.run_report(connection, run_id))
