"""The postgres connector against a real Postgres: what it reads, in what order, as of when, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from syncline.config import Stream, StreamSettings, convert
from syncline.connectors import Context, Fetch, Page
from syncline.connectors.postgres.connector import PostgresConnector, PostgresSource, PostgresStream
from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError

STREAM = Stream("replica", "people", ("id",), StreamSettings(key="id"), {}, Path("sources.yml"))
SECRET = "hush-hush-secret"


class Replica:
    """The database that is read, with a connection to change it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection = psycopg.connect(dsn, autocommit=True)

    def execute(self, text: str) -> None:
        self.connection.execute(text)

    def open(self, **source: Any) -> PostgresConnector:
        settings = convert({"dsn": self.dsn, **source}, PostgresSource, "source replica")
        return PostgresConnector(settings, Context(Path()))

    def pages(
        self, stream: dict[str, Any] | None = None, *, source: dict[str, Any] | None = None, **fetch: Any
    ) -> list[Page]:
        connector = self.open(**(source or {}))
        shape = convert(stream or {}, PostgresStream, "stream replica.people")
        try:
            return list(connector.read(Fetch(stream=STREAM, settings=shape, **fetch)))
        finally:
            connector.close()

    def records(self, stream: dict[str, Any] | None = None, **fetch: Any) -> list[dict[str, Any]]:
        return [json.loads(record) for page in self.pages(stream, **fetch) for record in page.records]

    def fail(self, stream: dict[str, Any] | None = None, **fetch: Any) -> SourceError:
        with pytest.raises(SourceError) as caught:
            self.pages(stream, **fetch)
        assert SECRET not in f"{caught.value.message} {caught.value.hint}"
        return caught.value


@pytest.fixture
def replica(empty_database: str) -> Iterator[Replica]:
    replica = Replica(empty_database)
    replica.execute("create table people (id bigint primary key, name text, updated_at timestamptz)")
    yield replica
    replica.connection.close()


def fill(replica: Replica, first: int, last: int) -> None:
    replica.execute(
        f"""
        insert into people
        select n, 'name ' || n, timestamptz '2026-01-01 00:00+00' + n * interval '1 hour'
        from generate_series({first}, {last}) as n
        """
    )


INCREMENTAL = {"incremental": {"cursor_path": "updated_at"}}


def test_a_table_comes_whole(replica: Replica) -> None:
    """All rows, as objects by column name, in pages of bounded size."""
    replica.execute("insert into people select n, repeat('x', 1000), null from generate_series(1, 5000) as n")
    pages = replica.pages()
    assert len(pages) > 2
    assert max(sum(map(len, page.records)) for page in pages) < 2 << 20
    assert sorted(json.loads(record)["id"] for page in pages for record in page.records) == list(range(1, 5001))
    assert [page.cursor for page in pages] == [None] * len(pages)


def test_an_empty_table_has_no_records(replica: Replica) -> None:
    """No rows are no records and no error: the loader judges whether that can be."""
    assert replica.records() == []


def test_columns_and_queries(replica: Replica) -> None:
    """A stream may be some columns, a table of another schema, or what a query gives."""
    fill(replica, 1, 2)
    replica.execute("create schema other; create table other.things (id int); insert into other.things values (7)")
    assert replica.records({"columns": ["id"]}) == [{"id": 1}, {"id": 2}]
    assert replica.records({"table": "other.things"}) == [{"id": 7}]
    query = "select id, upper(name) as name from people where id > 1;"
    assert replica.records({"query": query}) == [{"id": 2, "name": "NAME 2"}]
    with pytest.raises(ConfigurationError, match="query beside"):
        replica.pages({"query": "select 1", "columns": ["id"]})


def test_types_survive(replica: Replica) -> None:
    """Each value's JSON text, cast back to its type, is the value."""
    replica.execute("create type mood as enum ('glad', 'sad')")
    values = {
        "numeric": "12345678901234567890.123456789",
        "numeric(10,2)": "NaN",
        "double precision": "Infinity",
        "real": "0.1",
        "bigint": "9223372036854775807",
        "timestamptz": "2026-03-01 12:00:00.123456+05:30",
        "timestamp": "infinity",
        "date": "-infinity",
        "time": "23:59:59.999999",
        "interval": "1 mon -2 days 03:04:05.6",
        "bytea": "\\x00ff10",
        "text[]": '{a,"b c",NULL}',
        "int[]": "{{1,2},{3,4}}",
        "json": '{"b": 1,  "a": [null]}',
        "jsonb": '{"a": 1.10}',
        "int4range": "[1,5)",
        "tstzrange": '["2026-01-01 00:00:00+00",)',
        "uuid": "6b1f2c60-5b1c-4a43-9d3c-6f2d0c5f9a11",
        "inet": "10.0.0.0/8",
        "mood": "sad",
        "boolean": "true",
        "text": 'a "quoted" \\ text\nwith ä and \t',
    }
    columns = ", ".join(f'"{kind}" {kind}' for kind in values)
    replica.execute(f"create table kinds ({columns})")
    replica.connection.execute(
        f"insert into kinds values ({', '.join(f'%s::{kind}' for kind in values)})", list(values.values())
    )
    (page,) = replica.pages({"table": "kinds"})
    for kind in values:
        # Arrays come as JSON arrays; typed() turns them into the type.
        back = f"(select array_agg(x) from jsonb_array_elements_text(%(r)s::jsonb -> '{kind}') as x)::{kind}"
        one = f"(%(r)s::jsonb ->> '{kind}')::{kind}"
        if kind == "int[]":
            back = f"translate(%(r)s::jsonb ->> '{kind}', '[]', '{{}}')::{kind}"
        expression = back if kind.endswith("[]") else one
        compared = "jsonb" if kind == "json" else "text"
        row = replica.connection.execute(
            f'select ({expression})::{compared} = "{kind}"::{compared} from kinds', {"r": page.records[0].decode()}
        ).fetchone()
        assert row == (True,), kind


@pytest.mark.parametrize("kind", ["text", "time", "people"])
def test_a_column_may_have_any_name(replica: Replica, kind: str) -> None:
    """A column named as an alias might be is a column, whatever its type."""
    replica.execute(f"create table odd (id int, t {kind}, row_to_json int)")
    replica.execute("insert into odd values (1, null, 2)")
    for stream in ({"table": "odd"}, {"query": "select * from odd"}):
        assert replica.records(stream) == [{"id": 1, "t": None, "row_to_json": 2}]


def test_streams_of_a_load_see_one_moment(replica: Replica) -> None:
    """What is committed while a load goes on is in none of its streams."""
    fill(replica, 1, 1)
    connector = replica.open()
    shape = PostgresStream()
    try:
        first = [r for page in connector.read(Fetch(stream=STREAM, settings=shape)) for r in page.records]
        fill(replica, 2, 2)
        second = [r for page in connector.read(Fetch(stream=STREAM, settings=shape)) for r in page.records]
    finally:
        connector.close()
    assert first == second
    assert len(replica.records()) == 2


def test_reading_takes_no_lock_that_hurts(replica: Replica) -> None:
    """While a load reads, the table takes rows and an index without waiting, and the reader can write nothing."""
    fill(replica, 1, 10)
    connector = replica.open()
    pages = connector.read(Fetch(stream=STREAM, settings=PostgresStream()))
    next(pages)
    replica.execute("set lock_timeout = '200ms'")
    fill(replica, 11, 12)
    replica.execute("create index on people (name)")
    pages.close()
    connector.close()
    replica.execute("create sequence numbers")
    assert "25006" in replica.fail({"query": "select nextval('numbers') as id"}).message


def test_increments_follow_a_column(replica: Replica) -> None:
    """The first brings all, the next what has at least the greatest value so far; rows without a value every time."""
    fill(replica, 1, 3)
    replica.execute("insert into people values (9, 'never', null)")
    pages = replica.pages(INCREMENTAL)
    cursor = pages[-1].cursor
    assert cursor == {"value": "2026-01-01T03:00:00+00:00"}
    fill(replica, 4, 5)
    assert [r["id"] for r in replica.records(INCREMENTAL, cursor=cursor)] == [9, 3, 4, 5]
    only = {"incremental": {"cursor_path": "updated_at", "on_cursor_value_missing": "exclude", "lag": 3600}}
    assert [r["id"] for r in replica.records(only, cursor=cursor)] == [2, 3, 4, 5]


def test_numeric_cursors_keep_their_digits(replica: Replica) -> None:
    """A cursor of more digits than a double holds is exact."""
    replica.execute("create table things (id numeric)")
    replica.execute("insert into things values (12345678901234567890.1), (12345678901234567890.2)")
    stream = {"table": "things", "incremental": {"cursor_path": "id"}}
    cursor = replica.pages(stream)[-1].cursor
    assert cursor == {"value": "12345678901234567890.2"}
    assert len(replica.records(stream, cursor=cursor)) == 1


def test_a_backfill_is_a_range(replica: Replica) -> None:
    """Both ends are included, and rows without a value are not in it."""
    fill(replica, 1, 9)
    replica.execute("insert into people values (99, 'never', null)")
    found = replica.records(INCREMENTAL, since="2026-01-01 03:00Z", until="2026-01-01 05:00Z")
    assert [record["id"] for record in found] == [3, 4, 5]


def test_a_fetch_goes_on_behind_any_page(replica: Replica) -> None:
    """From each page's position on, the rest comes: no row is missing, and none comes twice."""
    replica.execute(
        "insert into people select n, repeat('x', 400), timestamptz '2026-01-01' + (n / 1000) * interval '1 s'"
        " from generate_series(1, 9000) as n"
    )
    pages = replica.pages(INCREMENTAL)
    assert len(pages) > 3
    whole = [record for page in pages for record in page.records]
    seen = 0
    for page in pages:
        seen += len(page.records)
        rest = [r for left in replica.pages(INCREMENTAL, position=page.position) for r in left.records]
        assert rest == whole[seen:]


def test_rows_without_a_key_are_no_place_to_go_on_from(replica: Replica) -> None:
    """Where only the column orders the rows, a cut among equal ones could lose some: the fetch begins anew."""
    fill(replica, 1, 3)
    stream = replace(STREAM, key=())
    connector = replica.open()
    shape = convert(INCREMENTAL, PostgresStream, "stream")
    assert [page.position for page in connector.read(Fetch(stream=stream, settings=shape))] == [None]
    connector.close()


def test_an_increment_needs_the_columns_it_goes_by(replica: Replica) -> None:
    """A cursor or key that `columns` leaves out is named, before a record is taken."""
    fill(replica, 1, 3)
    error = replica.fail({"columns": ["name", "updated_at"], **INCREMENTAL})
    assert error.message == "replica.people: column _syncline_row.id does not exist"
    assert "`columns`" in (error.hint or "")


def test_values_in_an_error_are_not_shown(replica: Replica) -> None:
    """What a function of the source says of a value stays there."""
    replica.execute(
        f"create function fail() returns int language plpgsql as $$ begin raise exception 'bad {SECRET}'; end $$"
    )
    assert "P0001" in replica.fail({"query": "select fail() as id"}).message


def test_the_key_comes_from_the_catalog(replica: Replica) -> None:
    """A table's primary key, in its order, is the key of a stream that declares none; without one that is said."""
    replica.execute("create table pairs (a int, b int, c int, primary key (b, a)); create table bare (a int)")
    connector = replica.open()
    assert connector.find_key(STREAM, PostgresStream()) == ("id",)
    assert connector.find_key(STREAM, PostgresStream(table="pairs")) == ("b", "a")
    for stream in (PostgresStream(table="bare"), PostgresStream(query="select 1 as a")):
        with pytest.raises(ConfigurationError, match="no primary key"):
            connector.find_key(STREAM, stream)
    connector.close()


def test_what_is_found(replica: Replica) -> None:
    """Each table and view is found with its key, its columns' types, and some records."""
    fill(replica, 1, 200)
    replica.execute("create type mood as enum ('glad'); create table moods (id int, mood mood, more mood[])")
    replica.execute("create view names as select name from people")
    connector = replica.open()
    found = {each.name: each for each in connector.discover()}
    connector.close()
    assert found["people"].settings == {"table": "people", "key": "id"}
    assert found["people"].columns == {"id": "bigint", "name": "text", "updated_at": "timestamp with time zone"}
    assert len(found["people"].records) == 100
    assert found["names"].settings == {"table": "names"}
    assert found["moods"].columns == {"id": "integer", "mood": "text", "more": "text[]"}


def test_a_schema_without_tables_is_said_to_be(replica: Replica) -> None:
    """A schema that is misspelled, or that the user may not read, is no source without streams."""
    connector = replica.open(schema="nosuch")
    with pytest.raises(SourceError, match="the schema nosuch has no table"):
        list(connector.discover())
    connector.close()


def test_a_wrong_password_is_no_secret(replica: Replica) -> None:
    """Credentials that are refused, or missing, are said to be, and not shown."""
    given = conninfo_to_dict(replica.dsn)
    dsn = make_conninfo("", **(given | {"user": "nobody_here", "password": SECRET}))
    error = replica.fail(source={"dsn": dsn})
    assert "refused the user" in error.message
    assert SECRET not in repr(PostgresSource(dsn=dsn))
    error = replica.fail(source={"dsn": make_conninfo("", **(given | {"dbname": "nowhere"}))})
    assert error.message == "replica.people: there is no such database"


def test_nobody_there(replica: Replica) -> None:
    """A host that is not found and a port where nobody listens are named; both may be there later."""
    for dsn in ("postgresql://user@nowhere.invalid/x", "postgresql://user@127.0.0.1:1/x"):
        error = replica.fail(source={"dsn": dsn, "connect_timeout": 3})
        assert isinstance(error, SourceUnavailableError)
        assert "does not answer" in error.message


def test_what_was_dropped_or_retyped(replica: Replica) -> None:
    """A table or column that is gone, or a cursor that no longer fits its column, is named with what to do."""
    assert replica.fail({"table": "gone"}).message == "replica.people: there is no such table"
    assert '"gone"' in replica.fail({"columns": ["gone"]}).message
    assert '"gone"' in replica.fail({"incremental": {"cursor_path": "gone"}}).message
    replica.execute("alter table people alter updated_at type int using 1")
    error = replica.fail(INCREMENTAL, cursor={"value": "2026-01-01T03:00:00+00:00"})
    assert "reset-cursor" in (error.hint or "")


def test_a_slow_statement_and_a_held_lock(replica: Replica) -> None:
    """A statement that takes too long, and a table that is locked, end the load instead of waiting for ever."""
    error = replica.fail({"query": "select pg_sleep(5)::text as id"}, source={"statement_timeout": 0.2})
    assert "took longer" in error.message
    with psycopg.connect(replica.dsn) as other:
        other.execute("lock table people")
        error = replica.fail(source={"lock_timeout": 0.2})
        assert isinstance(error, SourceUnavailableError)
        other.rollback()


def test_a_connection_that_is_cut(replica: Replica) -> None:
    """A server that ends the session in the middle fails the load; half a table never passes for a whole one."""
    replica.execute("insert into people select n, repeat('x', 1000), null from generate_series(1, 100000) as n")
    connector = replica.open()
    pages = connector.read(Fetch(stream=STREAM, settings=PostgresStream()))
    next(pages)
    replica.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and query like 'copy%'"
    )
    with pytest.raises(SourceUnavailableError):
        list(pages)
    connector.close()
