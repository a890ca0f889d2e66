"""A cluster of Debian's Postgres 15 with pg_cron, on a unix socket, for the tests of schedules."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

BIN = Path("/usr/lib/postgresql/15/bin")
CONTROL_FILE = Path("/usr/share/postgresql/15/extension/pg_cron.control")
DATABASE = "synchronized"
"""The database that the cluster's pg_cron works in: it can be in one alone."""

SETTINGS = """
listen_addresses = ''
fsync = off
max_connections = 50
max_worker_processes = 30
shared_preload_libraries = 'pg_cron'
cron.use_background_workers = on
"""


def is_installed() -> bool:
    """Whether Debian's packages postgresql-15 and postgresql-15-cron are here."""
    return (BIN / "initdb").exists() and CONTROL_FILE.exists()


@contextmanager
def cluster(**environment: str) -> Iterator[str]:
    """Start a cluster with these variables and yield its superuser's connection string; stop it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="cron"))
    data = folder / "data"
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        _execute("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        settings = f"{SETTINGS}unix_socket_directories = '{folder}'\ncron.database_name = '{DATABASE}'\n"
        with (data / "postgresql.conf").open("a") as file:
            file.write(settings)
        _execute("pg_ctl", "start", "-w", "-D", data, "-l", folder / "log", **environment)
        try:
            dsn = make_conninfo(host=str(folder), user="postgres", dbname="postgres")
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute(f"create database {DATABASE}")  # type: ignore[arg-type]
            yield dsn
        finally:
            _execute("pg_ctl", "stop", "-m", "immediate", "-D", data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _execute(program: str, *arguments: object, **environment: str) -> None:
    """Run a program of Postgres, which none of them does for root."""
    command = [str(BIN / program), *map(str, arguments)]
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]
    # pg_ctl's server would hold a pipe open.
    with tempfile.TemporaryFile() as output:
        ended = subprocess.run(
            command, cwd="/", env=os.environ | environment, stdout=output, stderr=output, check=False, timeout=60
        )
        output.seek(0)
        assert ended.returncode == 0, output.read().decode()
