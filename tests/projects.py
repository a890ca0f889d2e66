"""A whole project with an API, files and a database of its own, run through the real pipeline and command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
from click.testing import CliRunner
from psycopg import sql
from psycopg.conninfo import make_conninfo

from syncline import db, pipeline
from syncline.cli import main
from syncline.config import read_project
from syncline.errors import SynclineError
from syncline.run_options import RunOptions
from syncline.scaffold import create_project
from tests.api import Api

TOKEN = "t0ken-that-must-not-show"

SOURCES = """
sources:
  - name: shop
    schema: raw_shop
    config:
      meta:
        syncline:
          connector: http
          base_url: ${SHOP_API_URL}
          auth: {type: bearer, token: "${SHOP_API_TOKEN}"}
          paginator: {type: page_number, base_page: 1, total_path: total_pages}
          data_selector: data
          retries: 2
          backoff: 0.01
          max_wait: 0.5
          timeout: 60
    tables:
      - name: people
        config: {meta: {syncline: {path: /people, key: id}}}
  - name: files
    schema: raw_files
    config: {meta: {syncline: {connector: file, path: data}}}
    tables:
      - name: visits
        config: {meta: {syncline: {path: visits.jsonl, key: id}}}
      - name: prices
        config: {meta: {syncline: {path: prices.csv, key: id}}}
"""

PEOPLE = """
{{ config(materialized='versioned', unique_key='email') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as person_id,
    {{ typed('name', 'text') }} as name,
    {{ typed('email', 'text', required=true) }} as email,
    {{ typed('age', 'integer') }} as age,
    {{ typed('born', 'date') }} as born,
    {{ typed('kind', 'text') }} as kind,
    {{ typed('generation', 'bigint') }} as generation
from {{ source('shop', 'people') }}
"""

VISITS = """
{{ config(materialized='versioned', unique_key='visit_id') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as visit_id,
    {{ typed('place', 'text') }} as place
from {{ source('files', 'visits') }}
"""

PRICES = """
{{ config(materialized='versioned', unique_key='price_id') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as price_id,
    {{ typed('amount', 'numeric') }} as amount
from {{ source('files', 'prices') }}
"""

TESTS = """
models:
  - name: people
    description: People.
    data_tests: [nobody_is_slow]
    columns:
      - name: kind
        description: What kind of person.
        data_tests:
          - accepted_values: {arguments: {values: [guest, member]}}
"""

SLOW_TEST = """
{% test nobody_is_slow(model) %}
select _key from {{ model }} where case when name = 'slow' then pg_sleep(20) is null end
{% endtest %}
"""
"""A test of the data that takes 20 seconds where somebody is called slow."""


def person(number: int, **changes: Any) -> dict[str, Any]:
    """A record that fits the entity people."""
    made = {"id": number, "name": f"name {number}", "email": f"p{number}@example.com", "age": 20 + number % 50}
    return made | {"born": "1990-01-31", "kind": "guest", "generation": 1} | changes


def row(record: Mapping[str, Any]) -> dict[str, Any]:
    """The row of people that the record gives."""
    rest = {name: record[name] for name in ("name", "email", "age", "kind", "generation")}
    return {"person_id": record["id"], **rest, "born": date.fromisoformat(record["born"])}


def rows(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What people holds after a run that nothing disturbed: rows by key."""
    return {str(record["id"]): row(record) for record in records}


def people(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [person(number, **changes) for number in range(1, count + 1)]


class Watcher:
    """Remembers what a run says and when; `on_step` is called as each step begins."""

    def __init__(self, on_step: Callable[[str], None] | None = None) -> None:
        self.notes: list[str] = []
        self.blocking: list[int] = []
        self._on_step = on_step

    def waiting(self, blocking: list[int]) -> None:
        self.blocking = blocking

    def step(self, name: str) -> None:
        if self._on_step:
            self._on_step(name)

    def stream_progress(self, label: str, records: int) -> None: ...
    def stream_done(self, label: str, load: Mapping[str, Any]) -> None: ...
    def entities(self, names: list[str]) -> None: ...
    def entity(self, name: str, status: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def event(self, level: str, name: str, detail: Mapping[str, Any]) -> None: ...


class FailedRun(SynclineError):  # noqa: N818 (it is a result, never raised)
    """How a run failed: message, hint and exit code, whether it is in the report or was raised."""

    def __init__(self, message: str, hint: str | None, exit_code: int) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


class Bench:
    """A project in `root` whose database `reset` makes anew; one warm dbt process serves all runs in this process."""

    def __init__(self, server_dsn: str, template: str, root: Path, api: Api, name: str) -> None:
        self.root = root
        self.api = api
        self.dsn = make_conninfo(server_dsn, dbname=name)
        self._server_dsn = server_dsn
        self._template = template
        self._name = name
        self._engine: pipeline.Engine | None = None
        create_project(root)
        (root / "data").mkdir()
        self.models = root / "dbt_project" / "models"
        self.macros = root / "dbt_project" / "macros"
        self.tests = root / "dbt_project" / "tests"
        self.tests.mkdir()
        self.reset()

    # the project

    def reset(self) -> None:
        """Bring back the project's files, an empty database and an API in good health with 50 people."""
        self.api.reset()
        self.api.token = TOKEN
        if self._engine is not None:
            try:
                # The test before may have failed in the middle: its answers are not this one's.
                self._engine.dbt.parse()
            except (SynclineError, KeyError):
                self._close_engine()
        self.api.records["people"] = people(50)
        files = {
            self.models / "sources.yml": SOURCES,
            self.models / "people.sql": PEOPLE,
            self.models / "visits.sql": VISITS,
            self.models / "prices.sql": PRICES,
            self.models / "models.yml": TESTS,
            self.macros / "nobody_is_slow.sql": SLOW_TEST,
            self.root / ".env": f'DATABASE_URL="{self.dsn}"\nSHOP_API_URL={self.api.url}\nSHOP_API_TOKEN={TOKEN}\n',
        }
        for file in [*self.models.iterdir(), *self.tests.iterdir()]:
            if file not in files:
                file.unlink()
        for file, content in files.items():
            self.write(file, content)
        self.write_lines("visits.jsonl", [{"id": 1, "place": "here"}, {"id": 2, "place": "there"}])
        self.write_lines("prices.csv", ["id,amount", "1,10.50", "2,20"])
        self.drop_database()
        with psycopg.connect(self._server_dsn, autocommit=True) as admin:
            statement = sql.SQL("create database {} template {}")
            admin.execute(statement.format(sql.Identifier(self._name), sql.Identifier(self._template)))

    def drop_database(self) -> None:
        with psycopg.connect(self._server_dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(self._name)))

    def write(self, file: Path, content: str) -> None:
        """Write a file where it says something else: dbt parses anew what has a new time."""
        if not file.exists() or file.read_text() != content:
            file.write_text(content)

    def write_model(self, name: str, content: str) -> None:
        self.write(self.models / f"{name}.sql", content)

    def write_lines(self, name: str, lines: Iterable[Any]) -> None:
        """Write a data file; lines that are bytes or text are written as they are."""
        raws = [
            line if isinstance(line, bytes) else line.encode() if isinstance(line, str) else json.dumps(line).encode()
            for line in lines
        ]
        (self.root / "data" / name).write_bytes(b"".join(raw + b"\n" for raw in raws))

    # runs

    @property
    def engine(self) -> pipeline.Engine:
        if self._engine is None:
            self._engine = pipeline.Engine(read_project(self.root), self.dsn)
        self._engine.project = read_project(self.root)
        return self._engine

    def close(self) -> None:
        self._close_engine()
        self.drop_database()

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine.dbt.close()
            self._engine = None

    def run(self, *sources: str, watcher: Watcher | None = None, **options: Any) -> dict[str, Any]:
        """Run and return the report; with no source named, the shop's."""
        wanted = RunOptions(sources=sources or ("shop",), **options)
        try:
            return pipeline.run(self.engine, wanted, watcher or Watcher())
        except SynclineError:
            raise
        except BaseException:
            # A defect: other tests get a process of dbt that is in step.
            self._close_engine()
            raise

    def sync(self, *sources: str, **options: Any) -> dict[str, Any]:
        """Run; the run has to succeed."""
        report = self.run(*sources, **options)
        assert report["errors"] == [], report["errors"]
        assert report["status"] == "succeeded"
        return report

    def fail(self, *sources: str, **options: Any) -> FailedRun:
        """Run; the run has to fail. Return its one error."""
        try:
            report = self.run(*sources, **options)
        except SynclineError as error:
            return FailedRun(error.message, error.hint, error.exit_code)
        assert report["status"] == "failed", report
        (error,) = report["errors"]
        return FailedRun(error["message"], error["hint"], error["exit_code"])

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "syncline", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command: its secrets are in .env alone."""
        return os.environ | {"DATABASE_URL": self.dsn}

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of its own process in the project."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that starts no dbt, in this process: as `cli`, and quick."""
        with chdir(self.root):
            ended = CliRunner().invoke(main, arguments, env=self.environment)
        if ended.exception and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return subprocess.CompletedProcess(arguments, ended.exit_code, ended.stdout, ended.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and go on; nobody reads what it says before it has ended."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    # what is there

    def connect(self) -> db.Connection:
        return db.connect(self.dsn)

    def query(self, statement: str, *arguments: Any) -> list[dict[str, Any]]:
        with self.connect() as connection:
            return [dict(row) for row in connection.execute(statement, arguments).fetchall()]

    def value(self, statement: str, *arguments: Any) -> Any:
        return next(iter(self.query(statement, *arguments)[0].values()))

    def current(self, entity: str = "people") -> dict[str, Any]:
        rows = self.query(f"select * from {entity}_current order by _key")
        return {row.pop("_key"): row for row in rows}

    def next(self, entity: str = "people") -> dict[str, Any]:
        rows = self.query(f"select * from {entity}_next order by _key")
        return {row.pop("_key"): row for row in rows}

    def live(self, stream: str = "shop.people") -> dict[str, Any]:
        rows = self.query(f"select _key, payload from raw_{stream}")
        return {row["_key"]: row["payload"] for row in rows}

    def errors(self, **wanted: Any) -> list[dict[str, Any]]:
        with self.connect() as connection:
            return [dict(row) for row in db.call(connection, "list_errors", wanted.get("entity"), wanted.get("stream"))]

    def state(self, entity: str = "people", stream: str = "shop.people") -> dict[str, Any]:
        """What readers see of an entity and what is kept of its stream: the same again where nothing was changed."""
        builds = "select current_version, current_build, next_build, held_at from syncline.entities where entity = %s"
        return {
            "current": self.current(entity),
            "next": self.next(entity),
            "builds": self.query(builds, entity),
            "publications": self.query("select * from syncline.publications order by 1"),
            "revisions": self.revisions(stream),
        }

    def revisions(self, stream: str = "shop.people") -> list[dict[str, Any]]:
        columns = "_key, _hash, _first_load, _gone_load, payload::text"
        return self.query(f"select {columns} from raw_{stream}_json order by _key, _first_load")

    def verify(self, entity: str = "people") -> None:
        """Assert that delta is right and that next shows what current does, where no candidate waits."""
        with self.connect() as connection:
            assert db.call(connection, "verify", entity) == []
        if self.value("select next_build from syncline.entities where entity = %s", entity) is None:
            assert self.next(entity) == self.current(entity)

    def runs(self) -> list[dict[str, Any]]:
        """The runs, oldest first."""
        return self.query("select * from syncline.runs order by run_id")

    @contextmanager
    def holding(self, statement: str) -> Iterator[psycopg.Connection[Any]]:
        """Hold what the statement locks until the block ends."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement)  # type: ignore[arg-type]
            yield connection
            connection.rollback()

    def wait_until(self, statement: str, seconds: float = 30) -> None:
        """Wait until the query gives true."""
        until = time.monotonic() + seconds
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not (connection.execute(statement).fetchone() or [False])[0]:  # type: ignore[arg-type]
                assert time.monotonic() < until, f"never came true: {statement}"
                time.sleep(0.02)

    def wait_for_step(self, step: str, seconds: float = 30) -> None:
        self.wait_until(
            f"select exists (select from syncline.steps where step = '{step}' and status = 'running')", seconds
        )

    def wait_for_lock(self, pattern: str, seconds: float = 30) -> None:
        """Wait until another session waits for a lock in a statement like this."""
        self.wait_until(
            f"""select exists (
                select from pg_stat_activity
                where wait_event_type = 'Lock' and query ilike '%{pattern}%' and datname = current_database()
            )""",
            seconds,
        )

    def terminate(self, condition: str = "true") -> int:
        """End the sessions on the database that meet the condition, all but this one; return how many."""
        ended = "select pg_terminate_backend(pid) as ended from pg_stat_activity"
        where = f"datname = current_database() and pid <> pg_backend_pid() and {condition}"
        return len(self.query(f"{ended} where {where}"))
