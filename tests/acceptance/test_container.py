"""A production-like set-up on Postgres in a container: pg_cron asks for runs, and a worker does them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from syncline import db
from syncline.config import read_project
from syncline.migrate import migrate
from syncline.scaffold import create_project
from tests.conftest import CONTAINER_IMAGE, has_container_image
from tests.integration.test_chaos import declare
from tests.workers import Workers, wait_for_run


def syncline(root: Path, dsn: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "syncline", *arguments],
        cwd=root,
        env=os.environ | {"DATABASE_URL": dsn},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def next_run(dsn: str, after: int) -> int:
    """Wait until pg_cron has asked for a run after this one, which takes a minute; return its number."""
    with db.connect(dsn) as connection, db.translated():
        connection.execute("listen syncline_requested")
        for told in connection.notifies(timeout=100):
            if int(told.payload) > after:
                return int(told.payload)
    raise AssertionError("pg_cron asked for no run")


@pytest.mark.timeout(400)
@pytest.mark.skipif(not has_container_image(), reason="needs Docker and the image of tests/images/postgres-cron.sh")
def test_pg_cron_asks_and_a_worker_does(tmp_path: Path) -> None:
    """A schedule of every minute fires by pg_cron and is worked; where its sessions are cut it goes on by itself."""
    from testcontainers.community.postgres import PostgresContainer

    root = tmp_path / "my project"
    create_project(root)
    declare(root, sources=1, streams=1, entities=1)
    with PostgresContainer(CONTAINER_IMAGE, driver=None) as container:
        dsn = container.get_connection_url()
        with db.connect(dsn) as connection:
            connection.execute("create extension pg_cron")
            migrate(connection, read_project(root))
        syncline(root, dsn, "schedule", "create", "often", "--cron", "* * * * *")
        (schedule,) = json.loads(syncline(root, dsn, "schedule", "list", "--json"))["schedules"]
        assert schedule["fired_by"] == "pg_cron"
        with Workers(root, dsn) as workers:
            worker = workers.start()
            first = next_run(dsn, 0)
            report = wait_for_run(dsn, first, "succeeded", "failed")
            assert (report["status"], report["trigger"], report["schedule"]) == ("succeeded", "scheduler", "often")
            with db.connect(dsn) as connection:
                assert connection.execute("select id, n from things0_current").fetchall() == [{"id": 1, "n": 0}]
            with db.connect(dsn) as connection:
                is_other = "backend_type = 'client backend' and pid <> pg_backend_pid()"
                connection.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {is_other}")
            second = next_run(dsn, first)
            assert wait_for_run(dsn, second, "succeeded", "failed")["status"] == "succeeded"
            assert worker.poll() is None
