"""adopt: an entity starts from a table that is there, and its first run shows exactly what the source has otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from syncline import control, db, pipeline
from syncline.adopt import adopt
from syncline.cli import main
from syncline.config import read_project
from syncline.errors import SynclineError
from syncline.migrate import migrate
from syncline.run_options import RunOptions
from syncline.scaffold import create_project
from tests.projects import Watcher

SOURCES = """\
sources:
  - name: files
    schema: raw_files
    config: {meta: {syncline: {connector: file, path: data}}}
    tables:
      - name: people
        config: {meta: {syncline: {path: people.jsonl, key: id}}}
      - name: lines
        config: {meta: {syncline: {path: lines.jsonl, key: [orderId, nr]}}}
      - name: notes
        config: {meta: {syncline: {path: notes.jsonl, key: none}}}
"""


def person(number: int, **changes: Any) -> dict[str, Any]:
    made = {"id": number, "name": f"name {number}", "born": "1990-01-31", "address": {"city": "here"}, "tags": ["a"]}
    return made | {"orders": [{"sku": "a"}, {"sku": "b"}]} | changes


class Landed:
    """A project whose files have 40 people, on a database that another tool has filled before."""

    def __init__(self, root: Path, dsn: str) -> None:
        self.root, self.dsn = root, dsn
        create_project(root)
        (root / ".env").write_text(f'DATABASE_URL="{dsn}"\n')
        self.models = root / "dbt_project" / "models"
        (self.models / "sources.yml").write_text(SOURCES)
        (root / "data").mkdir()
        self.write("people", [person(number) for number in range(1, 41)])
        self.write("lines", [{"orderId": "a,1", "nr": number, "qty": 1} for number in range(1, 4)])
        self.write("notes", [{"text": "x"}])
        self._engine: pipeline.Engine | None = None
        self.done("discover", "files")

    def write(self, stream: str, records: list[Any]) -> None:
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (self.root / "data" / f"{stream}.jsonl").write_text(lines)

    @property
    def engine(self) -> pipeline.Engine:
        """One warm dbt process serves all that a test does."""
        if self._engine is None:
            self._engine = pipeline.Engine(read_project(self.root), self.dsn)
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dbt.close()

    def adopt(self, table: str, entity: str, *key: str) -> dict[str, Any]:
        return adopt(self.engine, table, entity, key)

    def refuse(self, table: str, entity: str, *key: str) -> tuple[int, str]:
        """Adopt, which has to fail; return the exit code and the message."""
        with pytest.raises(SynclineError) as caught:
            self.adopt(table, entity, *key)
        return caught.value.exit_code, caught.value.message

    def run(self, *entities: str, **options: Any) -> dict[str, Any]:
        """Run these entities of the files; the run has to succeed."""
        wanted = RunOptions(sources=("files",), entities=entities, **options)
        report = pipeline.run(self.engine, wanted, Watcher())
        assert report["errors"] == []
        return report

    def call(self, *arguments: str) -> Result:
        with chdir(self.root):
            return CliRunner().invoke(main, arguments, env={"DATABASE_URL": self.dsn})

    def done(self, *arguments: str) -> Any:
        """Run a command that has to succeed; return its JSON."""
        result = self.call(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    def rows(self, relation: str) -> list[Any]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(f"select * from {relation} order by 1").fetchall()  # type: ignore[arg-type]

    def diff(self, entity: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """What `syncline diff` shows: by key the change, and of an update the new values that differ."""
        shown = {}
        for line in self.call("diff", entity, "--json").stdout.splitlines():
            row = json.loads(line)
            new, old = row["new"] or {}, row["old"] or {}
            changed = {name: value for name, value in new.items() if old.get(name) != value} if old else {}
            shown[row["_key"]] = (row["change"], changed)
        return shown


OLD = """
    create schema old;
    create table old.people (
        id integer, name text, born text, address_city text, tags text[], left_over text, _dlt_id text
    );
    insert into old.people
    select n, 'name ' || n, '1990-01-31', 'here', array['a'], 'x', 'y' from generate_series(1, 39) as n;
    update old.people set name = 'another' where id = 3;
    insert into old.people (id, name) values (99, 'gone')
"""


@pytest.fixture
def landed(tmp_path: Path, database: str) -> Iterator[Landed]:
    made = Landed(tmp_path / "landed", database)
    made.execute(OLD)
    yield made
    made.close()


def test_the_first_run_shows_the_real_differences(landed: Landed) -> None:
    """One row differs, one is new, one is gone, 38 are the same; what was adopted is the way back."""
    before = landed.rows("old.people")
    adopted = landed.done("adopt", "old.people", "--entity", "people")
    assert adopted | {"run_id": 0} == {
        "entity": "people",
        "table": "old.people",
        "key": ["id"],
        "run_id": 0,
        "rows": 40,
        "errors": 0,
        "missing": [],
        "ignored": ["left_over"],
        "loaded": None,
    }
    first = landed.rows("people_current")
    assert [row[1:3] for row in sorted(first, key=lambda row: row[1])] == [row[0:2] for row in before]
    report = landed.run("people", dry_run=True)
    counts = {kind: report["entities"]["people"][kind] for kind in ("inserted", "updated", "deleted", "unchanged")}
    assert counts == {"inserted": 1, "updated": 1, "deleted": 1, "unchanged": 38}
    assert landed.diff("people") == {
        "3": ("updated", {"name": "name 3"}),
        "40": ("inserted", {}),
        "99": ("deleted", {}),
    }
    landed.done("publish")
    assert landed.done("verify")["problems"] == {}
    assert len(landed.rows("people_current")) == 40
    landed.done("rollback", "people")
    assert landed.rows("people_current") == first
    assert landed.done("verify")["problems"] == {}
    assert landed.rows("old.people") == before


def test_equal_rows_are_no_change(landed: Landed) -> None:
    """Where the table is what the source has, the first run writes nothing, and later ones go on by changed keys."""
    landed.execute(
        "delete from old.people where id = 99; update old.people set name = 'name 3' where id = 3;"
        "insert into old.people values (40, 'name 40', '1990-01-31', 'here', '{a}')"
    )
    landed.adopt("old.people", "people")
    for _ in range(2):
        people = landed.run("people")["entities"]["people"]
        assert (people["state"], people["unchanged"], people["version"]) == ("unchanged", 40, 1)
    landed.write("people", [person(number, name="new" if number == 7 else f"name {number}") for number in range(1, 41)])
    people = landed.run("people")["entities"]["people"]
    assert (people["updated"], people["unchanged"]) == (1, 39)
    assert landed.done("verify")["problems"] == {}


def test_a_table_that_dlt_made(landed: Landed) -> None:
    """Rows that dlt has loaded from the same records are no change: its names and its own columns are known."""
    program = """
import json, sys
from urllib.parse import quote
import dlt
from dlt.destinations.impl.postgres.configuration import PostgresCredentials
from psycopg.conninfo import conninfo_to_dict

given = conninfo_to_dict(sys.argv[1])
to = PostgresCredentials()
to.username, to.password, to.database = given["user"], given.get("password") or "unused", given["dbname"]
to.host, to.port = quote(given["host"], safe=""), int(given.get("port") or 5432)
pipeline = dlt.pipeline(
    "people", destination=dlt.destinations.postgres(to), dataset_name="landed", pipelines_dir=sys.argv[3]
)
with open(sys.argv[2]) as lines:
    records = [json.loads(line) for line in lines]
pipeline.run(records, table_name="people", columns={"tags": {"data_type": "json"}, "orders": {"data_type": "json"}})
"""
    data, state = landed.root / "data" / "people.jsonl", landed.root.parent / "dlt"
    ended = subprocess.run(
        [sys.executable, "-c", program, landed.dsn, str(data), str(state)],
        env=os.environ | {"RUNTIME__DLTHUB_TELEMETRY": "false"},
        cwd=landed.root.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    landed.write("people", [person(number, name="new" if number == 7 else f"name {number}") for number in range(1, 41)])
    adopted = landed.adopt("landed.people", "people")
    assert (adopted["rows"], adopted["errors"], adopted["missing"], adopted["ignored"]) == (40, 0, [], ["orders"])
    landed.run("people", dry_run=True)
    assert landed.diff("people") == {"7": ("updated", {"name": "new"})}


def test_keys_of_several_fields_and_lists(landed: Landed) -> None:
    """Keys are written as the loader writes them; an entity of lists has several rows for a key."""
    landed.execute(
        """
        create table old.lines (order_id text, nr integer, qty numeric(10, 2));
        insert into old.lines select 'a,1', n, 1.00 from generate_series(1, 3) as n;
        create table old.orders (person bigint, people_id bigint, place bigint, sku text);
        insert into old.orders select n, n, p, chr(96 + p) from generate_series(1, 40) as n, generate_series(1, 2) as p
        """
    )
    assert landed.adopt("old.lines", "lines")["key"] == ["order_id", "nr"]
    landed.done("load", "files")
    listed = landed.adopt("old.orders", "people_orders", "person")
    assert (listed["rows"], listed["loaded"]) == (80, 80)
    report = landed.run("lines", "people_orders")
    assert {name: entity["state"] for name, entity in report["entities"].items()} == {
        "lines": "unchanged",
        "people_orders": "unchanged",
    }


def test_values_that_do_not_fit(landed: Landed) -> None:
    """They are null with a row error, which the first build closes; so do columns that the table lacks become null."""
    landed.execute("update old.people set born = 'long ago' where id = 5; alter table old.people drop column tags")
    adopted = landed.adopt("old.people", "people")
    assert (adopted["errors"], adopted["missing"]) == (1, ["tags"])
    (error,) = landed.done("errors")["errors"]
    wanted = {"entity": "people", "_key": "5", "column_name": "born", "value": "long ago", "severity": "warning"}
    assert {name: error[name] for name in wanted} == wanted
    landed.run("people", dry_run=True)
    assert landed.diff("people")["5"] == ("updated", {"born": "1990-01-31", "tags": ["a"]})
    assert landed.done("errors")["errors"] == []


def test_a_redacted_stream_shows_no_value(landed: Landed) -> None:
    """Where the stream is redacted, so are the values of the table."""
    file = landed.models / "sources.yml"
    file.write_text(file.read_text().replace("people.jsonl, key: id", "people.jsonl, key: id, redact: true"))
    landed.execute("update old.people set born = 'long ago' where id = 5")
    landed.adopt("old.people", "people")
    (error,) = landed.done("errors")["errors"]
    assert (error["_key"], error["value"]) == ("5", None)


def test_the_guard_judges_the_first_run(landed: Landed) -> None:
    """A table with many rows that the source lacks is not emptied without being asked."""
    landed.execute("insert into old.people (id, name) select n, 'gone' from generate_series(100, 200) as n")
    landed.adopt("old.people", "people")
    wanted = RunOptions(sources=("files",), entities=("people",))
    (error,) = pipeline.run(landed.engine, wanted, Watcher())["errors"]
    assert (error["exit_code"], error["message"]) == (3, "people would lose 102 of its 141 keys")
    assert len(landed.rows("people_current")) == 141


def test_what_cannot_be_adopted(landed: Landed) -> None:
    """What is wrong is said without a value; nothing is left in the way of a table that can be adopted."""
    landed.execute(
        """
        create table old.unnamed as select id as no, name from old.people;
        create table old.twice as select least(id, 4) as id, name from old.people;
        create table old.nulls as select nullif(id, 7) as id, name from old.people
        """
    )
    refuse = landed.refuse
    assert refuse("old.nix", "people") == (2, "there is no table old.nix in the database")
    assert refuse("old.people", "nix") == (2, "there is no entity named 'nix'")
    assert refuse("old.people", "people", "nix") == (2, "old.people has no column nix")
    assert refuse("old.people", "people", "id", "name") == (
        2,
        "the key of files.people is (id), and --key names 2 columns",
    )
    assert refuse("old.people", "notes")[0] == 2
    assert refuse("old.people", "lines") == (2, "old.people has no column named after orderId, the key of files.lines")
    assert refuse("old.people", "people_orders") == (
        2,
        "old.people has no column people_id, place, which is in the unique key of people_orders",
    )
    assert refuse("old.unnamed", "people") == (2, "old.unnamed has no column named after id, the key of files.people")
    assert refuse("old.twice", "people") == (3, "1 keys are in old.twice more than once, by id")
    assert refuse("old.nulls", "people") == (3, "1 rows of old.nulls have no id")
    assert landed.adopt("old.people", "people")["rows"] == 40


def test_a_published_entity_is_left_alone(landed: Landed) -> None:
    """An entity that was published goes on from what it has."""
    landed.run("people")
    before = landed.rows("people_current")
    assert landed.refuse("old.people", "people") == (3, "people is published already")
    assert landed.rows("people_current") == before
    assert landed.done("verify")["problems"] == {}


def test_a_candidate_makes_way(landed: Landed) -> None:
    """An entity that was built but never published can still start from a table."""
    landed.run("people", dry_run=True)
    said = landed.call("adopt", "old.people", "--entity", "people").stdout
    assert said.splitlines()[:3] == [
        "people: 40 rows of old.people are its version 1, by id",
        "left out, for the model lacks them: left_over",
        "39 of the rows have a record that is loaded",
    ]
    assert len(landed.rows("people_current")) == 40
    landed.run("people", dry_run=True)
    assert set(landed.diff("people")) == {"3", "40", "99"}


def test_a_run_of_the_same_source_is_waited_out(landed: Landed) -> None:
    """While another run works on the source, adopt ends at once and leaves nothing in the queue."""
    landed.done("migrate")
    with db.connect(landed.dsn) as other:
        migrate(other)
        control.claim_run(other, control.request_run(other, ["files"], [], {}, "manual"))
        assert landed.refuse("old.people", "people") == (1, "run 1 of the same source is still under way")
        control.finish_run(other, "succeeded")
    assert {run["status"] for run in landed.done("runs")["runs"]} == {"succeeded", "cancelled"}
    assert landed.adopt("old.people", "people")["rows"] == 40
