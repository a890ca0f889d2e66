"""The load step: fetches a stream page by page and writes what is new, changed or gone, as one load."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from psycopg import sql

from syncline import db
from syncline.config import Project, Source, Stream
from syncline.connectors import Connector, Cursor, Page, stream_settings
from syncline.errors import ConfigurationError, RefusedError, SourceError
from syncline.live import LiveRecords
from syncline.records import BadRecordError, RecordReader

SMALL_SIDE = 1_500_000
"""Up to so many live records are compared in memory, at 26 bytes each; beyond, in the database."""

KEPT_ERRORS = 10_000
"""So many row errors of a load are kept in full; the rest is counted."""

_BATCH_BYTES = 256 * 1024
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TAIL = b"\xff\xff"

_HEAD = struct.Struct(">hi").pack
_STAGED_REST = struct.Struct(">i16siqi").pack
_FIRST_REST = struct.Struct(">i16siqiqi").pack
_TOMBSTONE_REST = struct.Struct(">iiqi").pack


@dataclass(slots=True)
class LoadOptions:
    """How a load differs from the usual: `limit` records at most makes it a trial."""

    limit: int | None = None
    allow_mass_delete: bool = False
    is_refresh: bool = False


@dataclass(slots=True)
class _Tally:
    """What a load has met so far."""

    read: int = 0
    staged: int = 0
    rejected: int = 0
    is_closing: bool = True
    errors: list[dict[str, Any]] = field(default_factory=list)
    kept_keys: list[str] = field(default_factory=list)
    new_fields: set[str] = field(default_factory=set)
    cursor: Cursor | None = None

    def reject(self, stream: Stream, ordinal: int, record: bytes, error: BadRecordError, kind: str = "error") -> None:
        self.rejected += 1
        if kind == "error":
            if error.key is None:
                self.is_closing = False
            else:
                self.kept_keys.append(error.key.decode())
        if len(self.errors) < KEPT_ERRORS:
            value = None if stream.common.redact else record[:1000].decode("utf-8", "replace").replace("\0", "\ufffd")
            self.errors.append(
                {
                    "_key": error.key.decode() if error.key else None,
                    "row_number": ordinal,
                    "value": value,
                    "message": error.message,
                    "severity": kind,
                }
            )


def load_stream(
    project: Project,
    source: Source,
    connector: Connector,
    stream: Stream,
    connection: db.Connection,
    options: LoadOptions,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Fetch the stream once and merge what came; return the load's row.

    `progress` is called with the number of records read so far. The stream's advisory lock is held from fetch to
    commit; one transaction takes the load's number, writes revisions, row errors and cursor. Raises SourceError where
    the source fails and RefusedError where a guard refuses: then nothing was changed.
    """
    return _Load(project, source, connector, stream, connection, options, progress).run()


class _Load:
    def __init__(
        self,
        project: Project,
        source: Source,
        connector: Connector,
        stream: Stream,
        connection: db.Connection,
        options: LoadOptions,
        progress: Callable[[int], None],
    ) -> None:
        self._stream = stream
        self._connector = connector
        self._connection = connection
        self._options = options
        self._progress = progress
        self._settings = stream_settings(project, source, stream)
        self._reader = RecordReader(stream)
        self._tally = _Tally()
        self._live: LiveRecords | None = None
        self._known_fields: set[str] | None = None
        self._started_at = datetime.now(UTC)
        self._table = sql.Identifier(source.schema, f"{stream.name}_json")
        self._staged = sql.Identifier(source.schema, f"{stream.name}_staged")

    def run(self) -> dict[str, Any]:
        stream = self._stream
        state = db.call(self._connection, "open_stream", stream.source, stream.name, list(stream.key))[0]
        try:
            is_increment = self._choose_kind(state)
            self._known_fields = set(state["known_fields"]) if state["known_fields"] else None
            cursor = state["cursor"] if is_increment and not self._options.limit else None
            pages = self._pages(cursor)
            # What could be gone again within the load, or needs the load's number in its key, is staged first.
            is_plain = not (self._options.limit or stream.common.append or stream.common.deleted)
            if state["last_load"] is None and is_plain:
                return self._load_first(pages, is_increment)
            if not is_increment and not stream.common.append and state["live_records"] <= SMALL_SIDE:
                self._live = LiveRecords(self._connection, self._table)
            return self._load_next(pages, is_increment)
        finally:
            if not self._connection.broken:
                db.call(self._connection, "close_stream", stream.source, stream.name)

    def _choose_kind(self, state: dict[str, Any]) -> bool:
        if self._options.limit:
            return True
        if not self._connector.is_increment(self._settings):
            return False
        every = self._stream.full_every
        if self._options.is_refresh:
            return False
        if every is None or state["last_load"] is None:
            return True
        return state["last_full_at"] is not None and datetime.now(UTC) - state["last_full_at"] < every

    def _pages(self, cursor: Cursor | None) -> Iterator[Page]:
        limit = self._options.limit
        for page in self._connector.read(self._stream, self._settings, cursor):
            if limit is not None and self._tally.read + len(page.records) >= limit:
                page.records = page.records[: limit - self._tally.read]
                yield page
                return
            yield page

    def _load_first(self, pages: Iterator[Page], is_increment: bool) -> dict[str, Any]:
        """Copy straight into the stream's table; its indexes come after the data."""
        names = (self._stream.source, self._stream.name)
        with db.translated(), self._connection.transaction():
            load_id = db.call_value(self._connection, "begin_first_load", *names)
            statement = sql.SQL("copy {} (_key, _hash, _first_load, _ordinal, payload) from stdin (format binary)")
            self._copy(statement.format(self._table), pages, load_id)
            facts = json.dumps(self._facts(is_increment, load_id))
            return db.call(self._connection, "finish_first_load", load_id, facts)[0]

    def _load_next(self, pages: Iterator[Page], is_increment: bool) -> dict[str, Any]:
        """Copy what the live records do not confirm into the staged table, then merge it."""
        with db.translated():
            self._connection.execute(sql.SQL("truncate {}").format(self._staged))
            statement = sql.SQL("copy {} (_key, _hash, _ordinal, payload) from stdin (format binary)")
            self._copy(statement.format(self._staged), pages, None)
            with self._connection.transaction():
                if self._live is not None:
                    self._send_unseen(self._live)
                load_id = db.call_value(self._connection, "next_load")
                facts = json.dumps(self._facts(is_increment, load_id))
                seen_twice = db.call(self._connection, "compare_load", facts)
                overruled = self._settle(self._live, seen_twice) if self._live is not None else []
                facts = json.dumps(self._facts(is_increment, load_id))
                return db.call(self._connection, "merge_load", facts, self._tally.kept_keys, overruled)[0]

    def _facts(self, is_increment: bool, load_id: int) -> dict[str, Any]:
        common, tally = self._stream.common, self._tally
        fields = sorted((self._known_fields or set()) | tally.new_fields)
        return {
            "load_id": load_id,
            "source": self._stream.source,
            "stream": self._stream.name,
            "kind": "increment" if is_increment else "full",
            "is_trial": self._options.limit is not None,
            "is_append": common.append,
            "is_closing": tally.is_closing and not is_increment,
            "has_unseen": self._live is not None,
            "records_read": tally.read,
            "records_staged": tally.staged,
            "records_rejected": tally.rejected,
            "max_delete_ratio": common.max_delete_ratio,
            "allow_mass_delete": self._options.allow_mass_delete,
            "key_fields": list(self._stream.key),
            "known_fields": fields or None,
            "cursor": tally.cursor,
            "row_errors": tally.errors,
            "started_at": self._started_at.isoformat(),
        }

    def _copy(self, statement: sql.Composed, pages: Iterator[Page], load_id: int | None) -> None:
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            batch = [_COPY_HEAD]
            size = 0
            for page in pages:
                for row in self._rows(page, load_id):
                    batch.append(row)
                    size += len(row)
                    if size > _BATCH_BYTES:
                        copy.write(b"".join(batch))
                        batch.clear()
                        size = 0
                if page.cursor is not None:
                    self._tally.cursor = page.cursor
                self._progress(self._tally.read)
            batch.append(_COPY_TAIL)
            copy.write(b"".join(batch))

    def _rows(self, page: Page, load_id: int | None) -> Iterator[bytes]:
        """Yield a binary COPY row for each record of the page that is to be sent."""
        first = self._tally.read + 1
        self._tally.read += len(page.records)
        records: Sequence[tuple[int, bytes, bytes | None]]
        if page.unreadable:
            records = list(self._readable(page, first))
        elif self._live is not None:
            records, again = self._live.sift(page.records, first, self._reader.digest)
            for ordinal in again:
                self._note_duplicate(ordinal, page.records[ordinal - first])
        else:
            records = [(ordinal, record, None) for ordinal, record in enumerate(page.records, first)]
        if not records:
            return
        is_clean = self._reader.is_clean(page.records if len(records) == len(page.records) else [r[1] for r in records])
        check = self._reader.read_key if is_clean else self._reader.check
        if self._stream.common.append:
            check = _checked_append(check)
        digest_of, encode = self._reader.digest, self._encoder(load_id)
        watches_fields = self._stream.common.on_new_field != "ignore"
        for ordinal, record, digest in records:
            try:
                key = check(record)
                row = encode(key, digest or digest_of(record), ordinal, record)
            except BadRecordError as error:
                self._tally.reject(self._stream, ordinal, record, error)
                continue
            if watches_fields:
                self._watch_fields(ordinal, record, key)
            self._tally.staged += 1
            yield row

    def _readable(self, page: Page, first: int) -> Iterator[tuple[int, bytes, bytes | None]]:
        for ordinal, record in enumerate(page.records, first):
            message = page.unreadable.get(ordinal - first)
            if message is not None:
                self._tally.reject(self._stream, ordinal, record, self._unreadable(record, message))
            elif self._live is None:
                yield ordinal, record, None
            else:
                fresh, again = self._live.sift([record], ordinal, self._reader.digest)
                yield from fresh
                for place in again:
                    self._note_duplicate(place, record)

    def _encoder(self, load_id: int | None) -> Callable[[bytes, bytes, int, bytes], bytes]:
        """Return the function that makes a record's row for COPY, into the stream's table or what is staged."""
        tombstone = self._stream.common.deleted

        def encode_first(key: bytes, digest: bytes, ordinal: int, record: bytes) -> bytes:
            rest = _FIRST_REST(16, digest, 8, load_id, 8, ordinal, len(record))
            return b"".join((_HEAD(5, len(key)), key, rest, record))

        def encode_staged(key: bytes, digest: bytes, ordinal: int, record: bytes) -> bytes:
            if tombstone is not None and _is_tombstone(record, tombstone.path, tombstone.when):
                return b"".join((_HEAD(4, len(key)), key, _TOMBSTONE_REST(-1, 8, ordinal, -1)))
            return b"".join((_HEAD(4, len(key)), key, _STAGED_REST(16, digest, 8, ordinal, len(record)), record))

        return encode_staged if load_id is None else encode_first

    def _unreadable(self, record: bytes, message: str) -> BadRecordError:
        try:
            return BadRecordError(message, self._reader.read_key(record))
        except BadRecordError:
            return BadRecordError(message)

    def _note_duplicate(self, ordinal: int, record: bytes) -> None:
        key = self._reader.read_key(record)
        self._tally.reject(
            self._stream, ordinal, record, BadRecordError("duplicate key: the same record came before", key), "warning"
        )

    def _watch_fields(self, ordinal: int, record: bytes, key: bytes) -> None:
        names = set(msgspec.json.decode(record, type=dict[str, msgspec.Raw]))
        if self._known_fields is None:
            self._tally.new_fields |= names
            return
        fresh = names - self._known_fields - self._tally.new_fields
        if not fresh:
            return
        if self._stream.common.on_new_field == "fail":
            raise SourceError(
                f"{self._stream.label} has a new field: {min(fresh)}",
                "Take it into the model, or set on_new_field to warn.",
            )
        self._tally.new_fields |= fresh
        self._tally.reject(
            self._stream, ordinal, b"", BadRecordError(f"new field: {', '.join(sorted(fresh))}", key), "warning"
        )
        self._tally.rejected -= 1

    def _send_unseen(self, live: LiveRecords) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute("create temporary table unseen (_tid tid not null) on commit drop")
            with cursor.copy("copy unseen from stdin (format binary)") as copy:
                copy.write(_COPY_HEAD)
                for address in live.unseen():
                    copy.write(b"\0\x01\0\0\0\x06" + address)
                copy.write(_COPY_TAIL)

    def _settle(self, live: LiveRecords, seen_twice: list[dict[str, Any]]) -> list[str]:
        """Where a key came both unchanged and changed, the later wins; return the keys that stay as they are live."""
        overruled = []
        for row in seen_twice:
            seen = live.seen_at(row["_hash"].bytes)
            error = BadRecordError("duplicate key: a later record of this load wins", row["_key"].encode())
            self._tally.reject(self._stream, min(seen, row["_ordinal"]), b"", error, "warning")
            if seen > row["_ordinal"]:
                overruled.append(row["_key"])
        return overruled


def _checked_append(check: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Check the record alone: the merge gives each a key of its own."""

    def checked(record: bytes) -> bytes:
        check(record)
        return b"-"

    return checked


def _is_tombstone(record: bytes, path: str, when: Any) -> bool:
    content = msgspec.json.decode(record)
    for name in path.removeprefix("$.").split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content == when if when is not True else bool(content)


def guard_error_ratio(stream: Stream, load: dict[str, Any], max_ratio: float = 0.1) -> None:
    """Refuse to go on where too many records of the load were rejected; raises RefusedError."""
    rejected, read = load["records_rejected"], load["records_read"]
    if rejected > 10 and rejected > read * max_ratio:
        raise RefusedError(
            f"{rejected} of the {read} records of {stream.label} were rejected",
            f"That is more than max_error_ratio ({max_ratio}) allows; nothing was published: see `syncline errors`.",
        )


def check_stream(stream: Stream) -> None:
    """Check settings that contradict each other; raises ConfigurationError."""
    if stream.common.append and stream.common.deleted:
        raise ConfigurationError(f"{stream.file}: stream {stream.label} has append and deleted", "Choose one.")
