"""External references over HTTP: the internal ids of records elsewhere."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from syncline import db
from syncline.api import problems
from syncline.api.access import Viewer
from syncline.api.answers import Json, Shape
from syncline.api.reports import Name
from syncline.api.state import Shared
from syncline.config import parse_duration

router = APIRouter(prefix="/api/v1", tags=["references"])

ExternalKey = Annotated[
    str | None, Query(max_length=4000, pattern=r"^[^\x00]+$", description="The record's key at its source.")
]


class Reference(Shape):
    """The id that stands for a record elsewhere, for ever."""

    type: str = Field(examples=["partner"])
    source: str
    external_key: str
    ref_id: uuid.UUID
    entity: str
    metadata: dict[str, Any]
    first_seen_at: datetime
    gone_at: datetime | None = Field(description="Since then no row has it.")


class ReferenceList(Shape):
    references: list[Reference] = Field(description="In the order of type, source and key.")
    has_more: bool


class ReferenceCounts(Shape):
    type: str
    source: str
    known: int
    gone: int
    gone_for_90_days: int


class ReferenceStatus(Shape):
    references: list[ReferenceCounts]


@router.get("/references", response_model=ReferenceList, responses=problems.responses(401, 403, 429))
def list_references(
    state: Shared,
    _: Viewer,
    type_: Annotated[Name, Query(alias="type")] = None,
    source: Name = None,
    key: ExternalKey = None,
    ref_id: Annotated[uuid.UUID | None, Query(alias="id", description="The internal id.")] = None,
    unseen_for: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,5}[smhd]$", description="Only those that are gone for so long: `90d`.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Json:
    """List external references by type, source, key or id, or those whose record is gone for long."""
    age = parse_duration(unseen_for) if unseen_for else None
    with state.connection() as connection:
        found = db.call_exact(connection, "list_references", type_, source, key, ref_id, age, limit + 1)
    return Json({"references": found[:limit], "has_more": len(found) > limit})


@router.get("/references/status", response_model=ReferenceStatus, responses=problems.responses(401, 403, 429))
def read_reference_status(state: Shared, _: Viewer) -> Json:
    """Count the external references by type and source, and those whose record is gone."""
    with state.connection() as connection, db.translated():
        found = connection.execute("select * from syncline.reference_status order by type, source").fetchall()
    return Json({"references": found})
