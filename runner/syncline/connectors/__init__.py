"""The one small protocol that every connector meets, and the list of those that ship."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec

from syncline.config import Project, Source, Stream, StreamSettings, convert, resolve
from syncline.errors import ConfigurationError

Cursor = dict[str, Any]
"""What a stream has to remember from one load to the next; JSON, saved in the transaction of its records."""


@dataclass(slots=True)
class Page:
    """Some records of a stream, in the order of the source.

    `records` are raw JSON texts, unchecked: the loader checks each. `unreadable` says, by position in `records`, what
    is wrong with a record that the connector knows to be bad (a CSV row that is too short); its bytes may be any.
    `cursor` is the state to save when this page and all before it are in.
    """

    records: list[bytes]
    unreadable: dict[int, str] = field(default_factory=dict)
    cursor: Cursor | None = None


class Connector(Protocol):
    """Reads the streams of one source. Made once per run and source; `read` is called from one thread per stream."""

    SourceSettings: ClassVar[type[msgspec.Struct]]
    StreamSettings: ClassVar[type[msgspec.Struct]]

    def __init__(self, settings: Any, root: Path) -> None: ...

    def is_increment(self, settings: Any) -> bool:
        """Return whether a stream with these settings brings changed records only."""
        ...

    def read(self, stream: Stream, settings: Any, cursor: Cursor | None) -> Iterator[Page]:
        """Yield the stream's pages; memory stays flat whatever the size.

        `cursor` is what the last load saved, None for the first and for a full load.
        Raises SourceError where the source fails, with what to do next; half an answer never passes for a whole one.
        """
        ...

    def close(self) -> None: ...


_MODULES = {"file": "FileConnector", "http": "HttpConnector"}


def connector_class(source: Source) -> type[Connector]:
    """Return the connector that `source` names; raises ConfigurationError with the known ones."""
    name = _MODULES.get(source.connector)
    if name is None:
        raise ConfigurationError(
            f"{source.file}: source {source.name!r} names the connector {source.connector!r}, which there is not",
            f"Known connectors: {', '.join(sorted(_MODULES))}.",
        )
    found: type[Connector] = getattr(import_module(f"syncline.connectors.{source.connector}"), name)
    return found


def check_settings(source: Source) -> None:
    """Check all settings of a source and its streams by their shape, with variables unresolved."""
    kind = connector_class(source)
    convert(source.settings, kind.SourceSettings, f"{source.file}: source {source.name!r}")
    for stream in source.streams.values():
        common = [item.encode_name for item in msgspec.structs.fields(StreamSettings)]
        convert(stream.settings, kind.StreamSettings, f"{stream.file}: stream {stream.label}", common)


def open_connector(project: Project, source: Source) -> Connector:
    """Return the source's connector with its variables resolved; the caller closes it."""
    kind = connector_class(source)
    place = f"{source.file}: source {source.name!r}"
    return kind(convert(_resolve(source.settings, project, place), kind.SourceSettings, place), project.root)


def stream_settings(project: Project, source: Source, stream: Stream) -> msgspec.Struct:
    """Return the stream's connector settings with its variables resolved."""
    place = f"{stream.file}: stream {stream.label}"
    return convert(_resolve(stream.settings, project, place), connector_class(source).StreamSettings, place)


def _resolve(settings: Mapping[str, Any], project: Project, place: str) -> Mapping[str, Any]:
    resolved: Mapping[str, Any] = resolve(settings, project.environment, place)
    return resolved
