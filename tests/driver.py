"""Drives one stream and its entities step by step: the real loader and the real SQL, without dbt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from syncline import control, db
from syncline import publish as publishing
from syncline.config import read_project
from syncline.connectors import open_connector
from syncline.load import LoadOptions, load_stream
from syncline.migrate import migrate

PEOPLE = {"id": ("bigint", True), "name": ("text", False), "age": ("integer", False), "email": ("text", True)}
"""The columns of the usual entity: JSON path to type and whether it is required."""


def typed(path: str, kind: str, *, required: bool = False, record: str = "payload") -> str:
    """What the macro typed() compiles to; tests/integration/test_typed.py holds the two against each other."""
    raw = f"({record} ->> '{path}')"
    mark = json.dumps({"path": path, "type": kind, "required": required})
    reject = f"syncline.reject(_key, _ordinal, '{path}', '{kind}', {raw}, {str(required).lower()})"
    rejected = f'({reject} collate "default")'
    if kind == "text":
        value = f"coalesce({raw}, {rejected})" if required else raw
        return f"{value} /* syncline:typed {mark} */"
    value = raw
    if kind.endswith("]"):
        of_json = "true" if kind.startswith("json") else "false"
        value = f"syncline.array_literal(({record} #> '{{{path}}}'), {of_json})"
    test = f"syncline.is_valid({value}, '{kind}'){'' if required else ' is not false'}"
    return f"case when {test} then ({value})::{kind} else {rejected}::{kind} end /* syncline:typed {mark} */"


class Driver:
    """A project with the file source `files` and its stream `people`, on a database of its own."""

    def __init__(self, dsn: str, root: Path) -> None:
        self.dsn = dsn
        self.root = root
        self.configure()
        self.connection = db.connect(dsn)
        migrate(self.connection, self.project)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def configure(self, **settings: Any) -> None:
        """Write the project's YAML; settings are the stream's, over `path` and `key`."""
        (self.root / "models").mkdir(exist_ok=True)
        (self.root / "dbt_project.yml").write_text("name: driven\nmodel-paths: [models]\n")
        stream = {"path": "people.jsonl", "key": "id", **settings}
        declared = {
            "sources": [
                {
                    "name": "files",
                    "schema": "raw_files",
                    "config": {"meta": {"syncline": {"connector": "file"}}},
                    "tables": [{"name": "people", "config": {"meta": {"syncline": stream}}}],
                }
            ]
        }
        (self.root / "models" / "sources.yml").write_text(json.dumps(declared))
        self.project = read_project(self.root)

    # load

    def load(self, records: Iterable[Mapping[str, Any] | bytes | str], **options: Any) -> dict[str, Any]:
        """Load these records in full; texts and bytes are written as they are."""
        lines = [
            record
            if isinstance(record, bytes)
            else (record if isinstance(record, str) else json.dumps(record)).encode()
            for record in records
        ]
        (self.root / "people.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        source = self.project.sources["files"]
        connector = open_connector(self.project, source)
        with db.connect(self.dsn) as connection:
            return load_stream(
                self.project, source, connector, source.streams["people"], connection, LoadOptions(**options)
            )

    def live(self) -> dict[str, Any]:
        """The live records by key."""
        rows = self.connection.execute("select _key, payload from raw_files.people").fetchall()
        return {row["_key"]: row["payload"] for row in rows}

    # build, check, publish

    def sql(self, columns: Mapping[str, tuple[str, bool]] = PEOPLE) -> str:
        """The compiled SQL of an entity with these columns."""
        listed = ", ".join(f'{typed(path, kind, required=must)} as "{path}"' for path, (kind, must) in columns.items())
        return f"select _key, {listed} from {self.relation}"

    @property
    def relation(self) -> str:
        """How dbt would render source('files', 'people')."""
        return f'"{self.connection.info.dbname}"."raw_files"."people"'

    def build(self, sql: str | None = None, entity: str = "people", **settings: Any) -> int | None:
        """Build the entity's inactive version; return the candidate's number, None where nothing changed."""
        spec = {
            "engine": db.call_value(self.connection, "engine_version"),
            "entity": entity,
            "schema": "public",
            "sql": sql or self.sql(),
            "unique_key": ["email"],
            "on_missing": "delete",
            "delta": "auto",
            "indexes": [],
            "streams": [{"source": "files", "stream": "people", "relation": self.relation}],
            "inputs": [],
            "redact": False,
            "max_delete_ratio": 1,
        } | settings
        build: int | None = db.call_value(self.connection, "build", json.dumps(spec))
        return build

    def check(self, *builds: int | None) -> None:
        """Mark candidates as a run does whose tests passed."""
        run_id = control.request_run(self.connection, [], [], {}, "manual")
        control.claim_run(self.connection, run_id)
        with self.connection.transaction():
            self.connection.execute(
                "update syncline.builds set run_id = %s, attempt = 1 where build_id = any(%s)", (run_id, list(builds))
            )
        names = [row["entity"] for row in self.connection.execute("select entity from syncline.entities")]
        control.mark_checked(self.connection, names)
        control.finish_run(self.connection, "succeeded")
        self.connection.execute("select set_config('syncline.run_id', '', false)")

    def publish(self, *builds: int | None) -> None:
        """Check these candidates and publish them; None stands for a build that changed nothing."""
        numbers = [build for build in builds if build is not None]
        if numbers:
            self.check(*numbers)
            publishing.publish(self.connection, numbers, patience=2)

    def sync(self, records: Iterable[Mapping[str, Any] | bytes | str], **settings: Any) -> None:
        """Load, build and publish."""
        self.load(records, allow_mass_delete=True)
        self.publish(self.build(**settings))

    # what is there

    def current(self, entity: str = "people") -> dict[str, Any]:
        return self._rows(f"public.{entity}_current")

    def next(self, entity: str = "people") -> dict[str, Any]:
        return self._rows(f"public.{entity}_next")

    def _rows(self, relation: str) -> dict[str, Any]:
        rows = self.connection.execute(f"select * from {relation} order by _key").fetchall()
        return {row.pop("_key"): row for row in rows}

    def delta(self, entity: str = "people") -> set[str]:
        return {row["_key"] for row in self.connection.execute(f"select _key from public.{entity}_delta")}

    def verify(self, entity: str = "people") -> list[dict[str, Any]]:
        return db.call(self.connection, "verify", entity)

    def errors(self, **wanted: Any) -> list[dict[str, Any]]:
        rows = db.call(self.connection, "list_errors", wanted.get("entity"), wanted.get("stream"), None, None)
        return [dict(row) for row in rows]

    def last_build(self) -> dict[str, Any]:
        return dict(
            self.connection.execute("select * from syncline.builds order by build_id desc limit 1").fetchone() or {}
        )


def person(number: int, **changes: Any) -> dict[str, Any]:
    """A record that fits the usual entity."""
    return {
        "id": number,
        "name": f"name {number}",
        "age": 20 + number % 50,
        "email": f"p{number}@example.com",
    } | changes


def people(count: int) -> list[dict[str, Any]]:
    return [person(number) for number in range(1, count + 1)]
