"""Workers of a project: real processes that the tests start, tell to stop, kill, and read the log of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from syncline import control, db


class Workers:
    """Starts workers on a project and its database; ends all that are left with the block."""

    def __init__(self, root: Path, dsn: str, environment: Mapping[str, str] = os.environ) -> None:
        self.root = root
        self.dsn = dsn
        self._environment = {**environment, "DATABASE_URL": dsn}
        self._processes: list[subprocess.Popen[str]] = []
        self._logs: dict[int, Path] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if kind is None else signal.SIGKILL)
        for process in self._processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a worker and wait until it listens."""
        before = self._listening()
        log = self.root / ".syncline" / f"worker-{len(self._processes)}.txt"
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "syncline", "worker", "--json", *arguments],
                cwd=self.root,
                env=self._environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                text=True,
            )
        self._processes.append(process)
        self._logs[process.pid] = log
        until = time.monotonic() + 60
        while self._listening() <= before:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        return process

    def log(self, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
        """What the worker logged so far, an event each."""
        return [json.loads(line) for line in self._logs[process.pid].read_text().splitlines()]

    def text(self) -> str:
        """All that all workers wrote."""
        return "".join(log.read_text() for log in self._logs.values())

    def _listening(self) -> int:
        is_worker = "application_name = 'syncline worker' and datname = current_database()"
        statement = f"select count(*) as n from pg_stat_activity where {is_worker}"
        with db.connect(self.dsn) as connection:
            row = connection.execute(statement).fetchone()
        assert row
        return int(row["n"])


def stop(process: subprocess.Popen[str], seconds: float = 60) -> int:
    """Tell the worker to stop and wait; return its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(seconds)


def wait_for_run(dsn: str, run_id: int, *statuses: str, seconds: float = 60) -> dict[str, Any]:
    """Wait until the run has one of these statuses; return its report."""
    until = time.monotonic() + seconds
    with db.connect(dsn) as connection:
        while True:
            report = control.run_report(connection, run_id)
            if report["status"] in statuses:
                return report
            assert time.monotonic() < until, report
            time.sleep(0.02)
