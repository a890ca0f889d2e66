"""The load step of a run that replays row errors: rejected records once more, through the same checks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from syncline import db
from syncline.config import Project, Source, Stream
from syncline.connectors import Connector, Context, Fetch, Page, connector_class
from syncline.errors import ConfigurationError, RunError
from syncline.load import LoadOptions, load_stream
from syncline.records import BadRecordError, RecordReader

PAGE_RECORDS = 500


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has to build: entities that read what was loaded, and those with touched keys."""

    streams: frozenset[str]
    entities: frozenset[str]


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """What to replay is in the run's row; `entities` are those of the project, `connection` is the run's own."""

    project: Project
    dsn: str
    claimed: tuple[int, int]
    connection: db.Connection
    entities: Iterable[str]
    done: Callable[[str, dict[str, Any]], None]
    note: Callable[[str], None]
    stopped: threading.Event

    def run(self) -> Replayed:
        """Load the kept records again and touch the keys of the others; return what is to be built.

        An error whose record gets in is closed, one that fails again stays the one open error of its record, and one
        whose key came again since is closed without a change. Raises ConfigurationError where a stream or an entity is
        none of the project's.
        """
        with db.translated(), self.connection.transaction():
            begun = db.call_value(self.connection, "begin_replay", sorted(self.entities))
        loaded = [
            stream.label
            for found in begun["streams"]
            for source, stream in [self._find(found["source"], found["stream"], found["key"])]
            if self._load(source, stream)
        ]
        return Replayed(frozenset(loaded), frozenset(begun["entities"]))

    def _find(self, source_name: str, name: str, key: list[str] | None) -> tuple[Source, Stream]:
        source = self.project.source(source_name)
        if name not in source.streams:
            raise ConfigurationError(
                f"the project does not declare {source_name}.{name} any more", "Declare it again, or leave it out."
            )
        stream = source.streams[name]
        # Where the source tells the key, it was told when the records were loaded.
        return source, replace(stream, key=tuple(key or ())) if stream.common.key is None else stream

    def _load(self, source: Source, stream: Stream) -> bool:
        """Load what passes now; return whether anything did."""
        if self.stopped.is_set():
            raise RunError(f"{stream.label}: stopped")
        rows = db.call(self.connection, "kept_records", source.name, stream.name)
        if stream.common.redact:
            self.note(f"{stream.label} is redacted: its rejected records are not kept")
            self._settle([{"error_id": row["error_id"], "outcome": "left"} for row in rows])
            db.call(self.connection, "forget_records", source.name, stream.name, True)
            return False
        sifted = _sift(RecordReader(stream, connector_class(source).hash_without), rows, is_append=stream.common.append)
        outrun = set() if stream.common.append else self._outrun(stream, sifted.good)
        taken = [row for row, _ in sifted.good if row["error_id"] not in outrun]
        if taken:
            records = KeptRecords([bytes(row["record"]) for row in taken], Context(self.project.root))
            with db.connect(self.dsn, run=self.claimed) as connection:
                load = load_stream(self.project, source, records, stream, connection, LoadOptions())
            self.done(stream.label, load)
        self._settle(
            [
                *sifted.settled,
                *({"error_id": error_id, "outcome": "outrun"} for error_id in outrun),
                *({"error_id": row["error_id"], "outcome": "fine"} for row in taken),
            ]
        )
        return bool(taken)

    def _outrun(self, stream: Stream, good: list[tuple[dict[str, Any], str]]) -> set[int]:
        """Return the errors of records whose keys came again, or went, since."""
        facts = [
            {name: row[name] for name in ("error_id", "load_id", "row_number")} | {"_key": key} for row, key in good
        ]
        rows = db.call(self.connection, "outrun_errors", stream.source, stream.name, json.dumps(facts))
        return {row["outrun_errors"] for row in rows}

    def _settle(self, outcomes: list[dict[str, Any]]) -> None:
        with db.translated(), self.connection.transaction():
            db.call(self.connection, "settle_replay", json.dumps(outcomes))


class KeptRecords(Connector):
    """Reads rejected records once more, as an increment of their stream."""

    is_fetched = False
    has_exact_increments = True

    def __init__(self, records: list[bytes], context: Context) -> None:
        super().__init__(records, context)
        self._records = records

    def is_increment(self, stream: Stream, settings: Any) -> bool:
        return True

    def find_key(self, stream: Stream, settings: Any) -> tuple[str, ...]:
        """Return the key that the stream was loaded by."""
        return stream.key

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the records, in the order in which they were rejected."""
        for first in range(0, len(self._records), PAGE_RECORDS):
            yield Page(self._records[first : first + PAGE_RECORDS])


@dataclass(slots=True)
class _Sifted:
    """Records that can be taken now, with their keys, and the outcomes of the others."""

    good: list[tuple[dict[str, Any], str]]
    settled: list[dict[str, Any]]


def _sift(reader: RecordReader, rows: Iterable[dict[str, Any]], *, is_append: bool) -> _Sifted:
    """Check the records, the oldest first; of those with one key the last counts, as in a load."""
    by_key: dict[Any, tuple[dict[str, Any], str]] = {}
    settled: list[dict[str, Any]] = []
    bad_by_key: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        try:
            key = reader.check(bytes(row["record"])).decode()
        except BadRecordError as error:
            known = error.key.decode() if error.key else None
            bad = {"error_id": row["error_id"], "outcome": "bad", "message": error.message, "_key": known}
            settled.append(bad)
            bad_by_key.setdefault(known or "", []).append(bad)
            continue
        place = row["error_id"] if is_append else key
        if place in by_key:
            settled.append({"error_id": by_key.pop(place)[0]["error_id"], "outcome": "outrun"})
        by_key[place] = (row, key)
        if not is_append:
            for bad in bad_by_key.pop(key, []):
                bad["outcome"] = "outrun"
    return _Sifted(list(by_key.values()), settled)
