"""Reads the resources of a dlt source: its code runs in the runner, without a dlt pipeline or destination."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from syncline.config import Stream
from syncline.connectors import SAMPLE_RECORDS, Connector, Context, Fetch, Found, Page
from syncline.connectors.dlt.items import Records
from syncline.connectors.dlt.source import (
    SourceFunction,
    State,
    decode_state,
    encode_state,
    incremental_of,
    iterate,
    limit_range,
    select,
)
from syncline.errors import SourceError, SynclineError

_TYPES = {
    "text": "text",
    "bigint": "bigint",
    "double": "double precision",
    "decimal": "numeric",
    "wei": "numeric",
    "bool": "boolean",
    "timestamp": "timestamptz",
    "date": "date",
    "time": "time",
    "json": "jsonb",
    "binary": "text",
}


class DltSource(msgspec.Struct, frozen=True, kw_only=True):
    """`resource`: the source's code as `package.module:function`, called with `arguments` by their names."""

    resource: str
    arguments: dict[str, Any] = {}


class DltStream(msgspec.Struct, frozen=True, kw_only=True):
    """`resource`: its name in the source. `mode`: without it as its hints say."""

    resource: str | None = None
    mode: Literal["full", "increment"] | None = None


class DltConnector(Connector):
    """Makes the source anew for each stream, so that each has a state of its own."""

    SourceSettings = DltSource
    StreamSettings = DltStream
    identifying = ("resource",)

    def __init__(self, settings: DltSource, context: Context) -> None:
        self._function = SourceFunction(settings.resource, settings.arguments, context.root.resolve())
        self._lock = threading.Lock()
        self._increments: dict[str, bool] = {}

    def is_increment(self, stream: Stream, settings: DltStream) -> bool:
        """Return what the stream's mode says, else whether the resource has an incremental or is merged."""
        if settings.mode is not None:
            return settings.mode == "increment"
        name = settings.resource or stream.name
        with self._lock:
            if name not in self._increments:
                resource = select(self._function.open({}), name, stream.label)
                self._increments[name] = _is_increment(resource)
            return self._increments[name]

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the resource's records; the last page of an increment has the state that its code left.

        Raises SourceError where the source's code fails, SourceUnavailableError where it met a connection that failed
        or a server that is busy, ConfigurationError where there is no such resource.
        """
        stream, settings = fetch.stream, fetch.settings
        is_increment = self.is_increment(stream, settings)
        with self._lock:
            saved = (fetch.cursor or {}).get("state") if is_increment else None
            state = decode_state(saved) if saved else {}
            source = self._function.open(state)
        resource = select(source, settings.resource or stream.name, stream.label)
        if fetch.since is not None or fetch.until is not None:
            with self._function.named_errors(stream.label):
                limit_range(resource, fetch.since, fetch.until, stream.label)
        records = Records()
        yield from self._read(source, state, records, stream.label)
        page = records.last()
        if is_increment:
            page.cursor = {"state": encode_state(state)}
        yield page

    def discover(self) -> Iterator[Found]:
        """Yield the source's resources with their hints and some records; where one fails, why."""
        for name in self._function.open({}).selected_resources:
            state: State = {}
            source = self._function.open(state)
            resource = select(source, name, name)
            columns, keys = _hints(resource)
            settings: dict[str, Any] = {"resource": name}
            if keys:
                settings["key"] = keys[0] if len(keys) == 1 else keys
            records, problem = self._sample(source, state, name)
            yield Found(name=name, settings=settings, records=records, columns=columns, problem=problem)

    def _read(self, source: Any, state: State, records: Records, place: str) -> Iterator[Page]:
        items = iterate(source, state)
        try:
            while True:
                with self._function.named_errors(place):
                    item = next(items, None)
                if item is None:
                    return
                try:
                    yield from records.take(item)
                except TypeError as error:
                    raise SourceError(
                        f"{place}: the resource yields {error}, which is no record",
                        "It should yield dicts, lists of dicts, Arrow tables or data frames.",
                    ) from None
        finally:
            items.close()  # type: ignore[attr-defined]

    def _sample(self, source: Any, state: State, name: str) -> tuple[list[bytes], str | None]:
        """Return the resource's first records, and what went wrong behind them."""
        records = Records()
        found: list[bytes] = []
        problem = None
        try:
            for page in self._read(source, state, records, name):
                found = page.records
                break
        except SynclineError as error:
            problem = error.message
        return [*found, *records.last().records][:SAMPLE_RECORDS], problem


def _is_increment(resource: Any) -> bool:
    # dlt's default is append, so that one says nothing.
    disposition = resource.write_disposition
    if isinstance(disposition, dict):
        disposition = disposition.get("disposition")
    if disposition == "replace":
        return False
    return disposition == "merge" or incremental_of(resource) is not None


def _hints(resource: Any) -> tuple[dict[str, str] | None, list[str]]:
    """Return the Postgres types of the columns that the resource declares, and its key."""
    try:
        columns = resource.compute_table_schema().get("columns") or {}
    except Exception:
        # Hints that depend on an item cannot be told without one.
        return None, []
    types = {
        name: "timestamp" if kind == "timestamp" and column.get("timezone") is False else _TYPES[kind]
        for name, column in columns.items()
        if (kind := column.get("data_type")) in _TYPES
    }
    return types or None, [name for name, column in columns.items() if column.get("primary_key")]
