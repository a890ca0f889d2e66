"""One run from request to report: load, build, check, publish, always in this direction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from syncline import control, db, telemetry
from syncline import publish as publishing
from syncline.build_step import BuildStep
from syncline.config import Project, Source, Stream
from syncline.connectors import connector_class
from syncline.dbt import Dbt, Entity, Models
from syncline.downstream import follow_up
from syncline.errors import CancelledError, ConfigurationError, LostClaimError, RefusedError, RunError, SynclineError
from syncline.interruption import Claim, InterruptedRun, Overseer
from syncline.load import LoadOptions
from syncline.load_step import LoadStep
from syncline.masking import Mask
from syncline.migrate import is_up_to_date, migrate
from syncline.paths import user_name
from syncline.replay import Replayed, ReplayStep
from syncline.run_options import RunOptions
from syncline.selection import fed_entities, feeding_streams, held_back, named_entities
from syncline.watcher import Watcher


@dataclass(slots=True)
class Engine:
    """What runs share: the project, its database, and one warm dbt process."""

    project: Project
    dsn: str
    dbt: Dbt = field(init=False)

    def __post_init__(self) -> None:
        self.dbt = Dbt(self.project.root, self.dsn, self.project.target)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.dbt.close()


def run(
    engine: Engine, options: RunOptions, watcher: Watcher, look: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Request a run, claim it, work it, and return its report; its `errors` say why one failed.

    `look` is given the run's number once its candidates stand, also where their checks failed, while nobody else can
    write. Waits up to `options.wait_timeout` seconds for a run of the same source that is under way. Raises
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
        if options.entities:
            named_entities(engine.dbt.parse(), options.entities)
        run_id = control.request_run(
            connection,
            [source.name for source in sources],
            list(options.entities),
            options.as_json(),
            options.trigger,
            options.triggered_by or user_name(),
            options.request_id,
            is_foreground=True,
            max_attempts=1,
            timeout=options.timeout,
        )
        claimed = claim(connection, run_id, options.wait_timeout, watcher.waiting)
        if claimed:
            _Run(engine, options, watcher, connection, claimed, look=look).work()
        return control.run_report(connection, run_id)


def work(engine: Engine, connection: db.Connection, claimed: Mapping[str, Any], watcher: Watcher) -> None:
    """Work a run that a worker's connection has claimed, as its row asks; note how it ended.

    Raises LostClaimError or DatabaseError where that cannot be noted, InterruptedRun where it was handed back.
    """
    try:
        options = RunOptions.asked_for(claimed)
        if set(options.steps) & {"build", "check"}:
            engine.dbt.start_parse()
    except SynclineError as error:
        note_failure(connection, error, engine.project.mask)
        return
    _Run(engine, options, watcher, connection, claimed, is_expendable=True).work()


def claim(
    connection: db.Connection, run_id: int, wait_timeout: float, waiting: Callable[[list[int]], None]
) -> dict[str, Any] | None:
    """Claim the run, or wait for the one in its way; None where another process has worked the identical request."""
    until = time.monotonic() + wait_timeout
    told: list[int] = []
    try:
        while True:
            claimed = control.claim_run(connection, run_id)
            if claimed:
                control.withdraw_lost_candidates(connection)
                return claimed
            if control.run_report(connection, run_id)["finished_at"]:
                return None
            blocking = control.blocking_runs(connection, run_id)
            if blocking != told:
                waiting(blocking)
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
        run: Mapping[str, Any],
        *,
        is_expendable: bool = False,
        look: Callable[[int], None] | None = None,
    ) -> None:
        self._engine = engine
        self._options = options
        self._watcher = watcher
        self._connection = connection
        self._run = run
        self._look = look
        self._claimed = (run["run_id"], run["attempt"])
        self._sources: list[Source] = []
        self._is_finished = False
        self._is_each = (options.publish or engine.project.publish) == "each"
        self._failures: dict[str, SynclineError] = {}  # by stream and entity, where each stands for itself
        self._replayed: Replayed | None = None
        self._feeding: set[str] | None = None  # the streams that feed the entities asked for; None for all
        timeout = run["timeout"].total_seconds() if run["timeout"] else None
        claim = Claim(*self._claimed, timeout)
        self._overseer = Overseer(engine.dsn, claim, is_expendable=is_expendable)

    def work(self) -> None:
        """Work the run to its end and note it. A failed run leaves current as it was; this raises nothing for it."""
        try:
            with telemetry.span("syncline.run", **self._ids(), **self._who()):
                with self._overseer:
                    self._begin()
                    self._steps()
                # Not overseen: its claim ends here, and to look at it then is to find it lost.
                self._finish()
        except BaseException as error:
            if not self._is_finished:
                self._end(self._overseer.error if isinstance(error, RunError) and self._overseer.error else error)
            elif not isinstance(error, InterruptedRun):
                raise

    def _finish(self) -> None:
        if self._failures:
            note_failure(self._connection, partial_failure(self._failures), self._engine.project.mask, self._watcher)
            self._is_finished = True
            return
        # In one transaction: who is killed here has said so and has ended, or neither.
        with db.translated(), self._connection.transaction():
            report = control.run_report(self._connection, self._claimed[0])
            counts = {"duration_ms": report["duration_ms"], **_counts(report)}
            control.log(self._connection, "info", "sync_ok", **counts)
            control.finish_run(self._connection, "succeeded")
        self._is_finished = True
        self._watcher.event("info", "sync_ok", self._ids() | counts)

    def _begin(self) -> None:
        self._log("info", "sync_start", **self._who())
        self._sources = [self._engine.project.source(name) for name in self._run["sources"]]
        _check_streams(self._sources, self._options.streams)

    def _who(self) -> dict[str, Any]:
        return {name: self._run[name] for name in ("trigger", "triggered_by", "attempt", "sources")}

    def _log(self, level: str, event: str, **detail: Any) -> None:
        control.log(self._connection, level, event, **detail)
        self._watcher.event(level, event, self._ids() | detail)

    def _ids(self) -> dict[str, Any]:
        return {"run_id": self._run["run_id"], "request_id": self._run["request_id"]}

    def _end(self, error: BaseException) -> None:
        """Note why the run ended early; raises `error` again where that is no matter of the run alone."""
        if isinstance(error, KeyboardInterrupt):
            # Its sessions end with it, and with them what they hold of the run.
            self._engine.dbt.stop()
        if isinstance(error, InterruptedRun) and error.error is None:
            control.withdraw_candidates(self._connection, self._claimed[0])
            control.hand_back_run(self._connection)
            raise error
        if isinstance(error, InterruptedRun):
            assert error.error
            error = error.error
        if isinstance(error, LostClaimError):
            raise error
        fail_run(self._connection, self._claimed[0], error, self._engine.project.mask, self._watcher)
        if not isinstance(error, SynclineError):
            raise error

    def _steps(self) -> None:
        steps = self._options.steps
        if self._options.entities:
            models = self._engine.dbt.parse()
            self._feeding = feeding_streams(models, named_entities(models, self._options.entities))
        failed_streams: set[str] = set()
        if "load" in steps:
            with self._step("load"):
                failures = self._load()
            self._failures |= failures
            failed_streams = set(failures)
        if "build" not in steps:
            return
        models = self._engine.dbt.parse()
        entities = self._choose(models)
        names = [entity.name for entity in entities]
        self._watcher.entities(names)
        lost = {entity.name for entity in entities if failed_streams & set(entity.streams)}
        control.lock_entities(self._connection, names)
        try:
            with self._looked_at():
                checked = self._build(self._without(entities, lost), models)
            if self._options.publishes:
                with self._step("publish"):
                    self._publish(checked, models)
            elif self._options.limit is not None:
                control.withdraw_candidates(self._connection, self._claimed[0])
        finally:
            if not self._connection.broken:
                control.unlock_entities(self._connection, names)
        self._prune()
        if self._replayed is not None:
            control.finish_replay(self._connection)

    def _without(self, entities: list[Entity], failed: set[str]) -> list[Entity]:
        """Return the entities that neither failed nor depend on one that did."""
        held = held_back(entities, failed)
        if held:
            self._watcher.note(f"held back with {', '.join(sorted(failed))}: {', '.join(sorted(held))}")
        return [entity for entity in entities if entity.name not in held | failed]

    def _prune(self) -> None:
        for source in self._sources:
            for stream in source.active_streams:
                if stream.common.keep != "all":
                    control.prune_stream(self._connection, source.name, stream.name, int(stream.common.keep))

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        control.begin_step(self._connection, name)
        self._watcher.step(name)
        with telemetry.span(f"syncline.{name}"):
            yield
        control.finish_step(self._connection, name)

    # load

    def _load(self) -> dict[str, SynclineError]:
        options, watcher = self._options, self._watcher
        if options.replay is not None:
            self._replayed = self._replay()
            return {}
        work = [
            (source, stream)
            for source in self._sources
            if options.push is not None or connector_class(source).is_fetched
            for stream in source.active_streams
            if self._wants(stream)
        ]
        if options.limit is not None and any(stream.common.append for _, stream in work):
            # What a trial loads stays, and would be there twice after the next load.
            watcher.note("a trial leaves out streams that append")
            work = [(source, stream) for source, stream in work if not stream.common.append]
        return LoadStep(
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
            is_each=self._is_each,
            progress=watcher.stream_progress,
            done=self._stream_done,
            note=watcher.note,
            stopped=self._overseer.stopped,
        ).run()

    def _replay(self) -> Replayed:
        return ReplayStep(
            project=self._engine.project,
            dsn=self._engine.dsn,
            claimed=self._claimed,
            connection=self._connection,
            entities=self._engine.dbt.parse().entities,
            done=self._stream_done,
            note=self._watcher.note,
            stopped=self._overseer.stopped,
        ).run()

    def _stream_done(self, label: str, load: dict[str, Any]) -> None:
        counts = {kind: load[f"records_{kind}"] for kind in ("read", "new", "changed", "gone", "rejected")}
        self._log("info", "stream_loaded", stream=label, load_id=load["load_id"], kind=load["kind"], **counts)
        self._watcher.stream_done(label, load)

    def _wants(self, stream: Stream) -> bool:
        if self._feeding is not None and stream.label not in self._feeding:
            return False
        wanted = self._options.streams
        return not wanted or stream.name in wanted or stream.label in wanted

    # build and check

    def _choose(self, models: Models) -> list[Entity]:
        """Return the entities of the run: those asked for, or all that the run's streams feed, however far."""
        if self._options.entities:
            return named_entities(models, self._options.entities)
        if self._replayed is not None:
            return fed_entities(models, self._replayed.streams, self._replayed.entities)
        return fed_entities(
            models, {s.label for source in self._sources for s in source.active_streams if self._wants(s)}
        )

    def _build(self, entities: list[Entity], models: Models) -> list[Entity]:
        """Build and check the entities; return those that may be published."""
        if not entities:
            if not self._failures and self._replayed is None:
                self._watcher.note("no entity reads what was loaded: write a model with materialized='versioned'")
            return []
        step = BuildStep(self._connection, self._engine.dbt, self._claimed, self._watcher, entities, models)
        failures = step.run(is_each=self._is_each)
        self._failures |= failures
        checked = self._without(entities, set(failures))
        names = [entity.name for entity in checked]
        withdrawn = sorted({entity.name for entity in entities} - set(names))
        if withdrawn:
            control.withdraw_candidates(self._connection, self._claimed[0], withdrawn)
        control.mark_checked(self._connection, names)
        control.finish_step(self._connection, "check")
        return checked

    @contextmanager
    def _looked_at(self) -> Iterator[None]:
        """Have the candidates looked at that stand at the end, those that were refused too."""
        refused = None
        try:
            yield
        except RefusedError as error:
            refused = error
        if self._look is not None:
            self._look(self._claimed[0])
        if refused is not None:
            raise refused

    # publish

    def _publish(self, entities: list[Entity], models: Models) -> None:
        names = [entity.name for entity in entities]
        held = control.publishable(self._connection, names, is_held=True)
        if held:
            self._watcher.note(
                f"held after a rollback, not published: {', '.join(held)} (`syncline publish` lifts the hold)"
            )
        builds = control.publishable(self._connection, names, is_held=False)
        publication = publishing.publish(self._connection, list(builds.values())) if builds else None
        _follow_up(self._engine, self._connection, models, names, publication, self._claimed)


def fail_run(
    connection: db.Connection, run_id: int, error: BaseException, mask: Mask, watcher: Watcher | None = None
) -> None:
    """End the session's run as failed: its candidates are withdrawn. Raises `error` where that cannot be noted."""
    if connection.broken:
        return  # the next claim finds this run abandoned and withdraws its candidates
    try:
        control.withdraw_candidates(connection, run_id)
        note_failure(connection, error, mask, watcher)
    except SynclineError:
        if isinstance(error, SynclineError):
            raise error from None
        raise


def note_failure(connection: db.Connection, error: BaseException, mask: Mask, watcher: Watcher | None = None) -> None:
    """Note why the session's run failed, without secrets."""
    message, hint, exit_code = type(error).__name__, "This is a defect in Syncline: please report it.", 1
    if isinstance(error, KeyboardInterrupt):
        message, hint = "interrupted", "Run again: what was loaded is kept."
    elif isinstance(error, SynclineError):
        message, hint, exit_code = mask(error.message), mask(error.hint or ""), error.exit_code
    status = "cancelled" if isinstance(error, CancelledError) else "failed"
    run_id = control.session_run(connection)
    with db.translated(), connection.transaction():
        control.log(connection, "error", "sync_fail", message=message, exit_code=exit_code)
        told = {"message": message, "hint": hint or None, "exit_code": exit_code}
        ended = control.finish_run(connection, status, told)
    if watcher is not None:
        watcher.event("error", "sync_fail", {"run_id": run_id, "message": message, "exit_code": exit_code})
        if ended == "queued":
            watcher.event("warning", "sync_retry", {"run_id": run_id})


def _counts(report: Mapping[str, Any]) -> dict[str, int]:
    """Return what a run did to rows, over all its entities."""
    kinds = ("inserted", "updated", "deleted", "unchanged", "rejected")
    return {kind: sum(entity[kind] for entity in report["entities"].values()) for kind in kinds}


def partial_failure(failures: Mapping[str, SynclineError]) -> SynclineError:
    """Return what a run says that published what it could: all failures, in the kind and with the hint of the first."""
    first = next(iter(failures.values()))
    said = "; ".join(f"{name}: {error.message.removeprefix(f'{name}: ')}" for name, error in failures.items())
    return type(first)(f"not all was published: {said}", first.hint)


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
    entities: Iterable[str],
    publication: int | None,
    claimed: tuple[int, int] | None,
) -> None:
    """Bring what is downstream up to date, then announce what was published, which stands whatever became of that."""
    try:
        follow_up(engine.dbt, connection, models, entities, claimed)
    finally:
        if publication is not None and not connection.broken:
            control.announce(connection, publication)
