"""What sources disagree on, and what people decide: conflicts and overrides over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from syncline import db
from syncline.api import problems
from syncline.api.access import Admin, Operator, RequestId, Viewer
from syncline.api.answers import Json, Shape
from syncline.api.paths import ROW, Column, Entity, Key
from syncline.api.problems import Problem, unknown_is_404
from syncline.api.reports import Name
from syncline.api.runs import LARGEST, Text
from syncline.api.state import Shared
from syncline.errors import RefusedError

router = APIRouter(prefix="/api/v1", tags=["conflicts"])

ConflictState = Literal["open", "ignored", "resolved", "closed"]

ConflictId = Annotated[int, Path(ge=1, le=LARGEST, description="The conflict's number.")]
KeyFilter = Annotated[
    str | None, Query(max_length=4000, pattern=r"^[^\x00]+$", description="Of the row with this `_key`.")
]
Reason = Annotated[str | None, Field(max_length=2000, pattern=r"^[^\x00]*$", description="Why, for those who ask.")]


class Override(Shape):
    """A value that somebody set for one field of one row, or the source that is trusted for it."""

    override_id: int
    entity: str
    key: str = Field(alias="_key")
    column_name: str
    value: Any = Field(description="null where `source` says whose value it is.")
    source: str | None = Field(description="The source whose value wins as long as it has one.")
    displaced: Any = Field(description="What was there without it.")
    reason: str | None
    set_by: str
    set_at: datetime
    lifted_by: str | None
    lifted_at: datetime | None
    status: str = Field(examples=["in force", "the next run builds it"])


class OverrideList(Shape):
    overrides: list[Override]
    has_more: bool


class Conflict(Shape):
    """A field of a row that sources say different things of."""

    conflict_id: int
    entity: str
    key: str = Field(alias="_key")
    column_name: str
    state: ConflictState
    candidates: dict[str, Any] = Field(
        description="What each source says.", examples=[{"crm": "Alfa", "sheet": "Alpha"}]
    )
    winner: str | None = Field(description="The source that wins by the rule; null where none does.")
    rule: Literal["authority", "priority", "kept"]
    times_seen: int
    first_seen_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None = Field(description="Since then they agree, or the row is gone.")
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None


class ConflictList(Shape):
    conflicts: list[Conflict]
    next_before: int | None = Field(description="Give it as `before` for the next page; null on the last one.")


class WholeConflict(Conflict):
    """A conflict and what was decided."""

    override: Override | None = Field(description="The override that is set for the field.")


class Decision(BaseModel):
    """What the field is to have: a value, or what one source says."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"use": "crm", "reason": "asked them"}, {"value": "Alpha"}]}
    )

    use: Text | None = Field(default=None, description="The source that is trusted for the field.")
    value: Any = Field(default=None, description="The value, as JSON has it; null empties the field.")
    reason: Reason = None

    @model_validator(mode="after")
    def _decide_once(self) -> Decision:
        if (self.use is not None) == ("value" in self.model_fields_set):
            raise ValueError("give either value or use, the source that is trusted")
        return self


class Ignored(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "a matter of spelling"}]})

    reason: Reason = None


class _Said(msgspec.Struct):
    value: msgspec.Raw


async def _body(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(_body)]


@router.get("/conflicts", response_model=ConflictList, responses=problems.responses(401, 403, 429))
def list_conflicts(
    state: Shared,
    _: Viewer,
    entity: Name = None,
    states: Annotated[
        list[ConflictState | Literal["all"]] | None,
        Query(alias="state", description="`open` by default. May be given again."),
    ] = None,
    key: KeyFilter = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: Annotated[int | None, Query(ge=1, le=LARGEST, description="Only conflicts with a smaller number.")] = None,
) -> Json:
    """List what sources disagree on, newest first."""
    wanted = None if states and "all" in states else states or ["open"]
    with state.connection() as connection:
        db.call(connection, "check_reported", entity, None, None)
        found = db.call_exact(connection, "list_conflicts", entity, wanted, key, limit, before)
    return Json({"conflicts": found, "next_before": found[-1]["conflict_id"] if len(found) == limit else None})


@router.get("/conflicts/{conflict_id}", response_model=WholeConflict, responses=problems.responses(401, 403, 404, 429))
def read_conflict(state: Shared, _: Viewer, conflict_id: ConflictId) -> Json:
    """Return one conflict: what each source says, which one wins and why, and what was decided."""
    with state.connection() as connection:
        return Json(_whole(connection, conflict_id))


@router.post(
    "/conflicts/{conflict_id}/resolve",
    response_model=WholeConflict,
    responses=problems.responses(401, 403, 404, 409, 413, 415, 429),
)
def resolve_conflict(
    state: Shared, caller: Admin, request_id: RequestId, conflict_id: ConflictId, wanted: Decision, body: Body
) -> Json:
    """Decide a conflict for good, by a value or by the source that is trusted: an override, which the next run builds.

    Needs an admin.
    """
    with state.connection(request_id) as connection:
        _find(connection, conflict_id)
        value = _value(connection, wanted, body)
        db.call(connection, "resolve_conflict", conflict_id, value, wanted.use, wanted.reason, caller.name)
        return Json(_whole(connection, conflict_id))


@router.post(
    "/conflicts/{conflict_id}/ignore",
    response_model=WholeConflict,
    responses=problems.responses(401, 403, 404, 409, 413, 415, 429),
)
def ignore_conflict(
    state: Shared, caller: Operator, request_id: RequestId, conflict_id: ConflictId, wanted: Ignored | None = None
) -> Json:
    """Leave a conflict to its rule, as long as the sources say what they say now."""
    with state.connection(request_id) as connection:
        with unknown_is_404():
            db.call(connection, "ignore_conflict", conflict_id, wanted.reason if wanted else None, caller.name)
        return Json(_whole(connection, conflict_id))


@router.post(
    "/conflicts/{conflict_id}/lift",
    response_model=WholeConflict,
    responses=problems.responses(401, 403, 404, 409, 429),
)
def lift_conflict(state: Shared, caller: Admin, request_id: RequestId, conflict_id: ConflictId) -> Json:
    """Lift the override that decided the conflict: it is open again, and the next run builds what the sources say.

    Needs an admin.
    """
    with state.connection(request_id) as connection:
        found = _find(connection, conflict_id)
        db.call(connection, "lift_override", found["entity"], found["_key"], found["column_name"], caller.name)
        return Json(_whole(connection, conflict_id))


@router.get("/overrides", response_model=OverrideList, responses=problems.responses(401, 403, 429))
def list_overrides(
    state: Shared,
    _: Viewer,
    entity: Name = None,
    key: KeyFilter = None,
    lifted: Annotated[bool, Query(description="Those that were lifted, too.")] = False,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Json:
    """List the values that people set, newest first, with what has become of each."""
    with state.connection() as connection:
        db.call(connection, "check_reported", entity, None, None)
        found = db.call_exact(connection, "list_overrides", entity, key, lifted, limit + 1)
    return Json({"overrides": found[:limit], "has_more": len(found) > limit})


@router.put(
    ROW + "/overrides/{column}",
    response_model=Override,
    responses=problems.responses(401, 403, 404, 409, 413, 415, 429),
)
def set_override(
    state: Shared,
    caller: Admin,
    request_id: RequestId,
    entity: Entity,
    key: Key,
    column: Column,
    wanted: Decision,
    body: Body,
) -> Json:
    """Set a field of a published row for good, to a value or to what one source says; the next run builds it.

    Takes the place of an override that is there. Needs an admin.
    """
    with state.connection(request_id) as connection:
        origin = _origin_key(connection, entity, key)
        value = _value(connection, wanted, body)
        db.call(connection, "set_override", entity, origin, column, value, wanted.use, wanted.reason, caller.name)
        return Json(_override(connection, entity, origin, column))


@router.delete(
    ROW + "/overrides/{column}",
    status_code=204,
    response_class=Response,
    responses=problems.responses(401, 403, 404, 409, 429),
)
def lift_override(
    state: Shared, caller: Admin, request_id: RequestId, entity: Entity, key: Key, column: Column
) -> Response:
    """Lift the override of a field: the next run builds what the sources say, or what it had displaced.

    Needs an admin.
    """
    with state.connection(request_id) as connection:
        origin = _origin_key(connection, entity, key)
        try:
            db.call(connection, "lift_override", entity, origin, column, caller.name)
        except RefusedError as error:
            raise Problem(404, "unknown", error.message, error.hint) from None
    return Response(status_code=204)


def _find(connection: db.Connection, conflict_id: int) -> dict[str, Any]:
    with unknown_is_404():
        return db.call_exact(connection, "read_conflict", conflict_id)[0]


def _whole(connection: db.Connection, conflict_id: int) -> dict[str, Any]:
    found = _find(connection, conflict_id)
    return found | {"override": _override(connection, found["entity"], found["_key"], found["column_name"])}


def _override(connection: db.Connection, entity: str, key: str, column: str) -> dict[str, Any] | None:
    of_row = db.call_exact(connection, "list_overrides", entity, key)
    return next((found for found in of_row if found["column_name"] == column), None)


def _origin_key(connection: db.Connection, entity: str, key: str) -> str:
    """Return the _key of the row. Raises a problem 404 for an unknown entity, RefusedError for one never published."""
    with unknown_is_404():
        found: str = db.call_value(connection, "find_key", entity, key)
    return found


def _value(connection: db.Connection, wanted: Decision, body: bytes) -> str | None:
    """Return the value's own text: a number keeps all its digits. Raises a problem where it is none for Postgres."""
    if wanted.use is not None:
        return None
    try:
        text = bytes(msgspec.json.decode(body, type=_Said).value).decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem(
            400, "malformed", "the body is no JSON", "Send it in UTF-8, without NaN and half characters."
        ) from None
    if not db.call_value(connection, "is_valid", text, "jsonb"):
        said = "value: it holds what Postgres does not take, such as \\u0000 or a number out of range"
        raise Problem(422, "unprocessable", said, "Leave that out.")
    return text
