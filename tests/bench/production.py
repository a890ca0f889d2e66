"""The queue, a warm worker and the API: how soon a run is claimed, how many a second, how quick answers are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from syncline import control, db
from syncline.config import read_project
from syncline.migrate import migrate
from tests.bench.agency import agency_project
from tests.workers import Workers, wait_for_run

KEY = "a-key-for-the-bench"
DONE = ("succeeded", "failed", "cancelled", "abandoned")
IDLE_SECONDS = 30
SECONDS_OF_READS = 15


def measure(dsn: str, folder: Path) -> None:
    """Print what a worker and the API do on the agency example."""
    print("\nproduction: the agency example, one worker, the API")
    with agency_project(dsn, folder, "production") as (project, database):
        with Workers(project, database) as workers, db.connect(database) as connection:
            migrate(connection, read_project(project))
            worker = workers.start()
            first = control.request_run(connection, [], [], {}, "api")
            assert wait_for_run(database, first, *DONE, seconds=120)["status"] == "succeeded"
            _measure_claims(connection, database)
            _measure_runs(connection, database)
            _measure_idle(connection, worker.pid)
        _measure_reads(project)


def _measure_claims(connection: db.Connection, dsn: str) -> None:
    for _ in range(200):
        options = {"steps": ["load"], "streams": ["boards"]}
        wait_for_run(dsn, control.request_run(connection, [], [], options, "api"), *DONE)
        time.sleep(0.02)
    statement = """
        select extract(epoch from started_at - requested_at) * 1000 as ms
        from syncline.runs
        where options ? 'streams'
        order by run_id
    """
    waits = sorted(float(row["ms"]) for row in connection.execute(statement))
    print(f"  request to claim, idle worker: p50 {waits[99]:.1f} ms, p99 {waits[197]:.1f} ms (goal 50)")


def _measure_runs(connection: db.Connection, dsn: str) -> None:
    began = time.monotonic()
    for _ in range(20):
        report = wait_for_run(dsn, control.request_run(connection, [], [], {}, "api"), *DONE)
        assert report["status"] == "succeeded", report["errors"]
    rate = 20 / (time.monotonic() - began)
    print(f"  whole runs, one record changed each: {rate:.2f} a second (goal 1)")


def _measure_idle(connection: db.Connection, pid: int) -> None:
    time.sleep(6)  # what the last run left to do is done
    watched = "select xact_commit from pg_stat_database where datname = current_database()"
    before, busy = connection.execute(watched).fetchone(), _cpu_seconds(pid)
    time.sleep(IDLE_SECONDS)
    after, share = connection.execute(watched).fetchone(), (_cpu_seconds(pid) - busy) / IDLE_SECONDS
    assert before
    assert after
    statements = after["xact_commit"] - before["xact_commit"]
    print(f"  idle worker: {share:.2%} of a core (goal 1%), {statements / IDLE_SECONDS:.1f} statements a second")


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its children."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    fields = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _serving(project: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "syncline", "serve", "--port", "0", "--json"],
        cwd=project,
        env=os.environ | {"SYNCLINE_SECRET_KEY": KEY, "SYNCLINE_RATE_LIMIT": "0", "SYNCLINE_LOG_LEVEL": "warning"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    try:
        url = re.search(r'"url": "([^"]+)"', process.stdout.readline())
        assert url
        yield url.group(1)
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def _measure_reads(project: Path) -> None:
    if shutil.which("hey") is None:
        print("  answers of the API: not measured, Debian's package hey is not installed")
        return
    with _serving(project) as url:
        runs = httpx.get(f"{url}/api/v1/runs", headers={"x-sync-secret": KEY}).json()["runs"]
        for path in ("/api/v1/runs?limit=20", f"/api/v1/runs/{runs[0]['run_id']}", "/api/v1/status"):
            command = ["hey", "-z", f"{SECONDS_OF_READS}s", "-q", "20", "-c", "10", "-H", f"x-sync-secret: {KEY}"]
            told = subprocess.run([*command, url + path], capture_output=True, text=True, check=True).stdout
            found = {share: float(value) * 1000 for share, value in re.findall(r"(\d+)%+ in ([\d.]+) secs", told)}
            rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
            assert rate
            statuses = " ".join(re.findall(r"\[\d+\]\s+\d+ responses", told)).replace("\t", " ")
            print(
                f"  GET {path}: p50 {found['50']:.0f} ms, p99 {found['99']:.0f} ms (goal 50)"
                f" at {float(rate.group(1)):.0f} a second, {statuses}"
            )
