"""One run from request to report: load, build, check, publish, always in this direction."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from syncline import check, control, db
from syncline import publish as publishing
from syncline.config import Project, Source, Stream
from syncline.connectors import connector_class
from syncline.connectors.push import Push
from syncline.dbt import Dbt, Entity, Models
from syncline.errors import ConfigurationError, RunError, SynclineError
from syncline.load import LoadOptions
from syncline.load_step import LoadStep
from syncline.migrate import is_up_to_date, migrate

STEPS = ("load", "build", "check", "publish")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is asked to do. Empty lists mean all; `limit` makes it a trial, which publishes nothing."""

    sources: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    steps: tuple[str, ...] = STEPS
    dry_run: bool = False
    limit: int | None = None
    full_refresh: bool = False
    allow_mass_delete: bool = False
    since: str | None = None
    until: str | None = None
    push: Push | None = None
    wait_timeout: float = 600
    trigger: str = "cli"

    def as_json(self) -> dict[str, Any]:
        """The part that decides what the run does, as the control plane keeps it."""
        wanted = {
            "streams": list(self.streams),
            "steps": list(self.steps) if self.steps != STEPS else [],
            "dry_run": self.dry_run,
            "limit": self.limit,
            "full_refresh": self.full_refresh,
            "allow_mass_delete": self.allow_mass_delete,
            "since": self.since,
            "until": self.until,
            # What is pushed is there once: no other run can stand for this one.
            "push": self.push.token if self.push else None,
        }
        return {name: value for name, value in wanted.items() if value}

    @property
    def publishes(self) -> bool:
        return "publish" in self.steps and not self.dry_run and self.limit is None


class Watcher(Protocol):
    """Is told what a run does, from any thread."""

    def waiting(self, blocking: list[int]) -> None: ...
    def step(self, name: str) -> None: ...
    def stream_progress(self, label: str, records: int) -> None: ...
    def stream_done(self, label: str, load: Mapping[str, Any]) -> None: ...
    def entities(self, names: list[str]) -> None: ...
    def entity(self, name: str, status: str) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(slots=True)
class Engine:
    """What runs share: the project, its database, one warm dbt process, and the views it has made."""

    project: Project
    dsn: str
    dbt: Dbt = field(init=False)
    views: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dbt = Dbt(self.project.root, self.dsn, self.project.target)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.dbt.close()


def run(engine: Engine, options: RunOptions, watcher: Watcher) -> dict[str, Any]:
    """Request a run, claim it, work it, and return its report; its `errors` say why one failed.

    Waits up to `options.wait_timeout` seconds for a run of the same source that is under way. Raises
    ConfigurationError before anything is written where the request makes no sense, RunError where it waited in vain.
    """
    sources = [engine.project.source(name) for name in options.sources] or list(engine.project.sources.values())
    if not sources:
        raise ConfigurationError("the project has no sources", "Declare one in a sources file: docs/quickstart.md.")
    _check_streams(sources, options.streams)
    with db.connect(engine.dsn) as connection:
        if not is_up_to_date(connection, engine.project):
            migrate(connection, engine.project)
        if set(options.steps) & {"build", "check"}:
            engine.dbt.start_parse()
        names = [source.name for source in sources]
        run_id = control.request_run(
            connection, names, list(options.entities), options.as_json(), options.trigger, getpass.getuser()
        )
        claimed = _claim(connection, run_id, options.wait_timeout, watcher)
        if claimed:
            _Run(engine, options, watcher, connection, claimed, sources).work()
        return control.run_report(connection, run_id)


def _claim(connection: db.Connection, run_id: int, wait_timeout: float, watcher: Watcher) -> tuple[int, int] | None:
    """Claim the run, or wait for the one in its way; None where another process has worked the identical request."""
    until = time.monotonic() + wait_timeout
    told: list[int] = []
    control.join_queue(connection, run_id)
    try:
        while True:
            claimed = control.claim_run(connection, run_id)
            if claimed:
                return claimed
            if control.run_report(connection, run_id)["finished_at"]:
                return None
            blocking = control.blocking_runs(connection, run_id)
            if blocking != told:
                watcher.waiting(blocking)
                told = blocking
            if time.monotonic() > until:
                names = ", ".join(map(str, blocking)) or "another run"
                raise RunError(
                    f"run {names} of the same source is still under way",
                    "Wait for it, or give --wait-timeout more seconds; `syncline runs` shows it.",
                )
            time.sleep(0.1)
    finally:
        if not connection.broken:
            control.leave_queue(connection, run_id)


def _check_streams(sources: Iterable[Source], wanted: Iterable[str]) -> None:
    known = {stream.label for source in sources for stream in source.streams.values()}
    known |= {stream.name for source in sources for stream in source.streams.values()}
    for name in wanted:
        if name not in known:
            raise ConfigurationError(f"there is no stream named {name!r}", f"Known here: {', '.join(sorted(known))}.")


class _Run:
    """A claimed run at work; its connection holds the run's advisory lock."""

    def __init__(
        self,
        engine: Engine,
        options: RunOptions,
        watcher: Watcher,
        connection: db.Connection,
        claimed: tuple[int, int],
        sources: list[Source],
    ) -> None:
        self._engine = engine
        self._options = options
        self._watcher = watcher
        self._connection = connection
        self._claimed = claimed
        self._sources = sources
        self._feeding: set[str] | None = None  # the streams that feed the entities asked for; None for all

    def work(self) -> None:
        """Work the run to its end and note it. A failed run leaves current as it was; this raises nothing for it."""
        control.log(self._connection, "info", "sync_start", sources=[source.name for source in self._sources])
        try:
            self._steps()
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, SynclineError):
                raise
        else:
            control.log(self._connection, "info", "sync_ok")
            control.finish_run(self._connection, "succeeded")

    def _steps(self) -> None:
        steps = self._options.steps
        if self._options.entities:
            self._feeding = self._find_feeding(self._engine.dbt.parse())
        if "load" in steps:
            with self._step("load"):
                self._load()
        if "build" not in steps:
            return
        models = self._engine.dbt.parse()
        entities = self._choose(models)
        names = [entity.name for entity in entities]
        self._watcher.entities(names)
        control.lock_entities(self._connection, names)
        try:
            self._build(entities, models)
            if self._options.publishes:
                with self._step("publish"):
                    self._publish(names, models)
            elif self._options.limit is not None:
                control.withdraw_candidates(self._connection, self._claimed[0])
        finally:
            if not self._connection.broken:
                control.unlock_entities(self._connection, names)
        for source in self._sources:
            for stream in source.active_streams:
                if stream.common.keep != "all":
                    control.prune_stream(self._connection, source.name, stream.name, int(stream.common.keep))

    @contextmanager
    def _step(self, name: str) -> Any:
        control.begin_step(self._connection, name)
        self._watcher.step(name)
        yield
        control.finish_step(self._connection, name)

    def _fail(self, error: BaseException) -> None:
        if self._connection.broken:
            return  # the next claim finds this run abandoned and withdraws its candidates
        message = self._engine.project.mask(error.message) if isinstance(error, SynclineError) else type(error).__name__
        hint = error.hint if isinstance(error, SynclineError) else "This is a defect in Syncline: please report it."
        if isinstance(error, KeyboardInterrupt):
            message, hint = "interrupted", "Run again: what was loaded is kept."
        exit_code = error.exit_code if isinstance(error, SynclineError) else 1
        try:
            control.withdraw_candidates(self._connection, self._claimed[0])
            control.log(self._connection, "error", "sync_fail", message=message)
            control.finish_run(self._connection, "failed", {"message": message, "hint": hint, "exit_code": exit_code})
        except SynclineError:
            if isinstance(error, SynclineError):
                raise error from None
            raise

    # load

    def _load(self) -> None:
        options, watcher = self._options, self._watcher
        work = [
            (source, stream)
            for source in self._sources
            if options.push is not None or connector_class(source).is_fetched
            for stream in source.active_streams
            if self._wants(stream)
        ]
        LoadStep(
            project=self._engine.project,
            dsn=self._engine.dsn,
            claimed=self._claimed,
            work=work,
            options=LoadOptions(
                limit=options.limit,
                allow_mass_delete=options.allow_mass_delete,
                is_refresh=options.full_refresh,
                since=options.since,
                until=options.until,
            ),
            push=options.push,
            progress=watcher.stream_progress,
            done=watcher.stream_done,
        ).run()

    def _wants(self, stream: Stream) -> bool:
        if self._feeding is not None and stream.label not in self._feeding:
            return False
        wanted = self._options.streams
        return not wanted or stream.name in wanted or stream.label in wanted

    # build and check

    def _find_feeding(self, models: Models) -> set[str]:
        """Return the streams that feed the entities asked for, through those they read too."""
        waiting, seen = [entity.name for entity in self._choose(models)], set[str]()
        while waiting:
            name = waiting.pop()
            if name not in seen and name in models.entities:
                seen.add(name)
                waiting += models.entities[name].reads
        return {label for name in seen for label in models.entities[name].streams}

    def _choose(self, models: Models) -> list[Entity]:
        """Return the entities of the run: those asked for, or all that the run's streams feed, however far."""
        if self._options.entities:
            unknown = sorted(set(self._options.entities) - set(models.entities))
            if unknown:
                known = ", ".join(sorted(models.entities)) or "none"
                raise ConfigurationError(f"there is no entity named {unknown[0]!r}", f"Known entities: {known}.")
            return [models.entities[name] for name in sorted(set(self._options.entities))]
        labels = {s.label for source in self._sources for s in source.active_streams if self._wants(s)}
        chosen = {name for name, entity in models.entities.items() if labels & set(entity.streams)}
        while True:
            more = {name for name, entity in models.entities.items() if chosen & set(entity.reads)} - chosen
            if not more:
                return [models.entities[name] for name in sorted(chosen)]
            chosen |= more

    def _build(self, entities: list[Entity], models: Models) -> None:
        if not entities:
            self._watcher.note("no entity reads what was loaded: write a model with materialized='versioned'")
            return
        names = [entity.name for entity in entities]
        control.pin_loads(self._connection)
        control.begin_step(self._connection, "build")
        self._watcher.step("build")
        waiting = {entity.node: entity.name for entity in entities}

        def follow(event: Mapping[str, Any]) -> None:
            name = waiting.get(event["node"])
            if name is None:
                return
            if event["event"] == "NodeStart":
                self._watcher.entity(name, "building")
                return
            self._watcher.entity(name, "built" if event["status"] == "success" else "failed")
            del waiting[event["node"]]
            if not waiting:
                control.finish_step(self._connection, "build")
                control.begin_step(self._connection, "check")
                self._watcher.step("check")

        # A test that reads an entity which was never built would fail on a relation that is not there.
        known = set(names) | control.known_entities(self._connection)
        tests = [name for name, read in models.tests.items() if set(read) & set(names) and set(read) <= known]
        nodes = self._engine.dbt.build([*names, *tests], self._claimed, follow, is_exact=True)
        check.raise_model_errors(nodes)
        control.register_entities(self._connection, {entity.name: entity.parents for entity in entities})
        failures = check.find_failures(self._connection, nodes, {entity.name: entity.schema for entity in entities})
        for failure in failures:
            level = "error" if failure.is_error else "warning"
            control.log(
                self._connection, level, "check_failed", test=failure.test, entity=failure.entity, rows=failure.count
            )
            if not failure.is_error:
                self._watcher.note(f"warning: {failure}")
        check.refuse_failures(failures)
        for entity in entities:
            control.check_error_ratio(self._connection, entity.name, entity.max_error_ratio)
        control.mark_checked(self._connection, names)
        control.finish_step(self._connection, "check")

    # publish

    def _publish(self, names: list[str], models: Models) -> None:
        held = control.publishable(self._connection, names, is_held=True)
        if held:
            self._watcher.note(
                f"held after a rollback, not published: {', '.join(held)} (`syncline publish` lifts the hold)"
            )
        builds = control.publishable(self._connection, names, is_held=False)
        if not builds:
            return
        publication = publishing.publish(self._connection, list(builds.values()))
        _follow_up(self._engine, self._connection, models, builds, publication, self._claimed)


def publish_candidates(engine: Engine, connection: db.Connection, entities: list[str] | None) -> dict[str, int]:
    """Publish the checked candidates of these entities (None: of all) and what is downstream; lift their holds.

    Return entity to build. Raises RefusedError where there is neither a hold nor a candidate, or where one is not what
    was checked any more.
    """
    builds, publication = publishing.publish_checked(connection, entities)
    if publication is not None:
        _follow_up(engine, connection, engine.dbt.parse(), builds, publication, None)
    return builds


def _follow_up(
    engine: Engine,
    connection: db.Connection,
    models: Models,
    builds: Mapping[str, int],
    publication: int,
    claimed: tuple[int, int] | None,
) -> None:
    """Build the ordinary models that read what was published, then announce it."""
    fed = {name: model for name, model in models.downstream.items() if model.entities & set(builds)}
    columns = control.published_columns(
        connection, sorted({entity for model in fed.values() for entity in model.entities})
    )
    # A view follows every publish by itself: it is made again only when its code or the columns it reads have changed.
    stamps = {name: (model.fingerprint, columns) for name, model in fed.items() if model.is_view}
    wanted = [name for name in fed if name not in stamps or engine.views.get(name) != stamps[name]]
    if wanted:
        check.raise_model_errors(engine.dbt.build(wanted, claimed))
        engine.views.update(stamps)
    control.announce(connection, publication)
