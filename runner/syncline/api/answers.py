"""Answers as they are sent: JSON by msgspec, and the shapes that the API's document shows."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

Status = Literal["queued", "running", "succeeded", "failed", "cancelled", "abandoned"]
Trigger = Literal["manual", "scheduler", "api", "webhook", "cli"]
Kind = Literal["sync", "load", "build", "push", "adopt", "replay", "dry run", "trial"]

_encoder = msgspec.json.Encoder(decimal_format="number")


class Json(Response):
    """What the database gave, as it is: it was judged there, and is not judged again."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return _encoder.encode(content)


class Shape(BaseModel):
    """An object of an answer; later releases may add to it."""

    model_config = ConfigDict(extra="allow")


class RunError(Shape):
    message: str
    hint: str | None = None
    exit_code: int | None = Field(default=None, description="1 failed, 2 configuration, 3 refused by a guard.")


class RunStep(Shape):
    name: str = Field(examples=["load"])
    status: str
    duration_ms: float | None = None


class RunReport(Shape):
    """A run as one object: what `syncline run --json` prints."""

    run_id: int = Field(examples=[7])
    status: Status
    kind: Kind
    trigger: Trigger
    triggered_by: str | None
    request_id: str
    retry_of: int | None = Field(description="The run that it tries again.")
    schedule: str | None = Field(description="The schedule that asked for it.")
    sources: list[str]
    entities_asked_for: list[str]
    options: dict[str, Any]
    attempt: int
    max_attempts: int
    requested_at: datetime
    due_at: datetime | None = Field(description="When a worker may take it: later than asked for, between attempts.")
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float | None
    is_cancelling: bool = Field(description="Somebody asked to cancel it, and it has not stopped yet.")
    steps: list[RunStep]
    streams: dict[str, dict[str, Any]] = Field(description="By `source.stream`: the load's counts.")
    entities: dict[str, dict[str, Any]] = Field(description="By entity: rows inserted, updated, deleted, ...")
    row_errors: int
    errors: list[RunError] = Field(description="Why it failed; empty where it did not.")


class RunList(Shape):
    runs: list[RunReport]
    next_before: int | None = Field(description="Give it as `before` for the next page; null on the last one.")


class RunEvent(Shape):
    event_id: int
    logged_at: datetime
    level: Literal["debug", "info", "warning", "error"]
    event: str = Field(examples=["sync_start"])
    request_id: str | None
    detail: dict[str, Any]


class EventList(Shape):
    events: list[RunEvent]


class StreamStatus(Shape):
    source: str
    stream: str
    last_load: int | None
    live_records: int
    loaded_at: datetime | None
    kind: str | None
    open_errors: int
    is_in_project: bool


class StreamList(Shape):
    streams: list[StreamStatus]


class EntityStatus(Shape):
    entity: str
    schema_name: str
    current_version: int | None
    rows_total: int | None
    published_at: datetime | None
    held_at: datetime | None
    candidate_state: str | None
    can_roll_back: bool
    open_errors: int
    open_conflicts: int
    is_in_project: bool


class EntityList(Shape):
    entities: list[EntityStatus]


class WholeStatus(EntityList, StreamList):
    """Every entity and every stream: what is published, since when, what waits, what is wrong."""


class PushResult(Shape):
    run_id: int
    load: dict[str, Any] = Field(
        description="The load's counts.",
        examples=[{"load_id": 3, "kind": "increment", "read": 2, "new": 1, "changed": 1, "gone": 0, "rejected": 0}],
    )
    row_errors: int
    run: RunReport | None = Field(description="With `run=true`: the run that builds, checks and publishes.")


class Published(Shape):
    published: dict[str, int] = Field(description="Entity to build; empty where only holds were lifted.")


class RolledBack(Shape):
    rolled_back: list[str] = Field(description="The entities that are back, and held.")


class Change(Shape):
    change: Literal["inserted", "updated", "deleted"]
    key: str = Field(alias="_key")
    unique_key: dict[str, Any] | None = Field(description="What the row was matched by; null where the model has none.")
    old: dict[str, Any] | None = Field(description="Of an update the fields that changed, else the whole row.")
    new: dict[str, Any] | None
    shows: Literal["candidate", "failed candidate", "last publish"]


class ChangeCounts(Shape):
    inserted: int
    updated: int
    deleted: int


class Difference(Shape):
    entity: str
    shows: Literal["candidate", "failed candidate", "last publish"]
    counts: ChangeCounts = Field(description="Of all rows, however many are in `rows`.")
    columns_added: list[str]
    columns_dropped: list[str]
    rows: list[Change]
    has_more: bool


class RowError(Shape):
    error_id: int
    run_id: int | None
    stream: str | None
    entity: str | None
    key: str | None = Field(alias="_key")
    row_number: int | None
    column_name: str | None
    value: str | None
    message: str
    severity: str
    created_at: datetime


class ReplayOutcome(Shape):
    run_id: int
    outcome: Literal["fine", "bad", "outrun", "left"] | None = Field(description="null until it is known.")


class WholeRowError(RowError):
    """All that is known of a row error."""

    note: str | None = Field(description="Why it was closed though its record did not get in.")
    path: str | None = Field(description="The JSON path of the value.")
    type: str | None
    load_id: int | None
    build_id: int | None
    closed_at: datetime | None
    is_replayable: bool
    is_redacted: bool
    replays: list[ReplayOutcome]
    record: str | None = Field(description="Up to 1 MiB; null where it was not kept, is gone, or may not be shown.")
    model: str | None = Field(description="File and line of the entity's model that read the value.")


class RowErrorList(Shape):
    errors: list[RowError]


class Health(Shape):
    status: Literal["ok", "ready"]
    version: str
