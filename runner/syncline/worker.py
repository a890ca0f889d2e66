"""Takes runs from the queue and works them, one at a time, until it is told to stop."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import structlog

from syncline import control, db, logs, pipeline, schedules
from syncline.alerts import Alerts
from syncline.config import read_project
from syncline.errors import ConfigurationError, DatabaseError, DatabaseUnavailableError, LostClaimError, SynclineError
from syncline.interruption import STOP_SECONDS, InterruptedRun
from syncline.migrate import is_up_to_date, migrate
from syncline.pipeline import Engine

POLL_SECONDS = 5.0
"""How often an idle worker looks for what nobody tells it of: runs whose worker is gone, schedules, incidents."""

RECONNECT_SECONDS = (0.5, 10.0)
"""The first pause before the database is tried again, which doubles, and the longest one."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Which sources a worker takes runs of (None: of all), and how many seconds a run may go on once it is to stop.

    `is_burst` ends the worker once nothing waits that it may take.
    """

    sources: list[str] | None = None
    grace: float = 30.0
    is_burst: bool = False


def stop_with_input() -> None:
    """Stop this process in good order once its standard input ends, as it does when its supervisor is gone."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


class Worker:
    """One process that works runs: a connection that listens and holds claims, and one warm dbt process.

    Raises ConfigurationError where it is to take the runs of a source that is not there.
    """

    def __init__(self, root: Path, dsn: str, options: WorkerOptions) -> None:
        self._root = root
        self._dsn = dsn
        self._options = options
        project = read_project(root)
        for name in options.sources or ():
            project.source(name)
        self._engine = Engine(project, dsn)
        self._alerts = Alerts(project)
        self._log = structlog.get_logger("syncline.worker")
        self._woken, self._wake = os.pipe()
        self._is_stopping = False
        self._is_working = False
        self._has_served = False
        self._pause = RECONNECT_SECONDS[0]
        self._next_look = 0.0

    def run(self) -> None:
        """Work until a signal says to stop; outlives the database.

        Raises ConfigurationError where the control schema is newer, DatabaseError where the database refuses it at the
        start.
        """
        with self._engine, self._signals():
            self._log.info("worker_start", sources=self._options.sources or "all", pid=os.getpid())
            while not self._is_stopping:
                try:
                    self._serve()
                except InterruptedRun:
                    self._log.info("run_handed_back")
                except LostClaimError as error:
                    self._log.warning("claim_lost", message=error.message)
                except DatabaseError as error:
                    is_away = isinstance(error, DatabaseUnavailableError)
                    if not is_away and not self._has_served:
                        raise
                    self._alerts.database_lost(error)
                    event = "database_lost" if is_away else "database_refused"
                    self._log.error(event, message=error.message, hint=error.hint, retry_seconds=self._pause)
                    self._sleep(self._pause)
                    self._pause = min(self._pause * 2, RECONNECT_SECONDS[1])
                except ConfigurationError as error:
                    if not self._has_served:
                        raise
                    self._log.error("not_ready", message=error.message, hint=error.hint, retry_seconds=self._pause)
                    self._sleep(self._pause)
                except Exception as error:
                    # A defect fails its run; the worker goes on with the next, on a new connection.
                    self._log.error("defect", exc_info=error)
                    self._engine.dbt.stop()
                    self._sleep(self._pause)
            self._log.info("worker_stop")

    def _serve(self) -> None:
        """Work on one connection for as long as it lasts."""
        with db.connect(self._dsn, name="syncline worker") as connection:
            project = self._engine.project
            if not is_up_to_date(connection, project):
                migrate(connection, project)
            with db.translated():
                connection.execute("listen syncline_requested")
            self._pause, self._has_served = RECONNECT_SECONDS[0], True
            self._alerts.database_back()
            while not self._is_stopping:
                self._look_after(connection)
                if not self._work_next(connection):
                    self._wait(connection)

    def _look_after(self, connection: db.Connection) -> None:
        """Fire schedules, check for incidents, prune the log: now and then, however busy the queue is."""
        if time.monotonic() < self._next_look:
            return
        due, began = None, time.monotonic()
        self._next_look = began + POLL_SECONDS
        try:
            control.withdraw_lost_candidates(connection)
            due = schedules.fire_due(connection)
            self._alerts.check(connection)
            logs.prune_daily(connection, self._engine.project)
        except SynclineError as error:
            # Runs go on without; a connection that is gone shows in what comes next.
            self._log.error("look_failed", message=error.message, hint=error.hint)
        if due is not None:
            self._next_look = min(self._next_look, began + due)

    def _work_next(self, connection: db.Connection) -> bool:
        """Work the next run, if there is one; return whether there was."""
        if self._is_stopping:
            return False
        self._is_working = True
        try:
            claimed = control.claim_run(connection, sources=self._options.sources)
            if claimed is None:
                return False
            # The project as it is now: what was changed there needs no restart.
            self._engine.project = read_project(self._root)
            pipeline.work(self._engine, connection, claimed, logs.LogWatcher(claimed))
        except ConfigurationError as error:
            pipeline.note_failure(connection, error, self._engine.project.mask)
        finally:
            self._is_working = False
        return True

    def _wait(self, connection: db.Connection) -> None:
        """Wait until something is requested or comes due, or the time for a look around is there."""
        due = control.seconds_until_due(connection, self._options.sources)
        if due is None and self._options.is_burst:
            self._is_stopping = True
        with db.translated():
            # What was told while other statements ran is no more on the socket.
            if self._is_stopping or list(connection.notifies(timeout=0)):
                return
        left = max(0.0, self._next_look - time.monotonic())
        self._sleep(left if due is None else min(left, due), connection)
        with db.translated():
            list(connection.notifies(timeout=0))

    def _sleep(self, seconds: float, connection: db.Connection | None = None) -> None:
        sockets = [self._woken] if connection is None else [self._woken, connection.fileno()]
        select.select(sockets, [], [], seconds)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGALRM: self._give_up}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Take no more runs. The one at work has its grace to end in; who is told twice hands it back at once."""
        if self._is_stopping:
            self._give_up(number, frame)
            return
        self._is_stopping = True
        os.write(self._wake, b"x")
        if self._is_working:
            self._log.info("worker_stopping", grace_seconds=self._options.grace)
            signal.setitimer(signal.ITIMER_REAL, max(self._options.grace, 0.001))

    def _give_up(self, _: int, __: FrameType | None) -> None:
        """Hand the run at work back to the queue; where that takes too long, leave it for others to find."""
        if not self._is_working:
            return
        self._is_working = False
        signal.signal(signal.SIGALRM, lambda *_: os._exit(75))
        signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)
        raise InterruptedRun(None)
