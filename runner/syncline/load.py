"""The load of one stream: fetches it page by page and writes what is new, changed or gone."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, cast

import msgspec
from psycopg import sql

from syncline import db
from syncline.config import Project, Source, Stream
from syncline.connectors import Connector, Fetch, Page, connector_class, stream_settings
from syncline.errors import ConfigurationError, RefusedError, SourceError, SourceUnavailableError
from syncline.live import LiveRecords
from syncline.records import BadRecordError, RecordReader
from syncline.staging import CopyWriter, Encode, address_row, first_encoder, staged_encoder
from syncline.tally import Tally

SMALL_SIDE = 1_500_000
"""Up to so many live records are compared in memory, at 26 bytes each; beyond, in the database."""

CHECKPOINT_SECONDS = 10.0
"""How often a fetch that could go on after a cut makes what it has durable."""

RESUMED_WITHIN = timedelta(hours=24)
"""A fetch that was cut off longer ago is begun anew: its first pages are too old to stand beside its last."""


@dataclass(slots=True)
class LoadOptions:
    """How a load differs from the usual: `limit` records at most makes it a trial, `since` or `until` a backfill."""

    limit: int | None = None
    allow_mass_delete: bool = False
    is_refresh: bool = False
    since: str | None = None
    until: str | None = None

    @property
    def is_backfill(self) -> bool:
        return self.since is not None or self.until is not None


class _Checkpoint(msgspec.Struct):
    """A fetch that was cut off: where it goes on, and what it had met by then."""

    fingerprint: str
    started_at: datetime
    position: Any
    tally: Tally


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
    the source fails and RefusedError where a guard refuses: then nothing was changed, and an increment, or a full load
    too large to compare in memory, goes on where it was the next time.
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
        self._settings = stream_settings(project, source, stream)
        if stream.common.key is None:
            stream = replace(stream, key=connector.find_key(stream, self._settings))
        self._source = source
        self._stream = stream
        self._connector = connector
        self._connection = connection
        self._options = options
        self._progress = progress
        self._reader = RecordReader(stream, connector_class(source).hash_without)
        self._tally = Tally()
        self._live: LiveRecords | None = None
        self._is_increment = False
        self._known_fields: set[str] | None = None
        self._started_at = datetime.now(UTC)
        self._table = sql.Identifier(source.schema, f"{stream.name}_json")
        self._staged = sql.Identifier(source.schema, f"{stream.name}_staged")

    def run(self) -> dict[str, Any]:
        stream = self._stream
        state = db.call(self._connection, "open_stream", stream.source, stream.name, list(stream.key))[0]
        reading: Generator[Page] | None = None
        try:
            self._is_increment = self._choose_kind(state)
            self._known_fields = set(state["known_fields"]) if state["known_fields"] else None
            fetch = self._fetch(state)
            reading = self._pages(fetch)
            head = self._first_page(reading, fetch)
            if head is not None and head.is_unchanged:
                return self._load_unchanged(head)
            pages = chain([] if head is None else [head], reading)
            in_parts = self._can_resume(state) and head is not None and head.position is not None
            # What could be gone again within the load, or needs the load's number in its key, is staged first.
            # What a fetch that was cut off has staged is half of this load.
            is_plain = fetch.position is None and not (
                self._options.limit or stream.common.append or stream.common.deleted
            )
            if state["last_load"] is None and is_plain and not in_parts:
                return self._load_first(pages)
            if not self._is_increment and not stream.common.append and state["live_records"] <= SMALL_SIDE:
                self._live = LiveRecords(self._connection, self._table)
            return self._load_next(pages, fetch, in_parts=in_parts)
        finally:
            if reading is not None:
                reading.close()
            if not self._connection.broken:
                db.call(self._connection, "close_stream", stream.source, stream.name)

    def _choose_kind(self, state: dict[str, Any]) -> bool:
        is_increment = self._connector.is_increment(self._stream, self._settings)
        if self._options.is_backfill and not is_increment:
            raise ConfigurationError(
                f"{self._stream.label} has no cursor, so no range of it can be loaded",
                "Load it whole, or give the stream `incremental`.",
            )
        if is_increment and self._stream.common.append and not self._connector.has_exact_increments:
            raise ConfigurationError(
                f"{self._stream.label} appends increments, which bring the newest records again and again",
                "Give it a `key` in place of `append`.",
            )
        if self._options.limit or self._options.is_backfill:
            return True
        if not is_increment or self._options.is_refresh:
            return False
        every = self._stream.full_every
        # What is pushed says itself whether it is all there is.
        if every is None or state["last_load"] is None or not self._connector.is_fetched:
            return True
        return state["last_full_at"] is not None and datetime.now(UTC) - state["last_full_at"] < every

    def _can_resume(self, state: dict[str, Any]) -> bool:
        """Whether a fetch of this kind goes on after a cut: what is compared in memory is a matter of minutes."""
        return not self._options.limit and (self._is_increment or state["live_records"] > SMALL_SIDE)

    def _fetch(self, state: dict[str, Any]) -> Fetch:
        """Return what to ask for: what came since the last cursor, or from where the last fetch was cut off."""
        options = self._options
        is_anew = options.limit or options.is_refresh or options.is_backfill
        follows = self._connector.is_increment(self._stream, self._settings)
        is_anew = is_anew or (not self._is_increment if follows else state["is_mixed"])
        fetch = Fetch(
            stream=self._stream,
            settings=self._settings,
            cursor=None if is_anew else state["cursor"],
            since=options.since,
            until=options.until,
        )
        if not self._can_resume(state) or not state["unfinished"]:
            return fetch
        left = msgspec.convert(state["unfinished"], _Checkpoint)
        if left.fingerprint != self._fingerprint(fetch) or not self._is_usable(left):
            return fetch
        self._tally, self._started_at = left.tally, left.started_at
        return replace(fetch, position=left.position)

    def _is_usable(self, left: _Checkpoint) -> bool:
        if datetime.now(UTC) - left.started_at > RESUMED_WITHIN:
            return False
        # After a crash of the server the unlogged table is empty.
        with db.translated():
            row = self._connection.execute(sql.SQL("select count(*) as staged from {}").format(self._staged)).fetchone()
        return row is not None and row["staged"] == left.tally.staged

    def _fingerprint(self, fetch: Fetch) -> str:
        """Return what two runs must agree on for the second to go on with the fetch of the first."""
        settings = [self._source.settings, self._stream.settings, self._stream.key]
        parts = [*settings, self._is_increment, fetch.cursor, fetch.since, fetch.until]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def _pages(self, fetch: Fetch) -> Generator[Page]:
        limit = self._options.limit
        # A reading that is given up must not go on to hold what it holds: connections, snapshots, processes.
        with closing(cast("Generator[Page]", self._connector.read(fetch))) as pages:
            for page in pages:
                if limit is not None and self._tally.read + len(page.records) >= limit:
                    page.records = page.records[: limit - self._tally.read]
                    yield page
                    return
                yield page

    def _first_page(self, pages: Iterator[Page], fetch: Fetch) -> Page | None:
        try:
            return next(pages, None)
        except SourceUnavailableError:
            raise
        except SourceError:
            # Where it was, it cannot go on: the next run begins anew.
            if fetch.position is not None:
                self._begin_staging()
            raise

    def _load_unchanged(self, page: Page) -> dict[str, Any]:
        """Save a load that found everything as it was."""
        self._tally.cursor = page.cursor
        with db.translated(), self._connection.transaction():
            load_id = db.call_value(self._connection, "next_load")
            return db.call(self._connection, "save_unchanged", json.dumps(self._facts(load_id)))[0]

    def _load_first(self, pages: Iterator[Page]) -> dict[str, Any]:
        """Copy straight into the stream's table; its indexes come after the data."""
        names = (self._stream.source, self._stream.name)
        with db.translated(), self._connection.transaction():
            load_id = db.call_value(self._connection, "begin_first_load", *names)
            statement = sql.SQL("copy {} (_key, _hash, _first_load, _ordinal, payload) from stdin (format binary)")
            self._copy(statement.format(self._table), pages, first_encoder(load_id))
            return db.call(self._connection, "finish_first_load", load_id, json.dumps(self._facts(load_id)))[0]

    def _load_next(self, pages: Iterator[Page], fetch: Fetch, *, in_parts: bool) -> dict[str, Any]:
        """Copy what the live records do not confirm into the staged table, then merge it."""
        if fetch.position is None:
            self._begin_staging()
        with db.translated():
            self._stage(pages, fetch, in_parts=in_parts)
            with self._connection.transaction():
                if self._live is not None:
                    self._send_unseen(self._live)
                load_id = db.call_value(self._connection, "next_load")
                seen_twice = db.call(self._connection, "compare_load", json.dumps(self._facts(load_id)))
                overruled = self._settle(self._live, seen_twice) if self._live is not None else []
                self._forget_outrun()
                facts = json.dumps(self._facts(load_id))
                return db.call(self._connection, "merge_load", facts, self._tally.kept_keys, overruled)[0]

    def _begin_staging(self) -> None:
        db.call(self._connection, "begin_staging", self._stream.source, self._stream.name)

    def _stage(self, pages: Iterator[Page], fetch: Fetch, *, in_parts: bool) -> None:
        """Copy all pages; in parts, each is committed with the position after it, so that the next run can go on."""
        encode = staged_encoder(self._reader.is_tombstone if self._stream.common.deleted else None)
        statement = sql.SQL("copy {} (_key, _hash, _ordinal, payload) from stdin (format binary)").format(self._staged)
        while True:
            due = time.monotonic() + CHECKPOINT_SECONDS if in_parts else None
            with self._connection.transaction():
                position, failure = self._copy(statement, pages, encode, due)
                if position is not None:
                    left = _Checkpoint(self._fingerprint(fetch), self._started_at, position, self._tally)
                    facts = msgspec.json.encode(left).decode()
                    db.call(self._connection, "save_fetch", self._stream.source, self._stream.name, facts)
            if failure is not None:
                raise failure
            if position is None:
                return

    def _copy(
        self, statement: sql.Composed, pages: Iterator[Page], encode: Encode, due: float | None = None
    ) -> tuple[Any, SourceError | None]:
        """Send pages until they end, or the time is `due` and the fetch can go on from there, or the source fails so.

        Return the position to go on from, None at the end, and the failure.
        """
        position: Any = None
        failure: SourceError | None = None
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            writer = CopyWriter(copy)
            while True:
                try:
                    page = next(pages, None)
                except SourceError as error:
                    if due is None or position is None:
                        raise
                    failure = error
                    break
                if page is None:
                    position = None
                    break
                writer.write(self._rows(page, encode))
                position = page.position
                if page.cursor is not None:
                    self._tally.cursor = page.cursor
                self._progress(self._tally.read)
                if due is not None and position is not None and time.monotonic() > due:
                    break
            writer.finish()
        return position, failure

    def _facts(self, load_id: int) -> dict[str, Any]:
        common, tally = self._stream.common, self._tally
        fields = sorted((self._known_fields or set()).union(tally.new_fields))
        return {
            "load_id": load_id,
            "source": self._stream.source,
            "stream": self._stream.name,
            "kind": "increment" if self._is_increment else "full",
            "is_trial": self._options.limit is not None,
            "is_push": not self._connector.is_fetched,
            "is_append": common.append,
            "is_closing": tally.is_closing and not self._is_increment,
            "has_unseen": self._live is not None,
            "records_read": tally.read,
            "records_staged": tally.staged,
            "records_rejected": tally.rejected,
            "max_delete_ratio": common.max_delete_ratio,
            "allow_mass_delete": self._options.allow_mass_delete,
            "key_fields": list(self._stream.key),
            "known_fields": fields or None,
            "cursor": self._cursor(),
            "row_errors": tally.errors,
            "is_redacted": common.redact,
            "started_at": self._started_at.isoformat(),
        }

    def _cursor(self) -> dict[str, Any] | None:
        """Return the state to save: after a full load with row errors none, so that what is bad is met again."""
        if self._options.is_backfill:
            return None
        is_skipping = self._tally.cursor is not None and not self._connector.is_increment(self._stream, self._settings)
        return {} if is_skipping and self._tally.rejected else self._tally.cursor

    def _rows(self, page: Page, encode: Encode) -> Iterator[bytes]:
        """Yield a binary COPY row for each record of the page that is to be sent."""
        tally, stream = self._tally, self._stream
        first = tally.ordinal + 1 if page.ordinal is None else page.ordinal
        tally.ordinal = first + len(page.records) - 1
        tally.read += len(page.records)
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
        if stream.common.append:
            check = _checked_append(check)
        digest_of = self._reader.digest
        watches_fields = stream.common.on_new_field != "ignore"
        for ordinal, record, digest in records:
            try:
                key = check(record)
                row = encode(key, digest or digest_of(record), ordinal, record)
            except BadRecordError as error:
                tally.reject(stream, ordinal, record, error)
                continue
            if watches_fields:
                tally.watch_fields(stream, ordinal, record, key, self._known_fields)
            tally.staged += 1
            yield row

    def _readable(self, page: Page, first: int) -> Iterator[tuple[int, bytes, bytes | None]]:
        for ordinal, record in enumerate(page.records, first):
            message = page.unreadable.get(ordinal - first)
            if message is not None:
                error = self._unreadable(record, message)
                self._tally.reject(self._stream, ordinal, record, error, is_readable=False)
            elif self._live is None:
                yield ordinal, record, None
            else:
                fresh, again = self._live.sift([record], ordinal, self._reader.digest)
                yield from fresh
                for place in again:
                    self._note_duplicate(place, record)

    def _unreadable(self, record: bytes, message: str) -> BadRecordError:
        try:
            return BadRecordError(message, self._reader.read_key(record))
        except BadRecordError:
            return BadRecordError(message)

    def _note_duplicate(self, ordinal: int, record: bytes) -> None:
        message = "duplicate key: the same record came before"
        self._tally.duplicate(self._stream, ordinal, record, message, self._reader.read_key(record))

    def _send_unseen(self, live: LiveRecords) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute("create temporary table unseen (_tid tid not null) on commit drop")
            with cursor.copy("copy unseen from stdin (format binary)") as copy:
                writer = CopyWriter(copy)
                writer.write(map(address_row, live.unseen()))
                writer.finish()

    def _settle(self, live: LiveRecords, seen_twice: list[dict[str, Any]]) -> list[str]:
        """Where a key came both unchanged and changed, the later wins; return the keys that stay as they are live."""
        overruled = []
        for row in seen_twice:
            seen = live.seen_at(row["_hash"].bytes)
            message, key = "duplicate key: a later record of this load wins", row["_key"].encode()
            self._tally.duplicate(self._stream, min(seen, row["_ordinal"]), b"", message, key)
            if seen > row["_ordinal"]:
                overruled.append(row["_key"])
        return overruled

    def _forget_outrun(self) -> None:
        """Keep no rejected record of a key that a later record of the load has: a replay must not go over that."""
        kept = [error for error in self._tally.errors if error["_key"] and "record" in error]
        if not kept or self._stream.common.append:
            return
        keys = sorted({error["_key"] for error in kept})
        places: dict[str, int] = {}
        for row in db.call(self._connection, "later_records", self._stream.source, self._stream.name, keys):
            seen = self._live.seen_at(row["_hash"].bytes) if self._live is not None and row["_hash"] else 0
            places[row["_key"]] = max(places.get(row["_key"], 0), row["_ordinal"] or seen)
        self._tally.forget(error for error in kept if places.get(error["_key"], 0) > error["row_number"])


def _checked_append(check: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Check the record alone: the merge gives each a key of its own."""

    def checked(record: bytes) -> bytes:
        check(record)
        return b"-"

    return checked


def guard_error_ratio(stream: Stream, load: dict[str, Any]) -> None:
    """Refuse to go on where too many records of the load were rejected, or all; raises RefusedError.

    An increment may bring one record, and a bad one: there, and in a stream of a single record, its last good state
    stays and the row error is all. A trial is to show what a stream is like.
    """
    rejected, read, max_ratio = load["records_rejected"], load["records_read"], stream.common.max_error_ratio
    may_be_few = (load["kind"] == "increment" and not load["is_trial"]) or read == load["live_records"] == 1
    if rejected and rejected == read and not may_be_few:
        raise RefusedError(
            f"all {read} records of {stream.label} were rejected",
            "Nothing was published: `syncline errors` says why; `key` and `data_selector` are the usual causes.",
        )
    if rejected > 10 and rejected > read * max_ratio:
        raise RefusedError(
            f"{rejected} of the {read} records of {stream.label} were rejected",
            f"That is more than the stream's max_error_ratio ({max_ratio}) allows; nothing was published: see"
            " `syncline errors`.",
        )
