"""Runs over HTTP: requested, listed, followed, cancelled, tried again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from syncline import control, db
from syncline.api import answers, problems
from syncline.api.access import ADMIN_OPTIONS, Operator, RequestId, Viewer, check_admin
from syncline.api.auth import Caller
from syncline.api.problems import Problem, unknown_is_404
from syncline.api.state import Shared, State
from syncline.errors import ConfigurationError

PREFIX = "/api/v1/runs"

LARGEST = 2**63 - 1
"""The largest number that Postgres' bigint holds."""

LONGEST = 7 * 86400
"""Seconds that an attempt may be given."""

router = APIRouter(prefix="/api/v1", tags=["runs"])

RunId = Annotated[int, Path(ge=1, le=LARGEST, description="The run's number.")]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Names = Annotated[list[Text], Field(max_length=1000)]


Location = {"Location": {"description": "Where it is found.", "schema": {"type": "string"}}}


def located(status: int) -> dict[int | str, dict[str, Any]]:
    """Document the header Location of an endpoint, for OpenAPI."""
    return {status: {"headers": dict(Location)}}


class Wish(BaseModel):
    """What every request for runs may say."""

    model_config = ConfigDict(extra="forbid")

    full_refresh: bool = Field(default=False, description="Load in full, and build from all records.")
    allow_mass_delete: bool = Field(
        default=False, description="Let an empty or much smaller answer through. Needs an admin."
    )
    max_attempts: int = Field(default=3, ge=1, le=100, description="How often it is tried, the first attempt included.")
    timeout: float | None = Field(default=None, gt=0, le=LONGEST, description="Seconds that each attempt may take.")


class RunSpec(Wish):
    """Which run is wanted. With no source named: all that the project declares."""

    source: Text | None = Field(default=None, description="One source; `sources` takes several.")
    sources: Names = []
    streams: Names = Field(default=[], description="Load only these: `stream` or `source.stream`.")
    entities: Names = Field(default=[], description="Build only these.")
    dry_run: bool = Field(default=False, description="Publish nothing; what was checked can be published afterwards.")
    row_limit: int | None = Field(
        default=None, ge=1, le=LARGEST, description="A trial with so many records a stream; never published."
    )
    publish: Literal["together", "each"] | None = Field(
        default=None, description="All entities or none, or each that neither failed nor depends on one that did."
    )
    force_overwrite: bool = Field(default=False, description="Set authority aside. Needs an admin.")

    @model_validator(mode="after")
    def _name_sources_once(self) -> RunSpec:
        if self.source is not None:
            if self.sources:
                raise ValueError("give either source or sources")
            self.sources = [self.source]
        return self

    def options(self) -> dict[str, Any]:
        """What the run is asked to do, as the queue keeps it: only what is beside the default."""
        return {name: value for name, value in option_values(self).items() if value}

    def check(self, state: State) -> None:
        """Raise ConfigurationError for a source, stream or entity that the project has not, with those it has."""
        check_names(state, self.sources, self.streams, self.entities)


class RunRequest(RunSpec):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"source": "agency"}, {"sources": ["agency"], "dry_run": True}]}
    )

    triggered_by: Text | None = Field(default=None, description="Who asked; kept with the token's name.")


class BuildRequest(Wish):
    triggered_by: Text | None = Field(default=None, description="Who asked; kept with the token's name.")


def option_values(body: Any) -> dict[str, Any]:
    """Return a body's options of a run, by the names that the queue has for them."""
    names = ("streams", "dry_run", "full_refresh", "force_overwrite", "allow_mass_delete", "publish")
    return {name: getattr(body, name) for name in names} | {"limit": body.row_limit}


def check_names(state: State, sources: list[str], streams: Iterable[str], entities: Iterable[str]) -> None:
    """Raise ConfigurationError for a name that the project has not, with those that it has."""
    project = state.project
    check_known("source", sources, project.sources)
    chosen = [project.source(name) for name in sources] or list(project.sources.values())
    known = [stream for source in chosen for stream in source.streams.values()]
    check_known("stream", streams, [name for stream in known for name in (stream.name, stream.label)])
    check_entities(state, entities)


def check_entities(state: State, entities: Iterable[str]) -> None:
    """Raise ConfigurationError for a name that is no entity's, with those that are."""
    wanted = list(entities)
    check_known("entity", wanted, state.known_entities(wanted))


class Requester:
    """Puts runs into the queue for one request of the API."""

    def __init__(self, state: State, caller: Caller, request_id: str) -> None:
        self._state = state
        self._caller = caller
        self._request_id = request_id

    def request(
        self,
        sources: list[str],
        entities: list[str],
        options: dict[str, Any],
        wish: Wish,
        triggered_by: str | None = None,
    ) -> dict[str, Any]:
        """Request the run and return its report. Raises a problem 403 where the options need an admin."""
        check_admin(self._caller, *options)
        with self._state.connection(self._request_id) as connection:
            run_id = control.request_run(
                connection,
                sources,
                entities,
                options,
                "api",
                self._named(triggered_by),
                self._request_id,
                max_attempts=wish.max_attempts,
                timeout=wish.timeout,
            )
            return control.run_report(connection, run_id)

    def _named(self, said: str | None) -> str:
        return self._caller.name if said is None else f"{said} ({self._caller.name})"


def accepted(report: dict[str, Any]) -> answers.Json:
    return answers.Json(report, 202, headers={"Location": f"{PREFIX}/{report['run_id']}"})


def find_run(connection: db.Connection, run_id: int) -> dict[str, Any]:
    """Return the run's report; raises a problem 404 where there is none."""
    report: dict[str, Any] | None = control.run_report(connection, run_id)
    if report is None:
        raise Problem(404, "unknown", f"there is no run {run_id}", "GET /api/v1/runs lists them.")
    return report


def check_known(kind: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigurationError for the first that is wanted and not known, with those that are."""
    names = set(known)
    for name in wanted:
        if name not in names:
            raise ConfigurationError(
                f"there is no {kind} named {name!r}", f"Known here: {', '.join(sorted(names)) or 'none'}."
            )


@router.post(
    "/runs",
    status_code=202,
    response_model=answers.RunReport,
    responses=located(202) | problems.responses(401, 403, 413, 415, 429),
)
def request_run(state: Shared, caller: Operator, request_id: RequestId, wanted: RunRequest) -> answers.Json:
    """Put a run in the queue, for a worker to take. An identical one that waits there is answered instead."""
    wanted.check(state)
    requester = Requester(state, caller, request_id)
    return accepted(requester.request(wanted.sources, wanted.entities, wanted.options(), wanted, wanted.triggered_by))


Statuses = Annotated[list[answers.Status] | None, Query(description="May be given again.")]
Triggers = Annotated[list[answers.Trigger] | None, Query(description="May be given again.")]
Kinds = Annotated[list[answers.Kind] | None, Query(description="May be given again.")]
SourceName = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]+$")]


@router.get("/runs", response_model=answers.RunList, responses=problems.responses(401, 403, 429))
def list_runs(
    state: Shared,
    _: Viewer,
    status: Statuses = None,
    trigger: Triggers = None,
    source: SourceName = None,
    kind: Kinds = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    before: Annotated[int | None, Query(ge=1, le=LARGEST, description="Only runs with a smaller number.")] = None,
) -> answers.Json:
    """List the newest runs, newest first."""
    with state.connection() as connection:
        if source is not None and source not in state.project.sources:
            # One that is not declared any more has runs, too.
            check_known("source", [source], control.known_sources(connection).union(state.project.sources))
        rows = db.call(connection, "run_reports", limit, status, trigger, source, kind, before)
    runs = [row["run_reports"] for row in rows]
    return answers.Json({"runs": runs, "next_before": runs[-1]["run_id"] if len(runs) == limit else None})


@router.get("/runs/last-successful", response_model=answers.RunReport, responses=problems.responses(401, 403, 404, 429))
def last_successful_run(state: Shared, _: Viewer, source: SourceName = None) -> answers.Json:
    """Return the newest sync that succeeded, of all sources or of one: how old is what users read."""
    if source is not None:
        check_known("source", [source], state.project.sources)
    with state.connection() as connection:
        rows = db.call(connection, "run_reports", 1, ["succeeded"], None, source, ["sync"])
    if not rows:
        raise Problem(404, "unknown", "no sync has succeeded yet", "POST /api/v1/runs requests one.")
    return answers.Json(rows[0]["run_reports"])


@router.get("/runs/{run_id}", response_model=answers.RunReport, responses=problems.responses(401, 403, 404, 429))
def read_run(state: Shared, _: Viewer, run_id: RunId) -> answers.Json:
    """Return one run: its status, steps, counts and errors."""
    with state.connection() as connection:
        return answers.Json(find_run(connection, run_id))


@router.post(
    "/runs/{run_id}/cancel",
    status_code=202,
    response_model=answers.RunReport,
    responses=located(202) | problems.responses(401, 403, 404, 409, 429),
)
def cancel_run(state: Shared, caller: Operator, request_id: RequestId, run_id: RunId) -> answers.Json:
    """Cancel a queued run, or ask the worker of a running one to stop: until then its `is_cancelling` is true."""
    with state.connection(request_id) as connection:
        with unknown_is_404():
            control.cancel_run(connection, run_id, caller.name)
        return accepted(control.run_report(connection, run_id))


@router.post(
    "/runs/{run_id}/retry",
    status_code=202,
    response_model=answers.RunReport,
    responses=located(202) | problems.responses(401, 403, 404, 409, 429),
)
def retry_run(state: Shared, caller: Operator, request_id: RequestId, run_id: RunId) -> answers.Json:
    """Request a run once more that has ended: a new run with the same sources, entities and options."""
    with state.connection(request_id) as connection:
        options = find_run(connection, run_id)["options"]
        check_admin(caller, *(name for name in ADMIN_OPTIONS if name in options))
        retried = control.retry_run(connection, run_id, "api", caller.name, request_id)
        return accepted(control.run_report(connection, retried))
