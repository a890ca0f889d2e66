"""Keeps several worker processes going: starts them, starts those anew that died, and passes on what stops them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import structlog

RESTART_SECONDS = 1.0


class Supervisor:
    """Runs so many processes of one command; each ends when its standard input does, and so never outlives it.

    One that ends well is started anew too, unless `is_burst`.
    """

    def __init__(self, arguments: Sequence[str], processes: int, *, is_burst: bool = False) -> None:
        self._command = [sys.executable, "-m", "syncline", *arguments]
        self._wanted = processes
        self._is_burst = is_burst
        self._running: list[subprocess.Popen[bytes]] = []
        self._is_stopping = False
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._log = structlog.get_logger("syncline.supervisor")

    def run(self) -> int:
        """Work until a signal says to stop; return the exit code: 2 where the command refuses to start at all."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._stop(number))
        # Any signal that is handled writes a byte here.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        code = 0
        while True:
            code = max(code, *(self._bury(process) for process in list(self._running)), 0)
            while not self._is_stopping and len(self._running) < self._wanted:
                self._running.append(subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True))
                if self._is_stopping:
                    self._stop(signal.SIGTERM)
            if not self._running:
                return code
            if select.select([self._woken], [], [], 1.0)[0]:
                os.read(self._woken, 1024)

    def _bury(self, process: subprocess.Popen[bytes]) -> int:
        """Forget a process that has ended; return the exit code that it stands for."""
        if process.poll() is None:
            return 0
        self._running.remove(process)
        if process.returncode == 2:
            self._stop(signal.SIGTERM)
            return 2
        if process.returncode == 0 and self._is_burst:
            self._wanted -= 1
        elif not self._is_stopping:
            self._log.error("worker_died", pid=process.pid, status=process.returncode)
            time.sleep(RESTART_SECONDS)
        return 0

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        for process in self._running:
            if process.poll() is None:
                process.send_signal(number)
