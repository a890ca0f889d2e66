"""The agency example: a warm run with one record changed, and a cold run beside `dbt build`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from syncline.config import read_project
from syncline.dbt import connection_variables
from syncline.paths import bundle
from syncline.pipeline import Engine, run
from syncline.report import SilentWatcher
from syncline.run_options import RunOptions
from syncline.scaffold import create_project
from tests.bench.volume import check, make_database, timed

TOKEN = "bench"


@contextmanager
def agency_project(dsn: str, folder: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Yield the example and its database, with its API running, which changes one record before each run."""
    project = folder / name
    create_project(project, "agency")
    database = make_database(dsn, name)
    server = subprocess.Popen(
        [sys.executable, str(bundle() / "examples" / "agency" / "server.py"), "--port", "0", "--token", TOKEN,
         "--generation", "1", "--until-stdin-closes", "--touch"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdin
    assert server.stdout
    try:
        url = server.stdout.readline().strip().rpartition(" ")[2]
        os.environ.update({"AGENCY_API_URL": url, "AGENCY_API_TOKEN": TOKEN, "DATABASE_URL": database})
        yield project, database
    finally:
        server.stdin.close()
        server.wait(timeout=10)
        server.stdout.close()


def measure(dsn: str, folder: Path) -> None:
    """Print seconds of warm and cold runs."""
    print("\nthe agency example: ten entities, 3,400 records, 21 tests; seconds")
    with agency_project(dsn, folder, "agency") as (project, database):
        with Engine(read_project(project), database) as engine:

            def sync() -> float:
                return timed(lambda: check(run(engine, RunOptions(), SilentWatcher(None))))  # type: ignore[arg-type]

            sync()
            warm = sorted(sync() for _ in range(7))
            print(f"  warm run, one record changed: {warm[3]:.2f} ({warm[0]:.2f} to {warm[-1]:.2f}; goal 1.5)")
        environment = os.environ | connection_variables(database)
        command = [sys.executable, "-m", "dbt.cli.main", "build", "--quiet", "--exclude-resource-type", "unit_test"]
        cold_dbt, cold_run = [], []
        for _ in range(3):
            cold_dbt.append(timed(lambda: subprocess.run(command, cwd=project, env=environment, check=True)))
            cold_run.append(
                timed(
                    lambda: subprocess.run(
                        [sys.executable, "-m", "syncline", "run", "--json"],
                        cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL,
                    )
                )
            )  # fmt: skip
        ratio = min(cold_run) / min(cold_dbt)
        print(f"  cold `syncline run` {min(cold_run):.2f}, cold `dbt build` {min(cold_dbt):.2f} ({ratio:.2f}; goal 2)")
