"""Schedules over HTTP: when runs are requested by themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from syncline import control, db, schedules
from syncline.api import answers, problems
from syncline.api.access import Operator, RequestId, Viewer, check_admin
from syncline.api.problems import unknown_is_404
from syncline.api.runs import (
    LARGEST,
    LONGEST,
    Names,
    RunSpec,
    accepted,
    check_names,
    located,
    option_values,
)
from syncline.api.state import Shared

PREFIX = "/api/v1/schedules"

router = APIRouter(prefix="/api/v1", tags=["schedules"])

Name = Annotated[str, Path(max_length=200, pattern=r"^[^\x00]+$", description="The schedule's name.")]
Cron = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$", examples=["0 */6 * * *"])]
Zone = Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$", examples=["Europe/Prague"])]


class NewSchedule(RunSpec):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "nightly", "cron": "0 3 * * *", "sources": ["agency"]}]}
    )

    name: str = Field(pattern=r"^[a-z0-9_-]{1,50}$")
    cron: Cron = Field(description="Minute, hour, day of the month, month, day of the week.")
    zone: Zone = "UTC"


class ScheduleChange(BaseModel):
    """What is to change; what is left out, or null, stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"cron": "*/15 * * * *"}]})

    cron: Cron | None = None
    zone: Zone | None = None
    sources: Names | None = None
    streams: Names | None = None
    entities: Names | None = None
    dry_run: bool | None = None
    row_limit: int | None = Field(default=None, ge=0, le=LARGEST, description="0 takes it away.")
    publish: Literal["together", "each"] | None = None
    full_refresh: bool | None = None
    force_overwrite: bool | None = Field(default=None, description="Needs an admin.")
    allow_mass_delete: bool | None = Field(default=None, description="Needs an admin.")
    max_attempts: int | None = Field(default=None, ge=1, le=100)
    timeout: float | None = Field(default=None, ge=0, le=LONGEST, description="Seconds; 0 takes it away.")


class Schedule(answers.Shape):
    name: str
    cron: str
    zone: str
    sources: list[str]
    entities: list[str]
    options: dict[str, Any]
    max_attempts: int
    timeout: float | None = Field(description="Seconds that each attempt may take.")
    is_paused: bool
    next_at: datetime | None
    last_fired_at: datetime | None
    last_run: int | None
    last_status: answers.Status | None
    missed: int = Field(description="Times that passed without a run being requested.")
    last_error: str | None
    fired_by: Literal["pg_cron", "worker"]
    reason: str | None = Field(description="Why workers fire it where pg_cron does not.")


class ScheduleList(answers.Shape):
    schedules: list[Schedule]


class Synced(answers.Shape):
    synced: dict[str, str] = Field(description="By name: scheduled, rescheduled, unscheduled or fired by workers.")


@router.get("/schedules", response_model=ScheduleList, responses=problems.responses(401, 403, 429))
def list_schedules(state: Shared, _: Viewer) -> answers.Json:
    """List the schedules: what they request, when next, and what came of it last."""
    with state.connection() as connection:
        return answers.Json({"schedules": [_shown(row) for row in schedules.list_schedules(connection)]})


@router.post(
    "/schedules",
    status_code=201,
    response_model=Schedule,
    responses=located(201) | problems.responses(401, 403, 409, 413, 415, 429),
)
def create_schedule(state: Shared, caller: Operator, request_id: RequestId, wanted: NewSchedule) -> answers.Json:
    """Make a schedule. pg_cron fires it where it can, else workers do."""
    check_admin(caller, *wanted.options())
    wanted.check(state)
    with state.connection(request_id) as connection:
        schedules.create_schedule(
            connection,
            wanted.name,
            wanted.cron,
            wanted.zone,
            wanted.sources,
            wanted.entities,
            wanted.options(),
            max_attempts=wanted.max_attempts,
            timeout=wanted.timeout,
            created_by=caller.name,
        )
        shown = _shown(schedules.get_schedule(connection, wanted.name))
    return answers.Json(shown, 201, headers={"Location": f"{PREFIX}/{wanted.name}"})


@router.post("/schedules/sync", response_model=Synced, responses=problems.responses(401, 403, 429))
def sync_schedules(state: Shared, _: Operator, request_id: RequestId) -> answers.Json:
    """Make pg_cron's jobs agree with the schedules again; return what was done."""
    with state.connection(request_id) as connection:
        return answers.Json({"synced": schedules.sync_schedules(connection)})


@router.get("/schedules/{name}", response_model=Schedule, responses=problems.responses(401, 403, 404, 429))
def read_schedule(state: Shared, _: Viewer, name: Name) -> answers.Json:
    """Return one schedule."""
    with state.connection() as connection:
        return answers.Json(_find(connection, name))


@router.patch("/schedules/{name}", response_model=Schedule, responses=problems.responses(401, 403, 404, 413, 415, 429))
def set_schedule(
    state: Shared, caller: Operator, request_id: RequestId, name: Name, change: ScheduleChange
) -> answers.Json:
    """Change what is given of a schedule."""
    with state.connection(request_id) as connection:
        known = _find(connection, name)
        given = {option: value for option, value in option_values(change).items() if value is not None}
        options = {option: value for option, value in (known["options"] | given).items() if value}
        # Whoever changes what a guard is set aside for sets it aside.
        check_admin(caller, *options)
        sources = known["sources"] if change.sources is None else change.sources
        check_names(state, sources, options.get("streams", []), change.entities or [])
        schedules.set_schedule(
            connection,
            name,
            cron=change.cron,
            zone=change.zone,
            sources=change.sources,
            entities=change.entities,
            options=options,
            max_attempts=change.max_attempts,
            timeout=change.timeout,
        )
        return answers.Json(_find(connection, name))


@router.delete(
    "/schedules/{name}",
    status_code=204,
    response_class=Response,
    responses=problems.responses(401, 403, 404, 429),
)
def delete_schedule(state: Shared, _: Operator, request_id: RequestId, name: Name) -> Response:
    """Delete a schedule; its runs stay."""
    with state.connection(request_id) as connection, unknown_is_404():
        schedules.delete_schedule(connection, name)
    return Response(status_code=204)


@router.post("/schedules/{name}/pause", response_model=Schedule, responses=problems.responses(401, 403, 404, 429))
def pause_schedule(state: Shared, _: Operator, request_id: RequestId, name: Name) -> answers.Json:
    """Fire the schedule no more until it is resumed."""
    with state.connection(request_id) as connection:
        with unknown_is_404():
            schedules.pause_schedule(connection, name)
        return answers.Json(_find(connection, name))


@router.post("/schedules/{name}/resume", response_model=Schedule, responses=problems.responses(401, 403, 404, 429))
def resume_schedule(state: Shared, _: Operator, request_id: RequestId, name: Name) -> answers.Json:
    """Fire a paused schedule again, from its next time on."""
    with state.connection(request_id) as connection:
        with unknown_is_404():
            schedules.resume_schedule(connection, name)
        return answers.Json(_find(connection, name))


@router.post(
    "/schedules/{name}/trigger",
    status_code=202,
    response_model=answers.RunReport,
    responses=located(202) | problems.responses(401, 403, 404, 429),
)
def trigger_schedule(state: Shared, caller: Operator, request_id: RequestId, name: Name) -> answers.Json:
    """Request the schedule's run now, paused or not; its next time stays."""
    with state.connection(request_id) as connection:
        check_admin(caller, *_find(connection, name)["options"])
        run_id = schedules.trigger_schedule(connection, name, "api", caller.name, request_id)
        return accepted(control.run_report(connection, run_id))


def _find(connection: db.Connection, name: str) -> dict[str, Any]:
    with unknown_is_404():
        return _shown(schedules.get_schedule(connection, name))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    timeout = row["timeout"]
    return row | {"timeout": None if timeout is None else timeout.total_seconds()}
