"""Starts the replica, lets six hours pass in it, syncs it with the arguments given, and stops it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg

from syncline import embedded
from syncline.paths import find_project, state_folder

HERE = Path(__file__).resolve().parent


def main() -> int:
    project = find_project(HERE)
    folder = state_folder(project) / "replica"
    folder.mkdir(exist_ok=True)
    dsn = embedded.ensure_running(folder)
    try:
        advance(dsn)
        command = [sys.executable, "-m", "syncline", "run", "replica", *sys.argv[1:]]
        environment = os.environ | {"REPLICA_URL": dsn}
        return subprocess.run(command, cwd=project, env=environment, check=False).returncode
    finally:
        embedded.stop(folder)


def advance(dsn: str) -> None:
    """Make the shop where there is none; else let six hours pass in it."""
    with psycopg.connect(dsn) as replica:
        is_there = replica.execute("select to_regclass('public.clock') is not null").fetchone() == (True,)
        script = HERE / ("change.sql" if is_there else "schema.sql")
        replica.execute(script.read_text(encoding="utf-8").encode())


if __name__ == "__main__":
    sys.exit(main())
