"""Talks to the process that dbt runs in: starts it, asks it to parse and to build, ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from syncline import db
from syncline.errors import ConfigurationError, ModelError
from syncline.paths import state_folder


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity as dbt knows it. `parents` are those it reads, by ref() or by a relationships test."""

    name: str
    node: str
    schema: str
    streams: tuple[str, ...]
    reads: tuple[str, ...]
    parents: tuple[str, ...]
    max_error_ratio: float
    delta: str


@dataclass(frozen=True, slots=True)
class Downstream:
    """An ordinary model that entities feed, however far; `fingerprint` is that of its code."""

    schema: str
    alias: str
    entities: frozenset[str]
    is_view: bool
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Models:
    """What dbt found in the project: entities, the ordinary models downstream of them, and the tests on entities alone.

    All are by name; a test has the entities it reads.
    """

    entities: Mapping[str, Entity]
    downstream: Mapping[str, Downstream]
    tests: Mapping[str, list[str]]


class Dbt:
    """One warm dbt process for a project, started when it is first needed.

    Its environment holds no secret but the database's password.
    """

    def __init__(self, project: Path, dsn: str, target: str) -> None:
        self._project = project
        self._dsn = dsn
        self._target = target
        self._process: subprocess.Popen[str] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        self._has_pending_parse = False
        self._request = 0

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            state_folder(self._project)
            variables = connection_variables(self._dsn) | {"SYNCLINE_TARGET": self._target, "PYTHONUNBUFFERED": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "syncline.dbt_process", str(self._project)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=os.environ | variables,
                cwd=self._project,
                text=True,
                encoding="utf-8",
            )
        return self._process

    def start_parse(self) -> None:
        """Let the process begin to parse while other work goes on; `parse` takes the answer."""
        self._send({"do": "parse"})
        self._has_pending_parse = True

    def parse(self) -> Models:
        """Return the project's models. Raises ConfigurationError where dbt cannot read them."""
        if not self._has_pending_parse:
            self.start_parse()
        self._has_pending_parse = False
        answer = self._answer(None)
        entities = {
            name: Entity(
                name,
                item["node"],
                item["schema"],
                tuple(item["streams"]),
                tuple(item["reads"]),
                tuple(item["parents"]),
                item["max_error_ratio"],
                item["delta"],
            )
            for name, item in answer["entities"].items()
        }
        downstream = {
            name: Downstream(
                item["schema"], item["alias"], frozenset(item["entities"]), item["is_view"], item["fingerprint"]
            )
            for name, item in answer["downstream"].items()
        }
        return Models(entities, downstream, answer["tests"])

    def build(
        self,
        select: list[str],
        run: tuple[int, int] | None,
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
        *,
        is_exact: bool = False,
    ) -> list[dict[str, Any]]:
        """Build and test what `select` names, for a run or none; return a report for each model and test.

        Where `is_exact`, only the tests named run; else all that are on the models named.
        """
        options = " ".join(db.session_options(run))
        self._send({"do": "build", "select": select, "options": options, "is_exact": is_exact})
        nodes: list[dict[str, Any]] = self._answer(on_event)["nodes"]
        return nodes

    def stop(self) -> None:
        """End the process, whatever it is at; the next request starts another."""
        if self._process is not None:
            self._end(self._process)
            self._process, self._has_pending_parse = None, False

    def close(self) -> None:
        """End the process for good."""
        self.stop()
        self._log.close()

    def _end(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        assert process.stdout
        # The end of its standard input is what ends it, so it never outlives this one.
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _send(self, request: dict[str, Any]) -> None:
        self._request += 1
        process = self._started()
        try:
            assert process.stdin
            process.stdin.write(json.dumps(request | {"request": self._request}) + "\n")
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._died() from None

    def _answer(self, on_event: Callable[[Mapping[str, Any]], None] | None) -> dict[str, Any]:
        process = self._started()
        assert process.stdout
        for line in process.stdout:
            message = json.loads(line)
            if message["request"] != self._request:
                continue  # of a request whose run failed before it took the answer
            if "answer" in message:
                answer: dict[str, Any] = message["answer"]
                if "error" in answer:
                    error = answer["error"]
                    if isinstance(error, dict):
                        raise ConfigurationError(
                            f"dbt: {error['message']}", error["hint"] or "`dbt parse` shows it whole."
                        )
                    raise ConfigurationError(f"dbt: {error}", "`dbt parse` shows it whole.")
                return answer
            if on_event:
                on_event(message)
        raise self._died()

    def _died(self) -> ModelError:
        process = self._started()
        process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        # The next request starts another.
        self.stop()
        return ModelError(
            f"dbt's process ended with status {process.returncode}{': ' + lines[-1] if lines else ''}",
            "Run again; `dbt debug` shows whether dbt works here.",
        )


def connection_variables(dsn: str) -> dict[str, str]:
    """Return libpq's variables for a connection string: what profiles.yml reads."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigurationError("DATABASE_URL is no connection string") from None
    names = {
        name: "PG" + name.upper() for name in ("host", "port", "user", "password", "hostaddr", "passfile", "service")
    }
    names |= {"dbname": "PGDATABASE", "connect_timeout": "PGCONNECT_TIMEOUT", "sslmode": "PGSSLMODE"}
    names |= {"sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY"}
    names |= {"channel_binding": "PGCHANNELBINDING", "target_session_attrs": "PGTARGETSESSIONATTRS"}
    return {variable: str(given[name]) for name, variable in names.items() if given.get(name) is not None}
