"""Watches over a run at work, and interrupts it where it was cancelled, takes too long or was lost."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType

from syncline import control, db
from syncline.errors import CancelledError, LostClaimError, RunError, SynclineError

LOOK_SECONDS = 5.0
"""How often a run's claim is looked at; a request to cancel is heard at once."""

STOP_SECONDS = 30.0
"""So long an interrupted run may take to end before its process is given up, where that is allowed."""


class InterruptedRun(KeyboardInterrupt):
    """Ends the work of a run wherever it is. `error` says why; None hands the run back to the queue."""

    def __init__(self, error: SynclineError | None) -> None:
        super().__init__(error.message if error else "handed back")
        self.error = error


@dataclass(frozen=True, slots=True)
class Claim:
    """What the overseer knows of a run: its number and attempt, and how many seconds it may take."""

    run_id: int
    attempt: int
    timeout: float | None = None


class Overseer:
    """Interrupts the run that is worked inside its `with`, which raises InterruptedRun in the main thread.

    A run worked in another thread finds `stopped` set, and `error`. `is_expendable` ends the process where the run does
    not stop in time: then another worker takes it over.
    """

    def __init__(self, dsn: str, claim: Claim, *, is_expendable: bool = False) -> None:
        self.stopped = threading.Event()
        self.error: SynclineError | None = None
        self._dsn = dsn
        self._claim = claim
        self._is_expendable = is_expendable
        self._is_active = False
        self._thread = threading.Thread(target=self._watch, name=f"overseer {claim.run_id}", daemon=True)
        self._done, self._wake = os.pipe()
        self._handler: object = None

    def __enter__(self) -> Overseer:
        self._is_active = True
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGUSR1, self._interrupt_here)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_active = False
        os.write(self._wake, b"x")
        self._thread.join()
        if self._handler is not None:
            signal.signal(signal.SIGUSR1, self._handler)  # type: ignore[arg-type]
        os.close(self._done)
        os.close(self._wake)

    def _interrupt_here(self, _: int, __: FrameType | None) -> None:
        if self._is_active:
            raise InterruptedRun(self.error)

    def _watch(self) -> None:
        due = None if self._claim.timeout is None else time.monotonic() + self._claim.timeout
        error = None
        while error is None and self._is_active:
            try:
                with db.connect(self._dsn, run=(self._claim.run_id, self._claim.attempt)) as connection:
                    error = self._follow(connection, due)
            except LostClaimError as lost:
                error = lost
            except SynclineError:
                # Its own statements tell the run that the database is gone.
                error = self._overdue(due)
                self._wait(None, 1.0)
        if error is not None and self._is_active:
            self._interrupt(error)

    def _follow(self, connection: db.Connection, due: float | None) -> SynclineError | None:
        """Return what the run is interrupted for; None once it has ended."""
        claim = self._claim
        with db.translated():
            connection.execute("listen syncline_cancelled")
        while self._is_active:
            who = control.cancelled_by(connection, claim.run_id)
            if who is not None:
                return CancelledError(f"cancelled by {who}", "Run again when it is wanted.")
            control.hold_run(connection)
            if not control.is_run_alive(connection, claim.run_id):
                return LostClaimError(
                    f"run {claim.run_id} lost the connection that held it", "Another worker takes it over."
                )
            overdue = self._overdue(due)
            if overdue is not None:
                return overdue
            left = LOOK_SECONDS if due is None else min(LOOK_SECONDS, due - time.monotonic())
            self._wait(connection, max(left, 0.0))
        return None

    def _overdue(self, due: float | None) -> SynclineError | None:
        if due is None or time.monotonic() < due:
            return None
        return RunError(
            f"run {self._claim.run_id} took longer than {self._claim.timeout:g} seconds",
            "Give it more time, or find out what is slow: `syncline runs --json` has the time of each step.",
        )

    def _wait(self, connection: db.Connection | None, seconds: float) -> None:
        """Wait until the run ends, somebody cancels a run, or the time is over."""
        sockets = [self._done] if connection is None else [self._done, connection.fileno()]
        select.select(sockets, [], [], seconds)
        if connection is not None:
            with db.translated():
                list(connection.notifies(timeout=0))

    def _interrupt(self, error: SynclineError) -> None:
        self.error = error
        self.stopped.set()
        if self._handler is not None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        if self._is_expendable and not select.select([self._done], [], [], STOP_SECONDS)[0]:
            os._exit(75)
