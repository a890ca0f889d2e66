"""The one small protocol that every connector meets, and the list of those that ship."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from syncline.config import Project, Source, Stream, StreamSettings, convert, resolve
from syncline.errors import ConfigurationError

Cursor = dict[str, Any]
"""What a stream has to remember from one load to the next; JSON, saved in the transaction of its records."""

PAGE_BYTES = 1 << 20
"""A page is given once its records have so many bytes together, so that memory stays flat."""

SAMPLE_RECORDS = 100
"""So many records tell what those of a stream look like."""


@dataclass(slots=True)
class Page:
    """Some records of a stream, in the order of the source.

    `records` are raw JSON texts, unchecked: the loader checks each. `unreadable` says, by position in `records`, what
    is wrong with a record that the connector knows to be bad (a CSV row that is too short); its bytes may be any.
    `cursor` is the state to save when this page and all before it are in; the last page's is what the load leaves.
    `position` is JSON to go on from after this page, should the fetch be cut off; None where it cannot go on here.
    `ordinal` is the place of the first record where it is not simply the next (a sheet's row number).
    `is_unchanged` says that the source has nothing else than at the last load: then this is the only page.
    """

    records: list[bytes]
    unreadable: dict[int, str] = field(default_factory=dict)
    cursor: Cursor | None = None
    position: Any = None
    ordinal: int | None = None
    is_unchanged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """One reading of a stream.

    `cursor` is what the last load saved, None for the first and where everything is to come anew. `position` is where
    a fetch that was cut off goes on, as one of its pages said. `since` and `until` are the range of a backfill, both
    included, as the user wrote them: then there is no cursor, and none is saved.
    """

    stream: Stream
    settings: Any
    cursor: Cursor | None = None
    position: Any = None
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A stream that a live source could have, for `syncline discover`.

    `settings` are those that the sources file would give it, `key` with them where the source tells it. `columns` are
    Postgres types by JSON path, in order, where the source tells them; others are inferred from `records`, a sample.
    `problem` is the message of the error that cut the sample short, None where there was none.
    """

    name: str
    settings: dict[str, Any]
    records: list[bytes]
    columns: dict[str, str] | None = None
    problem: str | None = None


class Context:
    """What a connector is given of its surroundings: here those of a project without a database."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def reserve(self, budget: str, requests: int, seconds: float) -> float:
        """Take one request out of a budget that all workers share; return the seconds to wait before it is sent."""
        return 0.0

    def live_records(self, stream: str) -> Iterator[bytes]:
        """Yield the live records of another stream of the source; raises ConfigurationError where none was loaded."""
        raise ConfigurationError(f"the records of {stream} are in the database, and there is none here")

    def log(self, line: str) -> None:
        """Keep a line that a program under the connector has printed, with secrets masked."""


class Connector(ABC):
    """Reads the streams of one source. Made once per run and source; `read` is called from one thread per stream.

    A fetched connector takes part in every run; one that is not waits for records that others send. Exact increments
    never bring a record again that did not change, so that a stream may append them. The settings named in
    `identifying` say which of its source's a stream is: those that say the same are one.
    """

    SourceSettings: ClassVar[type[msgspec.Struct]]
    StreamSettings: ClassVar[type[msgspec.Struct]]
    is_fetched: ClassVar[bool] = True
    has_exact_increments: ClassVar[bool] = False
    hash_without: ClassVar[tuple[str, ...]] = ()
    identifying: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Any, context: Context) -> None:  # noqa: B027 (a connector may need neither)
        pass

    def is_increment(self, stream: Stream, settings: Any) -> bool:
        """Return whether a stream with these settings brings changed records only."""
        return False

    def find_key(self, stream: Stream, settings: Any) -> tuple[str, ...]:
        """Return the key of a stream that declares none, as the live source tells it."""
        raise _missing_key(stream)

    def parents(self, settings: Any) -> tuple[str, ...]:
        """Return the streams of the source that must be loaded before one with these settings."""
        return ()

    @abstractmethod
    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the stream's pages; memory stays flat whatever the size.

        Raises SourceError where the source fails, with what to do next; half an answer never passes for a whole one.
        """

    def discover(self) -> Iterator[Found]:
        """Yield the streams that the live source could have; raises SourceError where it cannot be asked."""
        return iter(())

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Give back what is held; called once, after all reading."""


_CONNECTORS = {
    "dlt": ("dlt.connector", "DltConnector"),
    "file": ("file.connector", "FileConnector"),
    "google_sheets": ("google_sheets.connector", "GoogleSheetsConnector"),
    "http": ("http.connector", "HttpConnector"),
    "postgres": ("postgres.connector", "PostgresConnector"),
    "push": ("push", "PushConnector"),
    "singer": ("singer.connector", "SingerConnector"),
}


def connector_class(source: Source) -> type[Connector]:
    """Return the connector that `source` names; raises ConfigurationError with the known ones."""
    if source.connector not in _CONNECTORS:
        raise ConfigurationError(
            f"{source.file}: source {source.name!r} names the connector {source.connector!r}, which there is not",
            f"Known connectors: {', '.join(sorted(_CONNECTORS))}.",
        )
    module, name = _CONNECTORS[source.connector]
    found: type[Connector] = getattr(import_module(f"syncline.connectors.{module}"), name)
    return found


def check_settings(source: Source) -> None:
    """Check all settings of a source and its streams by their shape, with variables unresolved."""
    kind = connector_class(source)
    convert(source.settings, kind.SourceSettings, f"{source.file}: source {source.name!r}")
    for stream in source.streams.values():
        if stream.common.key is None and kind.find_key is Connector.find_key:
            raise _missing_key(stream)
        common = [item.encode_name for item in msgspec.structs.fields(StreamSettings)]
        convert(stream.settings, kind.StreamSettings, f"{stream.file}: stream {stream.label}", common)


def open_connector(project: Project, source: Source, context: Context | None = None) -> Connector:
    """Return the source's connector with its variables resolved; the caller closes it."""
    kind = connector_class(source)
    place = f"{source.file}: source {source.name!r}"
    settings = convert(_resolve(source.settings, project, place), kind.SourceSettings, place)
    return kind(settings, context or Context(project.root))


def stream_settings(project: Project, source: Source, stream: Stream) -> msgspec.Struct:
    """Return the stream's connector settings with its variables resolved."""
    place = f"{stream.file}: stream {stream.label}"
    return convert(_resolve(stream.settings, project, place), connector_class(source).StreamSettings, place)


def _missing_key(stream: Stream) -> ConfigurationError:
    return ConfigurationError(
        f"{stream.file}: stream {stream.label}: the setting 'key' is missing",
        "Name the field, or the list of fields, that tells its records apart; `none` where only the content does.",
    )


def _resolve(settings: Mapping[str, Any], project: Project, place: str) -> Mapping[str, Any]:
    resolved: Mapping[str, Any] = resolve(settings, project.environment, place)
    return resolved
