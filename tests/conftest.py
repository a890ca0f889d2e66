"""A real Postgres for the tests: SYNCLINE_TEST_DSN, else a container, else the embedded server."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from syncline import db, embedded
from syncline.migrate import migrate
from tests.driver import Driver

CONTAINER_IMAGE = os.environ.get("SYNCLINE_TEST_IMAGE", "postgres:15-cron")

# A container ends with its fixture; the reaper's own image need not be here.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

_numbers = itertools.count(1)
_server_version = pytest.StashKey[str]()


def pytest_report_header(config: pytest.Config) -> str:
    return f"postgres: {_describe_server()}"


def _describe_server() -> str:
    if os.environ.get("SYNCLINE_TEST_DSN"):
        with psycopg.connect(os.environ["SYNCLINE_TEST_DSN"]) as connection:
            return f"{connection.info.server_version // 10000}, from SYNCLINE_TEST_DSN"
    return f"{CONTAINER_IMAGE}, in a container" if has_container_image() else "embedded"


def has_container_image() -> bool:
    if shutil.which("docker") is None:
        return False
    command = ["docker", "image", "inspect", CONTAINER_IMAGE]
    return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0


@pytest.fixture(scope="session")
def server_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a server on which tests may make databases."""
    if os.environ.get("SYNCLINE_TEST_DSN"):
        yield os.environ["SYNCLINE_TEST_DSN"]
        return
    if has_container_image():
        from testcontainers.community.postgres import PostgresContainer

        with PostgresContainer(CONTAINER_IMAGE, driver=None) as container:
            yield container.get_connection_url()
        return
    project = tmp_path_factory.mktemp("server")
    yield embedded.ensure_running(project)
    embedded.stop(project)


@pytest.fixture(scope="session")
def template(server_dsn: str) -> Iterator[str]:
    """The name of a database with the control schema, to be cloned for each test."""
    name = f"syncline_template_{os.getpid()}"
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        with db.connect(make_conninfo(server_dsn, dbname=name)) as connection:
            migrate(connection)
        yield name
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def empty_database(server_dsn: str) -> Iterator[str]:
    """The connection string of an empty database of the test's own."""
    yield from _database(server_dsn, "template1")


@pytest.fixture
def database(server_dsn: str, template: str) -> Iterator[str]:
    """The connection string of a migrated database of the test's own."""
    yield from _database(server_dsn, template)


def _database(server_dsn: str, template: str) -> Iterator[str]:
    name = f"syncline_test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))
        yield make_conninfo(server_dsn, dbname=name)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def connection(database: str) -> Iterator[db.Connection]:
    with db.connect(database) as opened:
        yield opened


@pytest.fixture
def driver(database: str, tmp_path: Path) -> Iterator[Driver]:
    """One stream and one entity, driven step by step on the real SQL, without dbt."""
    with Driver(database, tmp_path) as made:
        yield made
