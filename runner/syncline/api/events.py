"""A run's log events over HTTP: a list, or followed as they come (server-sent events)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import anyio
import msgspec
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from syncline import db
from syncline.api import answers, problems
from syncline.api.access import Viewer
from syncline.api.runs import LARGEST, RunId, find_run
from syncline.api.state import Shared, State
from syncline.errors import SynclineError

EVENT_STREAM = "text/event-stream"
LOOK_SECONDS = 0.5
"""How often a followed run is looked at."""

HEARTBEAT_SECONDS = 15.0
"""A comment at least so often, so that no proxy takes the connection for dead."""

SETTLING = timedelta(seconds=5)
"""Events are numbered before they are committed: a lower number may show so much later than a higher one."""

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events, oldest first. As text/event-stream: each as `id`, `event` and `data` "
        "(a RunEvent), as they come, and at last the event `end` with the run's report.",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
    },
    **problems.responses(401, 403, 404, 429),
}

router = APIRouter(prefix="/api/v1", tags=["runs"])


@router.get(
    "/runs/{run_id}/events",
    response_model=answers.EventList,
    responses=_ANSWERS,
)
async def run_events(
    state: Shared,
    _: Viewer,
    run_id: RunId,
    accept: Annotated[str, Header(include_in_schema=False)] = EVENT_STREAM,
    last_event_id: Annotated[str | None, Header(max_length=30, description="Go on after this event.")] = None,
    after: Annotated[int, Query(ge=0, le=LARGEST, description="Go on after this event.")] = 0,
) -> Response:
    """Return what a run has logged, or follow it until it ends, as the header Accept asks."""
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        after = min(int(last_event_id), LARGEST)
    follower = _Follower(state, run_id, after)
    report, events = await run_sync(follower.look)
    if "application/json" in accept and EVENT_STREAM not in accept:
        return answers.Json({"events": events})
    # A proxy that buffers would hold back what is to be seen at once.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return state.followers.held_by(
        StreamingResponse(follower.follow(report, events), media_type=EVENT_STREAM, headers=headers)
    )


class _Follower:
    """Reads one run's events, each once, from the one after `after` on."""

    def __init__(self, state: State, run_id: int, after: int) -> None:
        self._state = state
        self._run_id = run_id
        self._after = after
        self._sent: set[int] = set()

    def look(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the run's report, and the events that are new."""
        with self._state.connection() as connection:
            # The report first: what a run that has ended has logged is all there.
            report = find_run(connection, self._run_id)
            rows = db.call(connection, "run_events", self._run_id, self._after)
        new = [row for row in rows if row["event_id"] not in self._sent]
        if rows:
            settled = max(row["logged_at"] for row in rows) - SETTLING
            pending = min(row["event_id"] for row in rows if row["logged_at"] > settled)
            self._after = max((row["event_id"] for row in rows if row["event_id"] < pending), default=self._after)
            self._sent = {row["event_id"] for row in rows if row["event_id"] > self._after}
        return report, new

    async def follow(self, report: dict[str, Any], events: list[dict[str, Any]]) -> AsyncIterator[bytes]:
        spoken = time.monotonic()
        yield b": follows run %d\n\n" % self._run_id
        while True:
            for event in events:
                yield _message(event["event"], event, event["event_id"])
            if report["finished_at"] is not None:
                yield _message("end", report)
                return
            if self._state.is_stopping:
                return  # EventSource comes back on its own, with the last event's id
            now = time.monotonic()
            if events:
                spoken = now
            elif now - spoken > HEARTBEAT_SECONDS:
                spoken = now
                yield b": heartbeat\n\n"
            await anyio.sleep(LOOK_SECONDS)
            try:
                report, events = await run_sync(self.look, limiter=self._state.looks)
            except SynclineError:
                return  # as above


def _message(event: str, data: Any, event_id: int | None = None) -> bytes:
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {event}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"
