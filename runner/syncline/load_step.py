"""The load step of a run: its streams side by side, parents before their children."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from syncline import control, db, telemetry
from syncline.config import Project, Source, Stream
from syncline.connectors import Connector, Context, open_connector, stream_settings
from syncline.connectors.push import Push, PushedRecords
from syncline.errors import ConfigurationError, RunError, SynclineError, first_of
from syncline.interruption import InterruptedRun
from syncline.load import LoadOptions, guard_error_ratio, load_stream

STREAMS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class LoadStep:
    """What to load, and whom to tell. `push` takes the place of what the connector would fetch."""

    project: Project
    dsn: str
    claimed: tuple[int, int]
    work: list[tuple[Source, Stream]]
    options: LoadOptions
    push: Push | None
    is_each: bool
    progress: Callable[[str, int], None]
    done: Callable[[str, dict[str, Any]], None]
    note: Callable[[str], None]
    stopped: threading.Event

    def run(self) -> dict[str, SynclineError]:
        """Load all streams; return what failed, by stream, where each stands for itself.

        Otherwise after a failure none is begun any more, and the first is raised, naming all.
        """
        with ExitStack() as stack:
            connectors: dict[str, Connector] = {}
            for source, _ in self.work:
                if source.name not in connectors:
                    context = stack.enter_context(_RunContext(self.project, self.dsn, self.claimed, source))
                    connectors[source.name] = self._open(source, context)
                    stack.callback(connectors[source.name].close)
            failures = self._load_all(connectors)
        if failures and not self.is_each:
            raise first_of(dict(sorted(failures.items())))
        return failures

    def _open(self, source: Source, context: Context) -> Connector:
        if self.push is not None:
            return PushedRecords(self.push, context)
        return open_connector(self.project, source, context)

    def _load_all(self, connectors: dict[str, Connector]) -> dict[str, SynclineError]:
        waiting = {stream.label: (source, stream) for source, stream in self.work}
        parents = {stream.label: self._parents(source, stream, connectors[source.name]) for source, stream in self.work}
        running: dict[Future[None], str] = {}
        failures: dict[str, SynclineError] = {}
        with ThreadPoolExecutor(STREAMS_AT_ONCE, thread_name_prefix="load") as pool:
            while waiting or running:
                open_labels = {*waiting, *running.values()}
                ready = [label for label in waiting if not parents[label] & open_labels]
                if failures and not self.is_each:
                    waiting.clear()
                elif not ready and not running:
                    raise ConfigurationError(f"the streams {', '.join(sorted(waiting))} are each other's parents")
                else:
                    for label in ready[: STREAMS_AT_ONCE - len(running)]:
                        source, stream = waiting.pop(label)
                        load = telemetry.carried(self._load_one)
                        running[pool.submit(load, source, stream, connectors[source.name])] = label
                for future in self._next_done(running):
                    label, error = running.pop(future), future.exception()
                    if isinstance(error, SynclineError):
                        failures[label] = error
                    elif error is not None:
                        raise error
        return failures

    def _next_done(self, running: dict[Future[None], str]) -> set[Future[None]]:
        try:
            return wait(running, return_when=FIRST_COMPLETED).done
        except KeyboardInterrupt as interrupt:
            self.stopped.set()
            by_hand = "" if isinstance(interrupt, InterruptedRun) else "; once more to stop now"
            self.note(f"stopping after the page under way{by_hand}")
            raise

    def _parents(self, source: Source, stream: Stream, connector: Connector) -> set[str]:
        names = connector.parents(stream_settings(self.project, source, stream))
        for name in names:
            if name not in source.streams:
                raise ConfigurationError(
                    f"{stream.file}: stream {stream.label} names {name!r}, which is no stream of its source",
                    f"Streams of {source.name}: {', '.join(sorted(source.streams))}.",
                )
        return {source.streams[name].label for name in names}

    def _load_one(self, source: Source, stream: Stream, connector: Connector) -> None:
        def progress(records: int) -> None:
            if self.stopped.is_set():
                raise RunError(f"{stream.label}: stopped")
            self.progress(stream.label, records)

        with (
            telemetry.span("syncline.load_stream", stream=stream.label),
            db.connect(self.dsn, run=self.claimed) as connection,
        ):
            load = load_stream(
                self.project,
                source,
                connector,
                stream,
                connection,
                self.options,
                progress,
            )
        self.done(stream.label, load)
        guard_error_ratio(stream, load)


class _RunContext(Context):
    """What a run gives a connector: the control plane's budgets and log, and the records of other streams."""

    def __init__(self, project: Project, dsn: str, claimed: tuple[int, int], source: Source) -> None:
        super().__init__(Path(project.root))
        self._project = project
        self._dsn = dsn
        self._claimed = claimed
        self._source = source
        self._connection: db.Connection | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> _RunContext:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def reserve(self, budget: str, requests: int, seconds: float) -> float:
        with self._lock:
            return float(db.call_value(self._shared(), "reserve_request", budget, requests, seconds))

    def live_records(self, stream: str) -> Iterator[bytes]:
        with self._lock:
            last_load = db.call_value(self._shared(), "last_load", self._source.name, stream)
        if last_load is None:
            raise ConfigurationError(
                f"{self._source.name}.{stream} was never loaded, and other streams take its records",
                f"Load it first: syncline load {self._source.name} {stream}.",
            )
        table = sql.Identifier(self._source.schema, f"{stream}_json")
        query = sql.SQL("select payload from {} where _gone_load is null order by _key").format(table)
        query = sql.SQL("copy ({}) to stdout (format binary)").format(query)
        with (
            db.translated(),
            db.connect(self._dsn) as connection,
            connection.cursor() as cursor,
            cursor.copy(query) as copy,
        ):
            copy.set_types(["bytea"])
            yield from (row[0] for row in copy.rows())

    def log(self, line: str) -> None:
        line = self._project.mask(line)
        with self._lock:
            control.log(self._shared(), "debug", "source_output", source=self._source.name, line=line)

    def _shared(self) -> db.Connection:
        if self._connection is None:
            self._connection = db.connect(self._dsn, run=self._claimed)
        return self._connection
