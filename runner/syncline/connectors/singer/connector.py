"""Reads the streams of any Singer tap, a program in an environment of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any

import msgspec

from syncline.config import Stream
from syncline.connectors import SAMPLE_RECORDS, Connector, Context, Cursor, Fetch, Found, Page
from syncline.connectors.singer.catalog import (
    Catalog,
    Entry,
    Method,
    Reading,
    Selection,
    columns_of,
    key_of,
    reading_of,
)
from syncline.connectors.singer.messages import MessageReader
from syncline.connectors.singer.process import TapRun, find_program, shown_name
from syncline.errors import ConfigurationError, SourceError

Seconds = Annotated[float, msgspec.Meta(gt=0)]

SILENCE = 900.0
"""Seconds without a message after which a tap is taken to hang: long enough for a slow first query."""

_SAMPLE_SECONDS = 60.0


class SingerSource(msgspec.Struct, frozen=True, kw_only=True):
    """One tap. `config` is its own configuration; `catalog` a file in place of what the tap discovers."""

    command: str | list[str]
    config: dict[str, Any] = {}
    catalog: str | None = None
    env: dict[str, str] = {}


class SingerStream(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of the tap. `timeout` is in seconds without a message."""

    tap_stream: str | None = None
    replication_method: Method = "FULL_TABLE"
    replication_key: str | None = None
    select: list[str] = []
    check_key: bool = True
    timeout: Seconds = SILENCE


class SingerConnector(Connector):
    """Runs the tap once for each stream, so that each has a state of its own."""

    SourceSettings = SingerSource
    StreamSettings = SingerStream
    identifying = ("tap_stream",)
    hash_without = ("_sdc_*",)

    def __init__(self, settings: SingerSource, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._catalog: Catalog | None = None
        self._lock = threading.Lock()
        self._discovery = threading.Lock()
        self._running: set[TapRun] = set()
        self._is_closed = False

    def is_increment(self, stream: Stream, settings: SingerStream) -> bool:
        return settings.replication_method != "FULL_TABLE"

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the stream's records; for increments each page that ends at a STATE can be gone on from.

        Raises SourceError where the tap fails, ends in the middle of a line or writes what is no message,
        SourceUnavailableError where it writes nothing for too long, ConfigurationError where it does not have what the
        settings name.
        """
        stream, settings = fetch.stream, fetch.settings
        if fetch.since is not None or fetch.until is not None:
            raise ConfigurationError(
                f"{stream.label}: a Singer tap cannot be asked for a range",
                "Where the tap's config has a start date, set it there and load with --full-refresh.",
            )
        is_increment = self.is_increment(stream, settings)
        start = _start(fetch) if is_increment else None
        selection = self._discovered().select(_reading(stream, settings), stream.label)
        reader = MessageReader(
            selection,
            stream.label,
            self._context.log,
            key=None if stream.common.append or not settings.check_key else _key(stream),
            is_increment=is_increment,
            start=start,
        )
        with self._run(stream.label, selection, start, settings.timeout) as tap:
            yield from _read(tap, reader, start or {"state": None}, is_resumable=is_increment)

    def discover(self) -> Iterator[Found]:
        """Yield the tap's streams with key, columns and some records; one that cannot be read, why."""
        for entry in self._discovered().streams:
            reading = reading_of(entry)
            name = reading.tap_stream
            settings: dict[str, Any] = {"tap_stream": name}
            if reading.method != "FULL_TABLE":
                settings |= {"replication_method": reading.method, "replication_key": reading.replication_key}
            if keys := key_of(entry):
                settings["key"] = keys[0] if len(keys) == 1 else keys
            columns = columns_of(entry) or None
            records, problem = self._sample(entry)
            yield Found(name=name, settings=settings, records=records, columns=columns, problem=problem)

    def close(self) -> None:
        """End the taps that still run."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        for tap in running:
            tap.stop()

    def _discovered(self) -> Catalog:
        """Return the catalog: that of the settings, else what the tap discovers, once for all streams."""
        with self._discovery:
            if self._catalog is None:
                self._catalog = self._read_catalog()
            return self._catalog

    def _read_catalog(self) -> Catalog:
        settings = self._settings
        if settings.catalog is None:
            place = f"the tap {shown_name(settings.command)}"
            with self._started({"config": settings.config}, place, SILENCE, "--discover") as tap:
                return Catalog(b"\n".join(line for lines in tap.lines(is_text=True) for line in lines), place)
        file = self._context.root / settings.catalog
        try:
            return Catalog(file.read_bytes(), str(file))
        except OSError as error:
            message = f"the catalog {file} cannot be read: {error.strerror}"
            raise ConfigurationError(message, "Check `catalog`.") from None

    def _run(
        self, place: str, selection: Selection, start: Cursor | None, timeout: float
    ) -> AbstractContextManager[TapRun]:
        files = {"config": self._settings.config, "catalog": selection.catalog}
        if start is not None and start["state"] is not None:
            files["state"] = start["state"]
        return self._started(files, place, timeout)

    @contextmanager
    def _started(self, files: Mapping[str, Any], place: str, timeout: float, *flags: str) -> Iterator[TapRun]:
        settings = self._settings
        program = find_program(settings.command, self._context.root, settings.env, self._context.log)
        with TapRun(program, files, place, timeout, *flags) as tap:
            with self._lock:
                self._running.add(tap)
            try:
                if self._is_closed:
                    raise SourceError(f"{place}: the load was ended")
                yield tap
            finally:
                with self._lock:
                    self._running.discard(tap)

    def _sample(self, entry: Entry) -> tuple[list[bytes], str | None]:
        """Return the stream's first records, or why there are none."""
        name = entry["tap_stream_id"]
        try:
            selection = self._discovered().select(Reading(tap_stream=name), name)
            reader = MessageReader(selection, name, self._context.log, key=None, is_increment=False, start=None)
            with self._run(name, selection, None, _SAMPLE_SECONDS) as tap:
                for lines in tap.lines():
                    for page in reader.read(lines):
                        return page.records[:SAMPLE_RECORDS], None
                    if reader.held >= SAMPLE_RECORDS:
                        break
            return reader.last().records[:SAMPLE_RECORDS], None
        except SourceError as error:
            return [], error.message


def _read(tap: TapRun, reader: MessageReader, start: Cursor, *, is_resumable: bool) -> Iterator[Page]:
    is_begun = False
    try:
        for lines in tap.lines():
            if is_resumable and not is_begun:
                # Whatever the first STATE's place, the fetch can go on from where it was begun.
                yield Page([], position=start)
            is_begun = True
            yield from reader.read(lines)
    except SourceError:
        yield from reader.rest()
        raise
    yield reader.last()


def _start(fetch: Fetch) -> Cursor | None:
    """Return what the tap is to go on from; the cursor of another connector is none of its own."""
    start: Cursor | None = fetch.position or fetch.cursor
    return start if start and "state" in start else None


def _reading(stream: Stream, settings: SingerStream) -> Reading:
    return Reading(
        tap_stream=settings.tap_stream or stream.name,
        method=settings.replication_method,
        replication_key=settings.replication_key,
        select=settings.select,
    )


def _key(stream: Stream) -> tuple[str, ...]:
    return tuple(field.removeprefix("$.") for field in stream.key)
