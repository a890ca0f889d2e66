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
    """Runs so many processes of one command; each ends when its standard input does, and so never outlives it."""

    def __init__(self, arguments: Sequence[str], processes: int) -> None:
        self._command = [sys.executable, "-m", "syncline", *arguments]
        self._wanted = processes
        self._running: list[subprocess.Popen[bytes]] = []
        self._is_stopping = False
        self._woken, self._wake = os.pipe()
        self._log = structlog.get_logger("syncline.supervisor")

    def run(self) -> int:
        """Work until a signal says to stop; return the exit code: 2 where the command refuses to start at all."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        signal.signal(signal.SIGCHLD, lambda *_: os.write(self._wake, b"x"))
        code = 0
        while self._running or not self._is_stopping:
            for process in [process for process in self._running if process.poll() is not None]:
                self._running.remove(process)
                if process.returncode == 2:
                    code, self._is_stopping = 2, True
                    self._end()
                elif not self._is_stopping:
                    self._log.error("worker_died", pid=process.pid, status=process.returncode)
                    time.sleep(RESTART_SECONDS)
            while not self._is_stopping and len(self._running) < self._wanted:
                self._running.append(subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True))
            if self._running:
                select.select([self._woken], [], [], 1.0)
        return code

    def _pass_on(self, number: int, _: object) -> None:
        self._is_stopping = True
        os.write(self._wake, b"x")
        self._end(number)

    def _end(self, number: int = signal.SIGTERM) -> None:
        for process in self._running:
            if process.poll() is None:
                process.send_signal(number)
