"""The dlt connector on real dlt sources: records, state, hints, failures, and SQL databases."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from syncline.config import Stream, StreamSettings, convert
from syncline.connectors import Fetch, Page
from syncline.connectors.dlt.connector import DltConnector, DltSource, DltStream
from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError, SynclineError
from tests.integration.test_singer_connector import LoggingContext
from tests.projects import Bench
from tests.taps import dlt_shop

# What dlt uses of SQLAlchemy is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dlt.*")

VALUE = "v4lue-that-must-not-show"
PEOPLE = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}]
ORDERS = [{"id": 1, "at": "2024-01-05"}, {"id": 2, "at": "2024-01-07"}]


class Source:
    """A dlt source in a project folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.context = LoggingContext(root)
        self.settings: dict[str, Any] = {"resource": "tests.taps.dlt_shop:shop", "arguments": {"token": "x"}}

    def connector(self) -> DltConnector:
        return DltConnector(convert(self.settings, DltSource, "source src"), self.context)

    def fetch(
        self, name: str = "people", cursor: Any = None, since: Any = None, until: Any = None, **settings: Any
    ) -> Fetch:
        stream = Stream("src", name, ("id",), StreamSettings(key="id"), {}, Path("sources.yml"))
        shape = convert(settings, DltStream, f"stream src.{name}")
        return Fetch(stream=stream, settings=shape, cursor=cursor, since=since, until=until)

    def pages(self, name: str = "people", cursor: Any = None, **settings: Any) -> list[Page]:
        connector = self.connector()
        pages = list(connector.read(self.fetch(name, cursor, **settings)))
        connector.close()
        for page in pages:
            # What is saved in between is JSON.
            page.cursor = json.loads(json.dumps(page.cursor))
        return pages

    def records(self, *items: Any) -> list[bytes]:
        dlt_shop.shelf["items"]["people"] = list(items)
        return [record for page in self.pages() for record in page.records]

    def ids(self, *arguments: Any, **settings: Any) -> list[int]:
        pages = self.pages(*arguments, **settings)
        return [json.loads(record)["id"] for page in pages for record in page.records]

    def is_increment(self, name: str, **settings: Any) -> bool:
        fetch = self.fetch(name, **settings)
        return self.connector().is_increment(fetch.stream, fetch.settings)

    def fail(self, kind: type[SynclineError] = SourceError, *arguments: Any, **settings: Any) -> SynclineError:
        with pytest.raises(kind) as caught:
            self.pages(*arguments, **settings)
        return caught.value


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(dlt_shop, "shelf", {"items": {"people": PEOPLE, "orders": ORDERS}})
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Source(tmp_path)


# Records


class Color(enum.Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (decimal.Decimal("10.50"), "10.50"),
        (decimal.Decimal("12345678901234567890.123456789"), "12345678901234567890.123456789"),
        (10**30, "1" + "0" * 30),
        (datetime.datetime(2024, 1, 2, 3, 4, 5, 6), '"2024-01-02T03:04:05.000006"'),
        (datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), '"2024-01-02T00:00:00Z"'),
        (pd.Timestamp("2024-01-02", tz="UTC"), '"2024-01-02T00:00:00+00:00"'),
        (pd.NaT, "null"),
        (pd.NA, "null"),
        (float("nan"), "null"),
        (datetime.date(2024, 1, 2), '"2024-01-02"'),
        (datetime.time(1, 2), '"01:02:00"'),
        (datetime.timedelta(hours=25), '"P1DT3600S"'),
        (pd.Timedelta(hours=25), '"P1DT3600S"'),
        (uuid.UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
        (b"\x00\xff", '"AP8="'),
        (np.int64(5), "5"),
        (np.float64(1.5), "1.5"),
        (np.array([1, 2]), "[1,2]"),
        (Color.RED, '"red"'),
        (Text("x"), '"x"'),
        ({1: {"a": (1, 2)}}, '{"1":{"a":[1,2]}}'),
    ],
    ids=repr,
)
def test_values(source: Source, value: Any, text: str) -> None:
    """Each type of Python's has its JSON: decimals keep their digits, times are ISO 8601, bytes base64."""
    assert source.records({"id": 1, "v": value}) == [f'{{"id":1,"v":{text}}}'.encode()]


def test_pendulum(source: Source) -> None:
    """Times of dlt's own kind are times."""
    import pendulum

    (record,) = source.records({"id": 1, "v": pendulum.datetime(2024, 1, 2), "d": pendulum.date(2024, 1, 2)})
    assert json.loads(record) == {"id": 1, "v": "2024-01-02T00:00:00+00:00", "d": "2024-01-02"}


def test_items(source: Source) -> None:
    """Dicts, lists of them, Arrow tables and batches, and data frames are records, in the order they came."""
    table = pa.table({"id": [3, 4], "at": pa.array([datetime.datetime(2024, 1, 1), None], pa.timestamp("ns"))})
    frame = pd.DataFrame({"id": [7, 8], "at": [pd.Timestamp("2024-01-01"), pd.NaT], "x": [1.5, float("nan")]})
    batch = pa.record_batch({"id": [5, 6], "d": [decimal.Decimal("1.50"), None]})
    assert source.records({"id": 1}, [{"id": 2}], table, batch, frame, [table.slice(0, 1)], [], None) == [
        b'{"id":1}',
        b'{"id":2}',
        b'{"id":3,"at":"2024-01-01T00:00:00"}',
        b'{"id":4,"at":null}',
        b'{"id":5,"d":1.50}',
        b'{"id":6,"d":null}',
        b'{"id":7,"at":"2024-01-01T00:00:00","x":1.5}',
        b'{"id":8,"at":null,"x":null}',
        b'{"id":3,"at":"2024-01-01T00:00:00"}',
    ]


def test_pages_are_of_ten_thousand(source: Source) -> None:
    """A long item is cut into pages."""
    dlt_shop.shelf["items"]["people"] = [pa.table({"id": range(25_000)}), [{"id": 1}] * 100]
    assert [len(page.records) for page in source.pages()] == [10_000, 10_000, 5_100]


def test_bad_records(source: Source) -> None:
    """A record that no JSON can hold is a bad one whose key can be read."""
    dlt_shop.shelf["items"]["people"] = [{"id": 1}, {"id": 2, "v": object()}, {"id": 3, "v": "\ud800"}]
    (page,) = source.pages()
    assert page.unreadable == {1: "a value that JSON cannot hold", 2: "text that is no Unicode"}
    assert [json.loads(record)["id"] for record in page.records] == [1, 2, 3]


@pytest.mark.parametrize("item", [5, "text", [1], pa.array([1])])
def test_items_that_are_no_records(source: Source, item: Any) -> None:
    """Anything else is an error that names its type."""
    dlt_shop.shelf["items"]["people"] = [item]
    assert "which is no record" in source.fail().message


# Sources


def test_every_kind_of_source(source: Source) -> None:
    """A source function, a resource, and a transformer with its parent can be read, more than once."""
    source.settings["arguments"] = {"token": "secret", "region": "us"}
    assert source.ids() == source.ids() == [1, 2]
    assert dlt_shop.shelf["arguments"] == ("secret", "us")
    pages = source.pages("names")
    assert pages[0].records == [b'{"id":1,"upper":"ADA"}', b'{"id":2,"upper":"BOB"}']
    assert source.ids("parallel") == [1, 2]
    assert source.ids("anything", resource="people") == [1, 2]
    source.settings = {"resource": "tests.taps.dlt_shop:alone"}
    assert source.ids("alone") == source.ids("alone") == [1, 2]


def test_streams_side_by_side(source: Source) -> None:
    """Streams read by threads of their own do not see each other's state."""
    connector = source.connector()
    found: dict[int, Any] = {}

    def read(number: int) -> None:
        cursor = {"state": {"sources": {"shop": {"resources": {"Stock Levels": {"page": number}}}}}}
        pages = list(connector.read(source.fetch("stock", cursor, resource="Stock Levels")))
        found[number] = json.loads(pages[0].records[0])["id"]

    threads = [threading.Thread(target=read, args=[number]) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number + 1 for number in range(10)}


def test_reading_that_stops_early(source: Source) -> None:
    """A generator that is not read to its end is closed."""
    closed: list[bool] = []

    def endless() -> Iterator[Any]:
        try:
            while True:
                yield {"id": 1}
        finally:
            closed.append(True)

    dlt_shop.shelf["items"]["people"] = endless()
    pages = source.connector().read(source.fetch())
    assert len(next(pages).records) == 10_000
    pages.close()  # type: ignore[attr-defined]
    dlt_shop.shelf.clear()
    assert closed == [True]


# State


def test_increments(source: Source) -> None:
    """An incremental goes on from the greatest value, and dlt's deduplication survives between loads."""
    (page,) = source.pages("orders")
    assert len(page.records) == 2
    dlt_shop.shelf["items"]["orders"] = [*ORDERS, {"id": 3, "at": "2024-01-07"}, {"id": 4, "at": "2024-01-08"}]
    assert source.ids("orders", page.cursor) == [3, 4]
    assert dlt_shop.shelf["asked"] == [("2024-01-01", None), ("2024-01-07", None)]


def test_state_that_code_keeps(source: Source) -> None:
    """What a resource writes into its state is there at the next load."""
    cursor, found = None, []
    for _ in range(3):
        (page,) = source.pages("stock", cursor, resource="Stock Levels")
        cursor = page.cursor
        found += page.records
    assert found == [b'{"shop":1,"id":1}', b'{"shop":1,"id":2}', b'{"shop":1,"id":3}']


def test_state_with_times_and_decimals(source: Source) -> None:
    """Values of the state keep their types."""
    first = datetime.datetime(2024, 1, 5, tzinfo=datetime.UTC)
    dlt_shop.shelf["items"]["orders"] = [{"id": 1, "at": first}]
    source.settings["resource"] = "tests.taps.dlt_shop:shop"
    (page,) = source.pages("snapshot", mode="increment")
    dlt_shop.shelf["items"]["orders"] = [{"id": 1, "at": first}, {"id": 2, "at": first + datetime.timedelta(days=1)}]
    assert source.ids("snapshot", page.cursor, mode="increment") == [2]
    assert dlt_shop.shelf["asked"][-1] == (first, None)


def test_cursor_of_another_connector(source: Source) -> None:
    """What another connector has saved for the stream is no state of dlt's."""
    assert source.ids("orders", {}) == source.ids("orders", {"value": 7}) == [1, 2]


def test_full_load_has_no_state(source: Source) -> None:
    """A full load starts without a state and saves none."""
    (page,) = source.pages("orders")
    (full,) = source.pages("orders", page.cursor, mode="full")
    assert (len(full.records), full.cursor) == (2, None)


def test_failed_increment_saves_nothing(source: Source) -> None:
    """Only the last page has a cursor: a load that failed leaves the state as it was."""
    many = [{"id": number, "at": "2024-01-05"} for number in range(10_001)]
    dlt_shop.shelf["items"]["orders"] = [many, ValueError(VALUE)]
    pages = source.connector().read(source.fetch("orders"))
    assert next(pages).cursor is None
    with pytest.raises(SourceError):
        next(pages)


def test_is_increment(source: Source) -> None:
    """Increments are what has an incremental or is merged, unless it replaces; a mode has the last word."""
    wanted = {"orders": True, "people": False, "Stock Levels": True, "names": False, "snapshot": False}
    assert {name: source.is_increment("any", resource=name) for name in wanted} == wanted
    assert source.is_increment("people", mode="increment")
    assert not source.is_increment("orders", mode="full")


def test_backfill(source: Source) -> None:
    """A range becomes the incremental's initial and end value, both included, and uses no state."""
    dlt_shop.shelf["items"]["orders"] = [{"id": day, "at": f"2024-01-0{day}"} for day in range(1, 8)]
    assert source.ids("orders", since="2024-01-02", until="2024-01-04") == [2, 3, 4]
    assert source.ids("orders", since="2024-01-06") == [6, 7]
    assert source.ids("orders", until="2024-01-02") == [1, 2]
    assert dlt_shop.shelf["asked"][0] == ("2024-01-02", "2024-01-04")
    assert "no incremental" in source.fail(ConfigurationError, "people", since="2024", mode="increment").message
    assert "the beginning" in source.fail(ConfigurationError, "snapshot", until="2024", mode="increment").message


# Failures


def test_failure_in_the_code(source: Source) -> None:
    """The error names the exception and the place in the project's code, and no value."""
    lines = ["import dlt", "@dlt.resource", "def broken():", "    yield {'id': 1}", f"    raise ValueError('{VALUE}')"]
    (source.root / "broken_shop.py").write_text("\n".join(lines))
    source.settings = {"resource": "broken_shop:broken"}
    error = source.fail(SourceError, "broken")
    assert error.message == "src.broken: ValueError in broken_shop.py, line 5"
    assert VALUE not in str(error.hint)
    (source.root / "broken_module.py").write_text(f"x = 1\nraise OSError('{VALUE}')")
    source.settings = {"resource": "broken_module:broken"}
    assert source.fail().message == "broken_module:broken: OSError in broken_module.py, line 2"


@pytest.mark.parametrize("error", [ConnectionError(VALUE), TimeoutError(VALUE)])
def test_failure_that_may_pass(source: Source, error: Exception) -> None:
    """A connection that fails is a source that may answer later."""
    dlt_shop.shelf["items"]["people"] = [error]
    message = source.fail(SourceUnavailableError).message
    assert type(error).__name__ in message
    assert "tests.taps.dlt_shop, line" in message
    assert VALUE not in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resource": "no_such_module_here:shop"}, "there is no module no_such_module_here"),
        ({"resource": "tests.taps.dlt_shop:nothing"}, "tests.taps.dlt_shop has no nothing"),
        ({"resource": "tests.taps.dlt_shop"}, "names no function"),
        ({"resource": "tests.taps.dlt_shop:no_source"}, "gives list, which is no dlt source"),
        ({"resource": "tests.taps.dlt_shop:shop"}, "dlt has no value for token"),
    ],
)
def test_wrong_settings(source: Source, settings: dict[str, Any], message: str) -> None:
    """What is not there is a wrong setting."""
    source.settings = settings
    assert message in source.fail(ConfigurationError).message


def test_resource_that_is_not_there(source: Source) -> None:
    """The hint names the resources that there are."""
    error = source.fail(ConfigurationError, "nobody")
    assert error.message == "src.nobody: the source has no resource 'nobody'"
    assert "orders, parallel, people" in (error.hint or "")


# Discovery


def test_discover(source: Source) -> None:
    """Resources come with key, columns and a sample; one that fails is listed all the same and says why."""
    dlt_shop.shelf["items"] = {"people": [PEOPLE] * 100, "orders": [*ORDERS, ValueError(VALUE)]}
    found = {one.name: one for one in source.connector().discover()}
    assert list(found) == ["orders", "people", "Stock Levels", "names", "snapshot", "parallel"]
    assert found["orders"].settings == {"resource": "orders", "key": "id"}
    assert found["orders"].columns == {"id": "bigint", "total": "numeric"}
    assert found["Stock Levels"].settings == {"resource": "Stock Levels", "key": ["shop", "id"]}
    assert len(found["people"].records) == 100
    assert [json.loads(record)["id"] for record in found["orders"].records] == [1, 2]
    assert (found["orders"].problem or "").startswith("orders: ValueError in ")
    assert VALUE not in (found["orders"].problem or "")
    assert found["people"].problem is None


# SQL databases


@pytest.fixture
def database_file(tmp_path: Path) -> Path:
    file = tmp_path / "shop.db"
    with sqlite3.connect(file) as connection:
        connection.executescript(
            """
            create table orders (
                id integer primary key, total numeric(10, 2), updated_at timestamp, note text, scan blob
            );
            insert into orders values
                (1, 10.50, '2024-01-01 00:00:00', 'é', x'00ff'), (2, 20, '2024-01-02 10:00:00', null, null);
            """
        )
    connection.close()
    return file


def sql_settings(file: Path) -> dict[str, Any]:
    return {"resource": "dlt.sources.sql_database:sql_database", "arguments": {"credentials": f"sqlite:///{file}"}}


def test_sql_database(source: Source, database_file: Path) -> None:
    """The SQL source of dlt reads a table of SQLite; its columns and key are discovered."""
    source.settings = sql_settings(database_file)
    (found,) = source.connector().discover()
    assert (found.name, found.settings) == ("orders", {"resource": "orders", "key": "id"})
    assert found.columns == {
        "id": "bigint",
        "total": "numeric",
        "updated_at": "timestamp",
        "note": "text",
        "scan": "text",
    }
    (page,) = source.pages("orders")
    assert page.records == [
        '{"id":1,"total":10.50,"updated_at":"2024-01-01T00:00:00","note":"é","scan":"AP8="}'.encode(),
        b'{"id":2,"total":20.00,"updated_at":"2024-01-02T10:00:00","note":null,"scan":null}',
    ]
    assert not source.is_increment("orders")
    with sqlite3.connect(database_file) as connection:
        connection.execute("update orders set scan = null")
    connection.close()
    for backend in ("pyarrow", "pandas"):
        source.settings["arguments"] |= {"backend": backend}
        assert source.ids("orders") == [1, 2]


HOW_TO = (Path(__file__).parents[2] / "docs" / "how-to" / "dlt-source.md").read_text(encoding="utf-8")
WHOLE, INCREMENTAL = re.findall(r"^```yaml\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)
(CODE,) = re.findall(r"^```python\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)


def test_how_to(bench: Bench, database_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configurations of the how-to load as they are printed: a table whole, then what changed by its column."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "legacy", raising=False)
    for model in ("people", "visits", "prices"):
        (bench.models / f"{model}.sql").unlink()
    with (bench.root / ".env").open("a") as file:
        file.write(f"LEGACY_URL=sqlite:///{database_file}\n")

    def execute(statement: str) -> None:
        with sqlite3.connect(database_file) as connection:
            connection.execute(statement)
        connection.close()

    def load(*options: str) -> dict[str, Any]:
        result = bench.call("load", "legacy", *options)
        assert result.returncode == 0, result.stderr
        return bench.query("select * from syncline.loads order by load_id desc limit 1")[0]

    bench.write(bench.models / "sources.yml", WHOLE)
    assert (load()["kind"], load()["records_new"]) == ("full", 0)
    (bench.root / "legacy.py").write_text(CODE)
    bench.write(bench.models / "sources.yml", INCREMENTAL)
    load()
    execute("insert into orders values (3, 30, '2024-01-03 00:00:00', null, null)")
    execute("update orders set note = 'not seen' where id = 1")
    row = load()
    assert (row["kind"], row["records_read"], row["records_new"]) == ("increment", 1, 1)
    notes = {key: value["note"] for key, value in bench.live("legacy.orders").items()}
    assert notes == {"1": "é", "2": None, "3": None}
    assert load()["records_read"] == 0
    assert load("--full-refresh")["records_changed"] == 1
    assert bench.live("legacy.orders")["1"]["note"] == "not seen"


def test_range_of_a_sql_table(source: Source, database_file: Path) -> None:
    """Text becomes a time without a zone where the column has none."""
    (source.root / "ranged_shop.py").write_text(CODE)
    source.settings = {"resource": "ranged_shop:tables", "arguments": {"url": f"sqlite:///{database_file}"}}
    assert source.ids("orders", since="2024-01-02", until="2024-01-02T10:00:00") == [2]
    assert source.ids("orders", since="2023-01-01", until="2024-01-01T00:00:00Z") == [1]
    assert "cursor's type" in source.fail(ConfigurationError, "orders", since="soon").message


def test_nothing_is_written(tmp_path: Path) -> None:
    """Using dlt leaves no file behind, neither in the home folder nor in the project, and sends no telemetry."""
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tests.integration.test_dlt_connector import Source, dlt_shop, ORDERS\n"
        "dlt_shop.shelf['items'] = {'orders': ORDERS}\n"
        "print(len(Source(Path('.')).pages('orders')[0].records))\n"
    )
    command = [sys.executable, "-B", "-c", code, str(Path(__file__).parents[2])]
    ended = subprocess.run(
        command, cwd=project, env=os.environ | {"HOME": str(home)}, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "2\n"
    assert [*home.rglob("*"), *project.rglob("*")] == []
