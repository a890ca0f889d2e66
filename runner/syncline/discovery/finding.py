"""Looks at a live source: the streams that it has, and what their records look like."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from syncline.config import Project, Source, Stream
from syncline.connectors import SAMPLE_RECORDS, Connector, Fetch, Found, Page, open_connector, stream_settings
from syncline.discovery.infer import Shape, infer_shape
from syncline.discovery.names import entity_name, unique_name
from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError, SynclineError
from syncline.masking import Mask


@dataclass(slots=True)
class StreamFinding:
    """A stream that the source has: its declaration, if there is one, else the settings that it would get.

    `shape` is None where there is nothing to infer from. `problem` says why it was not read, or not to the end of the
    sample, `is_gone` whether a declared stream was not read by the source's doing. One that is not `is_wanted` was
    found beside those that were asked for.
    """

    name: str
    settings: dict[str, Any]
    shape: Shape | None
    declared: Stream | None = None
    problem: str | None = None
    is_gone: bool = False
    is_wanted: bool = True

    @property
    def records(self) -> int:
        return len(self.shape.records) if self.shape else 0

    @property
    def is_new(self) -> bool:
        """Whether it is to be declared; one that nothing is known of would only make each run fail."""
        return self.declared is None and (self.shape is not None or self.problem is None)


def look(project: Project, source: Source, only: Sequence[str] = ()) -> list[StreamFinding]:
    """Return the streams that the live source has, and those that are declared, each with a sample's shape.

    `only` names the streams that are wanted; none for all. Raises SourceError where the source cannot be asked,
    ConfigurationError where its connector cannot tell and no stream is declared either, or where a stream of `only` is
    not there. No error shows a secret of the source's.
    """
    mask = _mask_of(project, source)
    try:
        return _look(project, source, only, mask)
    except SynclineError as error:
        raise type(error)(mask(error.message), mask(error.hint or "") or None) from None


def wanted_of(findings: Sequence[StreamFinding]) -> list[StreamFinding]:
    """Return the findings that were asked for."""
    return [finding for finding in findings if finding.is_wanted]


def _mask_of(project: Project, source: Source) -> Callable[[str], str]:
    """Return what takes secrets out of a text; the project does not know those of a source yet to be declared."""
    declared = json.dumps(source.settings, default=str)
    names = [name for name in project.environment if f"${{{name}}}" in declared]
    own = Mask(names, project.environment)
    return lambda text: project.mask(own(text))


def _look(project: Project, source: Source, only: Sequence[str], mask: Callable[[str], str]) -> list[StreamFinding]:
    connector = open_connector(project, source)
    try:
        columns: dict[str, dict[str, str]] = {}
        findings = _find(source, connector, only, columns)
        matched = {finding.name for finding in findings}
        for stream in source.streams.values():
            if stream.name not in matched and (not only or stream.name in only):
                findings.append(_sample(project, source, connector, stream, columns.get(stream.name, {})))
        for finding in findings:
            finding.problem = mask(finding.problem) if finding.problem else None
    finally:
        connector.close()
    missing = sorted(set(only) - {finding.name for finding in findings})
    if missing:
        known = ", ".join(finding.name for finding in findings) or "none of those named"
        raise ConfigurationError(f"{source.name} has no stream {missing[0]!r}", f"Found: {known}.")
    return findings


def _find(
    source: Source, connector: Connector, only: Sequence[str], columns: dict[str, dict[str, str]]
) -> list[StreamFinding]:
    """Return what the connector names; `columns` takes in what it knows of streams that their own settings read."""
    if not connector.is_fetched and not source.streams:
        raise ConfigurationError(
            f"the connector {source.connector} cannot tell what {source.name} has: records are sent to it",
            "Declare its streams under `tables`, each with its key.",
        )
    findings: list[StreamFinding] = []
    taken: set[str] = set()
    known = set(source.streams)
    try:
        for found in connector.discover():
            declared = _declaration(source, connector, found)
            if declared is not None and found.problem and not (found.records or found.columns):
                continue  # its own settings may read it
            if declared is not None and set(declared.settings) - {*connector.identifying, *found.settings}:
                columns[declared.name] = found.columns or {}
                continue  # its own settings say what its records are
            name = declared.name if declared else unique_name(entity_name(source.name, found.name), taken | known)
            taken.add(name)
            findings.append(_finding(name, found, declared, is_wanted=not only or name in only))
    except SourceUnavailableError:
        raise
    except SourceError:
        # An API that does not say what it has can still be read where the project says it.
        if not source.streams:
            raise
    return findings


def _declaration(source: Source, connector: Connector, found: Found) -> Stream | None:
    """Return the declared stream that reads the place that a found one does, whatever their names."""
    place = {name: str(value).strip("/") for name, value in found.settings.items() if name in connector.identifying}
    schema = source.settings.get("schema", "public")
    same_name = entity_name(source.name, found.name)
    for stream in source.streams.values():
        given = {
            name: str(stream.settings[name]).strip("/").removeprefix(f"{schema}.")
            for name in place
            if name in stream.settings
        }
        # A stream may leave its place to its name.
        if given == place if given else stream.name == same_name:
            return stream
    return None


def _finding(name: str, found: Found, declared: Stream | None, *, is_wanted: bool) -> StreamFinding:
    key = _declared_key(found, declared)
    shape = None
    if found.records or found.columns:
        shape = infer_shape(name, found.records, key, found.columns)
    settings = dict(found.settings)
    if "key" not in settings and shape is not None:
        settings["key"] = (shape.key[0] if len(shape.key) == 1 else list(shape.key)) if shape.key else "none"
    settings.setdefault("key", "none")
    return StreamFinding(name, settings, shape, declared, found.problem, is_wanted=is_wanted)


def _declared_key(found: Found, declared: Stream | None) -> tuple[str, ...] | None:
    if declared is not None and declared.common.key is not None:
        return declared.key
    key = found.settings.get("key")
    if key is None:
        return None
    return () if key == "none" else (key,) if isinstance(key, str) else tuple(key)


def _sample(
    project: Project, source: Source, connector: Connector, stream: Stream, columns: dict[str, str]
) -> StreamFinding:
    """Return a declared stream by its first records; `columns` are those of its place, where it may have just some."""
    records: list[bytes] = []
    problem, is_gone = None, False
    if not connector.is_fetched:
        problem = f"the connector {source.connector} waits for records that others send"
    try:
        pages = connector.read(Fetch(stream=stream, settings=stream_settings(project, source, stream)))
        with closing(_readable(pages)) as readable:
            records = list(islice(readable, SAMPLE_RECORDS))
    except SourceUnavailableError:
        raise
    except (SourceError, ConfigurationError) as error:
        problem, is_gone = error.message, isinstance(error, SourceError)
    key = None if stream.common.key is None else stream.key
    fields = {name for record in records for name in msgspec.json.decode(record, type=dict[str, msgspec.Raw])}
    known = {name: kind for name, kind in columns.items() if name in fields} if fields <= set(columns) else None
    shape = infer_shape(stream.name, records, key, known) if records else None
    return StreamFinding(stream.name, dict(stream.settings), shape, stream, problem, is_gone)


def _readable(pages: Iterator[Page]) -> Generator[bytes]:
    try:
        for page in pages:
            yield from (
                record
                for place, record in enumerate(page.records)
                if place not in page.unreadable and record.lstrip()[:1] == b"{"
            )
    finally:
        # A connector holds a connection or a file as long as it reads.
        if isinstance(pages, Generator):
            pages.close()
