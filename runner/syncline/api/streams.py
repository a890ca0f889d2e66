"""Streams over HTTP: what is loaded, and records that another system pushes, whatever their number."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request
from starlette.requests import ClientDisconnect

from syncline.api import answers, limits, problems
from syncline.api.access import Operator, RequestId, Viewer, check_admin
from syncline.api.problems import Problem
from syncline.api.reports import stream_rows
from syncline.api.runs import Requester, Wish
from syncline.api.state import Shared, State
from syncline.config import Stream
from syncline.connectors.json_text import BLOCK_BYTES
from syncline.connectors.push import Push
from syncline.errors import RunError, SourceError
from syncline.logs import LogWatcher
from syncline.pipeline import Engine, run
from syncline.run_options import RunOptions

WAIT_SECONDS = 30.0
"""So long a push waits for a run of its source that is under way."""

IDLE_SECONDS = 60.0
"""So long a body may be silent: its load keeps other loads of the stream waiting."""

STOPPING_SECONDS = 10.0
"""So long before an API that stops is ended, bodies that still come are given up."""

PLACE = "the request's body"
TYPES = ("application/json", "application/x-ndjson", "application/jsonl", "application/ndjson")

router = APIRouter(prefix="/api/v1", tags=["streams"])

_BODY = {
    "requestBody": {
        "required": True,
        "description": "A JSON array or JSON lines of any size, up to SYNCLINE_MAX_PUSH; gzip is taken.",
        "content": {
            "application/json": {
                "schema": {"type": "array", "items": {"type": "object"}},
                "example": [{"id": 1, "state": "open"}],
            },
            "application/x-ndjson": {"schema": {"type": "string"}, "example": '{"id": 1}\n{"id": 2}\n'},
        },
    }
}


@router.get("/streams", response_model=answers.StreamList, responses=problems.responses(401, 403, 429))
def list_streams(state: Shared, _: Viewer) -> answers.Json:
    """Show the streams: how many records are live, when they were loaded, what is wrong."""
    with state.connection() as connection:
        return answers.Json({"streams": stream_rows(state, connection)})


@router.post(
    "/streams/{source}/{stream}/records",
    response_model=answers.PushResult,
    responses=problems.responses(401, 403, 404, 408, 409, 413, 415, 429),
    openapi_extra=_BODY,
)
async def push_records(
    request: Request,
    state: Shared,
    caller: Operator,
    request_id: RequestId,
    source: Annotated[str, Path(max_length=200)],
    stream: Annotated[str, Path(max_length=200)],
    full: Annotated[bool, Query(description="These are all records there are; the others are gone.")] = False,
    allow_mass_delete: Annotated[bool, Query(description="Let a much smaller set through. Needs an admin.")] = False,
    run_after: Annotated[
        bool, Query(alias="run", description="Then request a run that builds, checks and publishes.")
    ] = False,
) -> answers.Json:
    """Load the records that the body holds: as they come, all or none."""
    target = _find_stream(state, source, stream)
    if allow_mass_delete:
        check_admin(caller, "allow_mass_delete")
    with state.pushes.take():
        body = _Body(request, state)
        options = RunOptions(
            sources=(source,),
            streams=(target.label,),
            steps=("load",),
            push=Push(body.read, is_full=full, place=PLACE),
            allow_mass_delete=allow_mass_delete,
            wait_timeout=WAIT_SECONDS,
            trigger="api",
            triggered_by=caller.name,
            request_id=request_id,
        )
        report = await run_sync(_load, state, options)
    if body.problem is not None:
        raise body.problem
    load = _judge(report, target.label)
    after = None
    if run_after:
        wanted: dict[str, Any] = {"streams": [target.label], "steps": ["build", "check", "publish"]}
        if allow_mass_delete:
            wanted["allow_mass_delete"] = True
        requester = Requester(state, caller, request_id)
        after = await run_sync(requester.request, [source], [], wanted, Wish())
    return answers.Json({"run_id": report["run_id"], "load": load, "row_errors": report["row_errors"], "run": after})


def _find_stream(state: State, source: str, stream: str) -> Stream:
    found = state.project.sources[source].streams.get(stream) if source in state.project.sources else None
    if found is None:
        known = ", ".join(sorted(state.project.stream_labels)) or "none"
        raise Problem(404, "unknown", f"there is no stream {source}.{stream}", f"Known streams: {known}.")
    if not found.common.active:
        raise Problem(409, "refused", f"{found.label} is not active", "Take `active: false` from its settings.")
    return found


def _load(state: State, options: RunOptions) -> dict[str, Any]:
    # Its events name the run themselves, once there is one.
    who = {"run_id": None, "request_id": options.request_id, "triggered_by": options.triggered_by}
    with Engine(state.project, state.dsn) as engine:
        try:
            return run(engine, options, LogWatcher(who))
        except RunError as error:
            if type(error) is not RunError:
                raise
            # It waited in vain for another run of the source: nothing of the body was read.
            raise Problem(
                503,
                "busy",
                error.message,
                "Try again once it is done.",
                headers={"Retry-After": str(int(WAIT_SECONDS))},
            ) from None


def _judge(report: dict[str, Any], label: str) -> dict[str, Any]:
    """Return the load's counts; raises the problem that a failed one is."""
    for error in report["errors"]:
        said, hint, code = error["message"], error.get("hint"), error.get("exit_code")
        if report["status"] == "cancelled" or code == 3:
            raise Problem(409, "refused", said, hint)
        if f"{label}: {PLACE}" in said:
            raise Problem(400, "malformed", said, hint)
        raise Problem(422, "unprocessable", said, hint) if code == 2 else Problem(500, "failed", said, hint)
    load: dict[str, Any] = report["streams"][label]
    return load


class _Body:
    """Lets a thread read what arrives on the event loop, piece by piece: nothing is held beyond one block."""

    def __init__(self, request: Request, state: State) -> None:
        kind = problems.content_type(request.headers)
        if kind not in TYPES:
            raise Problem(
                415, "media_type", f"records are not taken as {kind or 'nothing'}", f"Send {TYPES[0]} or {TYPES[1]}."
            )
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("gzip", "identity"):
            raise Problem(415, "media_type", f"the encoding {encoding} is not known", "Send gzip, or none.")
        self.problem: Problem | None = None
        self._chunks: AsyncIterator[bytes] = request.stream()
        if encoding == "gzip":
            self._chunks = limits.gunzip(self._chunks, state.settings.max_push)
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end. Raises SourceError where the body is cut off or refused."""
        if not self._rest:
            self._rest = self._wait()
        head, self._rest = self._rest[:size], self._rest[size:]
        return head

    def _wait(self) -> bytes:
        coming = asyncio.run_coroutine_threadsafe(self._next_block(), self._loop)
        try:
            return self._wait_for(coming)
        except ClientDisconnect:
            self.problem = problems.cut_off()
        except Problem as problem:
            self.problem = problem
        coming.cancel()
        raise SourceError(f"{PLACE}: {self.problem.detail}", self.problem.hint)

    def _wait_for(self, coming: Future[bytes]) -> bytes:
        until = time.monotonic() + IDLE_SECONDS
        while True:
            try:
                return coming.result(1.0)
            except TimeoutError:
                if time.monotonic() > until:
                    detail = f"the body was silent for {IDLE_SECONDS:.0f} s"
                    raise Problem(408, "timeout", f"{detail}; nothing was changed", "Send it again.") from None
                if self._state.seconds_left < STOPPING_SECONDS:
                    raise Problem(
                        503,
                        "stopping",
                        "the API stops; nothing was changed",
                        "Send it again.",
                        headers={"Retry-After": str(problems.RETRY_AFTER)},
                    ) from None

    async def _next_block(self) -> bytes:
        pieces, size = [], 0
        async for piece in self._chunks:
            pieces.append(piece)
            size += len(piece)
            if size >= BLOCK_BYTES // 4:
                break
        return b"".join(pieces)
