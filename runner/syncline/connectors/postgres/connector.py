"""Reads tables and queries of another Postgres, all of a load as of one moment, without a lock that hurts."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from syncline.config import Stream
from syncline.connectors import PAGE_BYTES, SAMPLE_RECORDS, Connector, Context, Fetch, Found, Page
from syncline.connectors.postgres.ahead import read_ahead
from syncline.connectors.postgres.errors import explained
from syncline.connectors.postgres.increment import ColumnIncremental, Follower
from syncline.errors import ConfigurationError, SourceError

Connection = psycopg.Connection[tuple[Any, ...]]
Positive = Annotated[float, msgspec.Meta(gt=0)]

# COPY's binary format: a header before the first row; then, of one column, a count and a length before its value.
_HEADER, _VALUE = 19, 6

# What decides how values are written, so that a record's text depends on its row alone.
_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": "0",
}

# Name, type (a domain's own), and of what kind the type, or an array's element, is.
_COLUMNS = """
    select
        a.attname,
        format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null),
        coalesce(element.typtype, t.typtype)::text,
        coalesce(element.typcategory, t.typcategory)::text,
        format_type(element.oid, null)
    from pg_catalog.pg_attribute as a
    inner join pg_catalog.pg_type as t on a.atttypid = t.oid
    left join pg_catalog.pg_type as element on t.typelem = element.oid and t.typcategory = 'A'
    where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
    order by a.attnum
"""
_KEY = """
    select a.attname
    from pg_catalog.pg_index as i
    cross join lateral unnest(i.indkey::smallint[]) with ordinality as k (number, place)
    inner join pg_catalog.pg_attribute as a on i.indrelid = a.attrelid and k.number = a.attnum
    where i.indrelid = %s::regclass and i.indisprimary
    order by k.place
"""
_TABLES = """
    select c.relname
    from pg_catalog.pg_class as c
    inner join pg_catalog.pg_namespace as n on c.relnamespace = n.oid
    where n.nspname = %s and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
        and has_table_privilege(c.oid, 'select')
    order by c.relname
"""


class PostgresSource(msgspec.Struct, frozen=True, kw_only=True):
    """Another Postgres, best a replica. Timeouts are seconds: of one statement, and of waiting for a lock."""

    dsn: str
    schema: str = "public"
    statement_timeout: Positive = 3600
    lock_timeout: Positive = 5
    connect_timeout: Positive = 10

    def __repr__(self) -> str:
        return "PostgresSource(...)"


class PostgresStream(msgspec.Struct, frozen=True, kw_only=True):
    """A table (`name` or `schema.name`; the stream's own name if not given), some of its columns, or a query."""

    table: str | None = None
    query: str | None = None
    columns: list[str] | None = None
    incremental: ColumnIncremental | None = None


class PostgresConnector(Connector):
    """Reads one database. All streams of a load share one snapshot, so that what refers to each other fits."""

    SourceSettings = PostgresSource
    StreamSettings = PostgresStream
    identifying = ("table",)

    def __init__(self, settings: PostgresSource, context: Context) -> None:
        self._settings = settings
        self._dsn = _connection_string(settings)
        self._holder: Connection | None = None
        self._snapshot = ""
        self._lock = threading.Lock()

    def is_increment(self, stream: Stream, settings: PostgresStream) -> bool:
        return settings.incremental is not None

    def find_key(self, stream: Stream, settings: PostgresStream) -> tuple[str, ...]:
        """Return the columns of the table's primary key; raises ConfigurationError where there is none."""
        key: tuple[str, ...] = ()
        if settings.query is None:
            with self._reading(stream.label) as connection:
                key = _column(connection, _KEY, self._relation(stream, settings).as_string(connection))
        if not key:
            raise ConfigurationError(
                f"{stream.file}: stream {stream.label} has no primary key to tell its rows apart",
                "Set `key` to the columns that do, or to none where the whole row is its key.",
            )
        return key

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the rows as JSON objects, as of the load's snapshot, about a megabyte at a time.

        Raises SourceError where the database refuses, SourceUnavailableError where it is busy or goes away.
        """
        with self._reading(fetch.stream.label) as connection:
            follower = self._follower(fetch, connection)
            query = self._query(fetch, follower, connection)
            for records in read_ahead(partial(_copy, connection, query)):
                if follower is None:
                    yield Page(records)
                    continue
                follower.follow(records)
                yield Page(records, cursor=follower.cursor(), position=follower.position(records))

    def discover(self) -> Iterator[Found]:
        """Yield the tables and views of the schema that this user may read."""
        with self._reading("discover") as connection:
            names = _column(connection, _TABLES, self._settings.schema)
            if not names:
                raise SourceError(
                    f"the schema {self._settings.schema} has no table that this user may read",
                    "Check `schema`, and that the user may use it and select.",
                )
            for name in names:
                relation = sql.Identifier(self._settings.schema, name)
                text = relation.as_string(connection)
                settings: dict[str, Any] = {"table": name}
                if key := _column(connection, _KEY, text):
                    settings["key"] = key[0] if len(key) == 1 else list(key)
                query = sql.SQL("select row_to_json(_syncline_row) from (select * from {} limit {}) as _syncline_row")
                records = [r for page in _copy(connection, query.format(relation, SAMPLE_RECORDS)) for r in page]
                columns = connection.execute(_COLUMNS, (text,)).fetchall()
                yield Found(
                    name=name,
                    settings=settings,
                    records=records,
                    columns={column: _portable(kind, *marks) for column, kind, *marks in columns},
                )

    def close(self) -> None:
        if self._holder is not None:
            self._holder.close()

    # one moment for all

    @contextmanager
    def _reading(self, place: str) -> Iterator[Connection]:
        """Open a connection in a read-only transaction on the load's snapshot; errors name the place and no value."""
        with explained(place):
            with self._lock:
                if self._holder is None:
                    self._holder = self._connect()
                    self._snapshot = _column(self._holder, "select pg_export_snapshot()")[0]
            with self._connect() as connection:
                connection.execute(sql.SQL("set transaction snapshot {}").format(self._snapshot))
                yield connection

    def _connect(self) -> Connection:
        connection = psycopg.connect(self._dsn)
        settings = _SESSION | {
            "statement_timeout": f"{self._settings.statement_timeout * 1000:.0f}",
            "lock_timeout": f"{self._settings.lock_timeout * 1000:.0f}",
        }
        connection.autocommit = True
        for name, value in settings.items():
            connection.execute("select set_config(%s, %s, false)", (name, value))
        connection.autocommit = False
        return connection

    # what to read

    def _relation(self, stream: Stream, settings: PostgresStream) -> sql.Identifier:
        schema, dot, table = (settings.table or stream.name).rpartition(".")
        return sql.Identifier(schema if dot else self._settings.schema, table)

    def _rows(self, stream: Stream, settings: PostgresStream) -> sql.Composable:
        if settings.query is not None:
            if settings.table or settings.columns:
                raise ConfigurationError(f"{stream.label} has a query beside a table or columns", "Choose one.")
            return sql.SQL("(\n{}\n)").format(sql.SQL(settings.query.strip().rstrip(";")))
        relation = self._relation(stream, settings)
        if settings.columns is None:
            return relation
        return sql.SQL("(select {} from {})").format(
            sql.SQL(", ").join(map(sql.Identifier, settings.columns)), relation
        )

    def _follower(self, fetch: Fetch, connection: Connection) -> Follower | None:
        settings: PostgresStream = fetch.settings
        if settings.incremental is None:
            return None
        column, rows = settings.incremental.cursor_path, self._rows(fetch.stream, settings)
        described = connection.execute(sql.SQL("select {} from {} as t limit 0").format(sql.Identifier(column), rows))
        if described.description is None:
            raise AssertionError("a select has columns")
        kind = _column(connection, "select format_type(%s, null)", described.description[0].type_code)[0]
        return Follower(settings.incremental, kind, fetch)

    def _query(self, fetch: Fetch, follower: Follower | None, connection: Connection) -> sql.Composed:
        parts = [
            sql.SQL("select row_to_json(_syncline_row) from {} as _syncline_row").format(
                self._rows(fetch.stream, fetch.settings)
            )
        ]
        if follower is not None:
            parts += follower.clauses(fetch)
        return sql.SQL(" ").join(parts)


def _copy(connection: Connection, query: sql.Composed, stopped: threading.Event | None = None) -> Iterator[list[bytes]]:
    """Yield the JSON values that the query gives, some at a time, as they come over the wire; less once it is stopped.

    Below psycopg's own loop, which waits anew for each row: it takes half of the time.
    """
    records: list[bytes] = []
    size, at = 0, _HEADER + _VALUE
    pgconn = connection.pgconn
    pgconn.send_query(sql.SQL("copy ({}) to stdout (format binary)").format(query).as_bytes(connection))
    is_done = False
    try:
        _check(_result(connection))
        get, socket = pgconn.get_copy_data, connection.fileno()
        while True:
            length, row = get(1)
            if length > at:
                records.append(bytes(row[at:]))
                size += length
                if size > PAGE_BYTES:
                    yield records
                    records, size = [], 0
            elif length == 0:
                if select.select([socket], [], [], 0.5)[0]:
                    pgconn.consume_input()
                elif stopped is not None and stopped.is_set():
                    return
            elif length < 0:
                break
            if length:
                at = _VALUE
        while (result := _result(connection)) is not None:
            _check(result)
        is_done = True
    finally:
        if not is_done:
            connection.close()  # what is still to come is not waited for
    if records:
        yield records


def _result(connection: Connection) -> PGresult | None:
    """Return the next result of the statement under way, None after the last."""
    while connection.pgconn.is_busy():
        select.select([connection.fileno()], [], [])
        connection.pgconn.consume_input()
    return connection.pgconn.get_result()


def _check(result: PGresult | None) -> None:
    if result is not None and result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)


def _column(connection: Connection, query: str, *arguments: Any) -> tuple[Any, ...]:
    """Return the first column of what the query gives."""
    return tuple(row[0] for row in connection.execute(query, arguments or None).fetchall())


def _portable(kind: str, typtype: str, category: str, element: str | None) -> str:
    """Return the type that can hold a column's values in a database that lacks the source's own types."""
    if typtype == "c":
        return "jsonb"
    plain = element or kind
    if typtype == "e" or (category == "U" and plain not in {"uuid", "json", "jsonb", "bytea", "xml"}):
        plain = "text"
    return f"{plain}[]" if element else plain


def _connection_string(settings: PostgresSource) -> str:
    try:
        given = conninfo_to_dict(settings.dsn)
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "the source's dsn is no connection string", "Write postgresql://user:password@host:5432/database."
        ) from None
    given.setdefault("connect_timeout", f"{settings.connect_timeout:.0f}")
    given.setdefault("application_name", "syncline")
    # A replica that is gone without a word is noticed in a minute and a half.
    given.setdefault("keepalives_idle", "30")
    given.setdefault("keepalives_interval", "10")
    given.setdefault("keepalives_count", "6")
    return make_conninfo("", **given)
