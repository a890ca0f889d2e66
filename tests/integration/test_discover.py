"""discover against live sources: what it writes runs unedited, what is there is kept, and drift is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from psycopg.conninfo import make_conninfo

from syncline.cli import main
from syncline.scaffold import create_project
from tests.api import Api, Reply

TOKEN = "t0ken-that-must-not-show"
SECRET = "Ada-Lovelace-of-the-sample"

SOURCES = """\
# Where records come from.
sources:
  - name: replica
    schema: raw_replica
    config:
      meta:
        syncline:
          connector: postgres  # the shop's
          dsn: ${REPLICA_URL}
  - name: api
    schema: raw_api
    config:
      meta:
        syncline:
          connector: http
          base_url: ${API_URL}
          auth: {type: bearer, token: "${API_TOKEN}"}
          paginator: {type: page_number, base_page: 1, total_path: total_pages}
          data_selector: data
          retries: 1
          backoff: 0.01
    tables:
      - name: people
        config: {meta: {syncline: {path: /people, key: id}}}
"""

SHOP = f"""
    create table customers (
        id bigint primary key, name varchar(80), "order" integer, tags text[], address jsonb, updated_at timestamptz
    );
    insert into customers
    select n, '{SECRET} ' || n, n, array['a', 'b'], '{{"city": "x"}}', now() from generate_series(1, 30) as n;
    create table orders (
        id uuid primary key default gen_random_uuid(), customer_id bigint, placed_on date, total numeric(10, 2)
    );
    insert into orders (customer_id, placed_on, total)
    select 1 + n % 30, current_date, 1.5 from generate_series(1, 50) as n;
    create table lines (order_id uuid, line_no integer, qty integer, primary key (order_id, line_no));
    insert into lines select id, n, 1 from orders, generate_series(1, 2) as n;
    create table "user" (login text, note text);
    insert into "user" values ('a', 'b');
    create table "Odd Names" ("Id" integer primary key, "Some.Thing" text, "Birth Date" date);
    create view nothing as select 1 as id where false;
"""


class Shop:
    """A new project, a database for it, and a database with a shop that it reads."""

    def __init__(self, root: Path, dsn: str, replica: str, api: Api) -> None:
        self.root, self.dsn, self.replica, self.api = root, dsn, replica, api
        create_project(root)
        self.models = root / "dbt_project" / "models"
        self.sources = self.models / "sources.yml"
        self.sources.write_text(SOURCES)
        (root / ".env").write_text(
            f'DATABASE_URL="{dsn}"\nREPLICA_URL="{replica}"\nAPI_URL={api.url}\nAPI_TOKEN={TOKEN}\n'
        )

    def call(self, *arguments: str) -> Result:
        with chdir(self.root):
            return CliRunner().invoke(main, arguments, env={"DATABASE_URL": self.dsn})

    def done(self, *arguments: str) -> Any:
        """Run a command that has to succeed; return its JSON."""
        result = self.call(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def change(self, statement: str) -> None:
        with psycopg.connect(self.replica) as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    def rows(self, entity: str) -> list[Any]:
        with psycopg.connect(self.dsn) as connection:
            query = sql.SQL("select * from {} order by 1").format(sql.Identifier(f"{entity}_current"))
            return connection.execute(query).fetchall()

    def files(self) -> dict[str, str]:
        return {str(file.relative_to(self.models)): file.read_text() for file in self.models.rglob("*.*")}


@pytest.fixture
def shop(tmp_path: Path, database: str, server_dsn: str) -> Iterator[Shop]:
    name = f"{psycopg.conninfo.conninfo_to_dict(database)['dbname']}_shop"
    api = Api(TOKEN)
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        made = Shop(tmp_path / "shop", database, make_conninfo(server_dsn, dbname=name), api)
        made.change(SHOP)
        yield made
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    api.close()


def test_what_is_written_runs_unedited(shop: Shop) -> None:
    """After discover, a run publishes every table of the database; no file that was written holds a record's value."""
    found = shop.done("discover", "replica")
    assert {row["stream"]: row["key"] for row in found["streams"]} == {
        "customers": ["id"],
        "orders": ["id"],
        "lines": ["order_id", "line_no"],
        "replica_user": [],
        "odd_names": ["Id"],
        "nothing": [],
    }
    assert next(row["skipped"] for row in found["streams"] if row["stream"] == "odd_names") == ["Some.Thing"]
    assert SECRET not in "".join(shop.files().values())
    lines = iter(shop.sources.read_text().splitlines())
    assert all(line in lines for line in SOURCES.splitlines())
    assert "{to: ref('customers'), field: id}" in (shop.models / "replica" / "_replica_models.yml").read_text()
    report = shop.done("run", "replica")
    assert report["status"] == "succeeded"
    assert {name: entity["rows"] for name, entity in report["entities"].items()} == {
        "customers": 30,
        "orders": 50,
        "lines": 100,
        "replica_user": 1,
        "odd_names": 0,
        "nothing": 0,
    }
    assert report["row_errors"] == 0
    assert shop.done("verify")["problems"] == {}


def test_what_is_there_is_kept(shop: Shop) -> None:
    """A second discover writes nothing; a model that was edited, or one under another name, stays as it is."""
    shop.done("discover", "replica", "--stream", "customers")
    (shop.models / "replica" / "customers.sql").rename(shop.models / "buyers.sql")
    before = shop.files()
    again = shop.done("discover", "replica", "--stream", "customers")
    assert (again["streams"][0]["kept"], again["streams"][0]["written"], again["files"]) == (["buyers"], [], [])
    assert shop.files() == before
    shop.done("discover", "replica", "--stream", "orders")
    after = shop.files()
    assert {name: after[name] for name in before if name.endswith(".sql")} == {
        name: text for name, text in before.items() if name.endswith(".sql")
    }
    assert "replica/orders.sql" in after
    assert after["replica/_replica_models.yml"].startswith(before["replica/_replica_models.yml"])
    assert "{to: ref('buyers'), field: id}" in after["replica/_replica_models.yml"]


@pytest.mark.parametrize("settings", ["table: public.customers, key: id", "table: customers", "key: id"])
def test_a_stream_is_known_by_what_it_reads(shop: Shop, settings: str) -> None:
    """A declared stream that reads a table is that table's, however it says so; its model follows its name."""
    declared = f"    tables:\n      - name: customers\n        config: {{meta: {{syncline: {{{settings}}}}}}}\n"
    shop.sources.write_text(SOURCES.replace("  - name: api", f"{declared}  - name: api"))
    before = shop.sources.read_text()
    found = shop.done("discover", "replica", "--stream", "customers")
    assert (found["streams"][0]["is_new"], found["streams"][0]["written"]) == (False, ["customers"])
    assert shop.sources.read_text() == before


def test_a_stream_under_another_name_is_known(shop: Shop) -> None:
    """A stream that reads a table under a name of its own is not declared a second time."""
    declared = "    tables:\n      - name: buyers\n        config: {meta: {syncline: {table: customers}}}\n"
    shop.sources.write_text(SOURCES.replace("  - name: api", f"{declared}  - name: api"))
    names = {row["stream"]: row["written"] for row in shop.done("discover", "replica")["streams"]}
    assert names["buyers"] == ["buyers"]
    assert "customers" not in names
    assert shop.done("run", "replica", "--entity", "buyers")["entities"]["buyers"]["rows"] == 30


def test_an_entity_of_the_same_name_is_not_touched(shop: Shop) -> None:
    """Where another model has the stream's name, the new one gets the source's name before it."""
    (shop.models / "orders.sql").write_text("select 1 as one")
    assert shop.done("discover", "replica", "--stream", "orders")["streams"][0]["written"] == ["replica_orders"]
    assert (shop.models / "orders.sql").read_text() == "select 1 as one"


def test_a_dry_run_writes_nothing(shop: Shop) -> None:
    """What would be written is printed, file by file."""
    before = shop.files()
    files = shop.done("discover", "replica", "--dry-run")["files"]
    assert set(files) >= {"dbt_project/models/sources.yml", "dbt_project/models/replica/customers.sql"}
    assert "typed('updated_at', 'timestamptz')" in files["dbt_project/models/replica/customers.sql"]
    assert shop.files() == before
    assert "would write customers" in shop.call("discover", "replica", "--dry-run").stdout


def test_a_source_is_declared_too(shop: Shop) -> None:
    """With --connector and --set no file has to be written by hand; the variable stays a variable."""
    (shop.models / "sources.yml").unlink()
    shop.done("discover", "store", "--connector", "postgres", "--set", "dsn=${REPLICA_URL}", "--stream", "customers")
    assert "dsn: ${REPLICA_URL}" in (shop.models / "store" / "store.yml").read_text()
    assert shop.done("run", "store")["entities"]["customers"]["rows"] == 30
    again = shop.call("discover", "store", "--connector", "postgres", "--set", "dsn=${REPLICA_URL}")
    assert (again.exit_code, "already" in again.stderr) == (2, True)


def test_drift(shop: Shop) -> None:
    """--diff names streams and fields that came or went, and types that no longer fit; the rest is no drift."""
    shop.done("discover", "replica")
    assert shop.done("discover", "replica", "--diff") == {"source": "replica", "drift": False, "differences": []}
    shop.change(
        """
        alter table customers drop column tags;
        alter table customers add column phone text;
        alter table customers alter column "order" type text using 'no ' || "order";
        alter table orders alter column total type bigint;
        alter table orders alter column customer_id type numeric using customer_id + 0.5;
        drop table lines;
        create table returns (id integer primary key)
        """
    )
    drift = shop.done("discover", "replica", "--diff")
    told = {(row["stream"], row["change"], row["path"]) for row in drift["differences"]}
    assert drift["drift"] is True
    assert told == {
        ("customers", "gone_field", "tags"),
        ("customers", "new_field", "phone"),
        ("customers", "type", "order"),
        ("orders", "type", "customer_id"),
        ("lines", "gone_stream", None),
        ("returns", "new_stream", None),
    }
    text = shop.call("discover", "replica", "--diff").stdout
    assert "customers.order is text; the model takes it as integer" in text
    assert SECRET not in text


def test_declared_streams_of_an_api_get_models(shop: Shop) -> None:
    """An API that does not say what it has is read where its streams are declared; nested lists are entities."""
    shop.api.records["people"] = [
        {
            "id": n,
            "name": f"{SECRET} {n}",
            "address": {"city": "x", "geo": {"lat": 1.5}},
            "orders": [{"sku": "a", "price": 3}] * (n % 3),
            "languages": ["en"],
            "updatedAt": "2026-01-31T10:00:00Z",
        }
        for n in range(1, 31)
    ]
    found = shop.done("discover", "api")
    assert found["streams"][0]["written"] == ["people", "people_orders"]
    model = (shop.models / "api" / "people.sql").read_text()
    assert "{{ typed('address.geo.lat', 'numeric') }} as address_geo_lat" in model
    assert "{{ typed('updatedAt', 'timestamptz') }} as updated_at" in model
    assert SECRET not in "".join(shop.files().values())
    assert shop.sources.read_text() == SOURCES
    report = shop.done("run", "api")
    assert (report["status"], report["row_errors"]) == ("succeeded", 0)
    assert {name: entity["rows"] for name, entity in report["entities"].items()} == {"people": 30, "people_orders": 30}
    assert shop.rows("people_orders")[0][1:4] == (1, 1, "a")


def test_an_api_that_describes_itself(shop: Shop) -> None:
    """What an OpenAPI document lists is declared, beside the streams that are there, and runs."""
    shop.api.records = {
        "people": [{"id": n, "name": "x"} for n in range(1, 31)],
        "visits": [{"id": n, "person_id": 1 + n % 30, "on": "2026-01-31"} for n in range(1, 51)],
    }
    listed = {"type": "object", "properties": {"data": {"type": "array", "items": {"type": "object"}}}}
    answer = {"get": {"responses": {"200": {"content": {"application/json": {"schema": listed}}}}}}
    document = {"openapi": "3.0.0", "info": {}, "paths": {"/people": answer, "/visits": answer}}

    def serve(path: str, page: int) -> Reply:
        return Reply(document) if path == "openapi.json" else shop.api.serve(path, page)

    shop.api.answer = serve
    found = shop.done("discover", "api")
    assert [(row["stream"], row["is_new"], row["key"]) for row in found["streams"]] == [
        ("people", False, ["id"]),
        ("visits", True, ["id"]),
    ]
    report = shop.done("run", "api")
    assert {name: entity["rows"] for name, entity in report["entities"].items()} == {"people": 30, "visits": 50}
    assert shop.done("discover", "api", "--diff")["drift"] is False


def test_why_a_stream_has_no_model(shop: Shop) -> None:
    """What the API says to a stream is told instead of a model, and one that cannot be read is not declared."""
    listed = {"type": "object", "properties": {"data": {"type": "array", "items": {"type": "object"}}}}
    answer = {"get": {"responses": {"200": {"content": {"application/json": {"schema": listed}}}}}}
    document = {"openapi": "3.0.0", "info": {}, "paths": {"/people": answer, "/visits": answer}}
    shop.api.answer = lambda path, _: Reply(document) if path == "openapi.json" else Reply({}, 403)
    found = shop.done("discover", "api")
    assert [(row["stream"], row["is_new"], row["written"]) for row in found["streams"]] == [
        ("visits", False, []),
        ("people", False, []),
    ]
    assert all("answered 403" in row["problem"] for row in found["streams"])
    assert shop.sources.read_text() == SOURCES
    assert "answered 403" in " ".join(shop.call("discover", "api").stdout.split())


def test_secrets_that_a_tap_says(shop: Shop) -> None:
    """What a tap says before it fails is told without the secrets of a source that is yet to be declared."""
    says = "import json, sys; sys.exit('refused: ' + json.load(open(sys.argv[-1]))['token'])"
    (shop.root / "tap.py").write_text(says)
    with (shop.root / ".env").open("a") as file:
        file.write("CRM_TOKEN=another-token-that-must-not-show\n")
    command = f"command=[{sys.executable}, tap.py, --discover]"
    config = 'config={token: "${CRM_TOKEN}"}'
    result = shop.call("discover", "crm", "--connector", "singer", "--set", command, "--set", config)
    assert result.exit_code == 1
    assert "its last lines: refused: ${CRM_TOKEN}" in " ".join(result.stderr.split())
    assert "must-not-show" not in result.output


def test_files_are_found(shop: Shop) -> None:
    """A folder of files needs nothing but its name."""
    data = shop.root / "data"
    data.mkdir()
    (data / "visits.jsonl").write_text('{"id": 1, "no": "2026-01-31"}\n{"id": 2, "no": null}\n')
    (data / "prices.csv").write_text("code,amount\na,10.50\nb,20\n")
    shop.done("discover", "files", "--connector", "file", "--set", "path=data")
    report = shop.done("run", "files")
    assert {name: entity["rows"] for name, entity in report["entities"].items()} == {"visits": 2, "prices": 2}
    assert "- name: 'no'\n" in (shop.models / "files" / "_files_models.yml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("discover", "nix"), "there is no source named 'nix'"),
        (("discover", "replica", "--stream", "nix"), "replica has no stream 'nix'"),
        (("discover", "replica", "--set", "a=b"), "--set belongs to --connector"),
        (("discover", "new", "--connector", "nix"), "which there is not"),
        (("discover", "new", "--connector", "postgres", "--set", "dsn"), "--set takes NAME=VALUE"),
        (("discover", "new", "--connector", "postgres", "--set", "nix=1"), "unknown setting 'nix'"),
        (
            ("discover", "new", "--connector", "http", "--set", "params={a: 1"),
            "--set params: its value is no valid YAML",
        ),
        (("discover", "new", "--connector", "http", "--set", 'params={a: "${NIX}"}'), "setting 'base_url' is missing"),
        (("discover", "hook", "--connector", "push"), "cannot tell what hook has"),
    ],
)
def test_wrong_usage(shop: Shop, arguments: tuple[str, ...], message: str) -> None:
    """What cannot be done ends with exit code 2 and says why; nothing is written."""
    before = shop.files()
    result = shop.call(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert shop.files() == before
