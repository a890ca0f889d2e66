"""Cuts one stream's records out of a tap's Singer messages, with the state after them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from syncline.connectors import PAGE_BYTES, Cursor, Page
from syncline.connectors.singer.catalog import Selection
from syncline.errors import ConfigurationError, SourceError

PAGE_RECORDS = 10_000

_NOTHING = msgspec.Raw(b"")


class _Message(msgspec.Struct, gc=False):
    type: str
    stream: str | None = None
    record: msgspec.Raw = _NOTHING
    value: msgspec.Raw = _NOTHING
    key_properties: list[str] | None = None
    version: Any = None


class MessageReader:
    """Reads the messages of one tap, started for `selection`, into pages.

    `start` is the cursor or position that an increment was started from. `key` is the stream's, which the tap's has to
    equal; None where it may be another. The records after the last STATE are held back to the next page, so that pages
    end where the tap can go on.
    """

    def __init__(
        self,
        selection: Selection,
        place: str,
        log: Callable[[str], None],
        *,
        key: tuple[str, ...] | None,
        is_increment: bool,
        start: Cursor | None,
    ) -> None:
        self._selection = selection
        self._key = key
        self._is_increment = is_increment
        self._place = place
        self._log = log
        self._decode = msgspec.json.Decoder(_Message).decode
        self._name: str | None = None
        self._line = 0
        self._records: list[bytes] = []
        self._unreadable: dict[int, str] = {}
        self._size = 0
        self._state: msgspec.Raw | None = None
        self._marked = 0
        # Whether pages went out after the last one with a position.
        self._is_ahead = False
        self._start = start
        self._version = start.get("version") if start else None
        self._ignored: set[str] = set()

    @property
    def held(self) -> int:
        """How many records wait for the next page."""
        return len(self._records)

    def read(self, lines: list[bytes]) -> Iterator[Page]:
        """Take lines in and yield the pages that are full; raises SourceError where one is no message."""
        for line in lines:
            self._line += 1
            try:
                message = self._decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                if line.strip():
                    self._take_odd(line)
                continue
            if message.type != "RECORD":
                self._take_other(message)
                if self._is_ahead and self._state is not None and not self._records:
                    yield self._cut()
                continue
            if message.stream != self._name or self._name is None:
                self._check_foreign(message.stream)
                continue
            record = bytes(message.record)
            if not record:
                raise self._wrong("is a RECORD without `record`")
            self._records.append(record)
            self._size += len(record)
            if self._size >= PAGE_BYTES or len(self._records) >= PAGE_RECORDS:
                yield self._cut()

    def rest(self) -> Iterator[Page]:
        """Yield what there is before the last STATE: all that is good of a tap that failed."""
        if self._state is not None and (self._marked or self._is_ahead):
            yield self._cut()

    def last(self) -> Page:
        """Return what is left when the tap has ended well, with the state that the load leaves."""
        page = Page(self._records, self._unreadable)
        if self._is_increment:
            page.cursor = self._start if self._state is None else self._cursor(self._state)
        return page

    def _cut(self) -> Page:
        """Return the records up to the last STATE as a page, or all of them where there was none."""
        if self._state is None or not (self._marked or self._is_ahead):
            page = Page(self._records, self._unreadable)
            if self._state is not None:
                # It came before these records: no place to go on from after them.
                self._start, self._state = self._cursor(self._state), None
            self._records, self._unreadable, self._size = [], {}, 0
            self._is_ahead = True
            return page
        count = self._marked
        before = {place: text for place, text in self._unreadable.items() if place < count}
        after = {place - count: text for place, text in self._unreadable.items() if place >= count}
        cursor = self._start = self._cursor(self._state)
        page = Page(self._records[:count], before, cursor=cursor, position=cursor)
        self._records, self._unreadable = self._records[count:], after
        self._size = sum(map(len, self._records))
        self._state, self._marked, self._is_ahead = None, 0, False
        return page

    def _cursor(self, state: msgspec.Raw) -> Cursor:
        cursor: Cursor = {"state": msgspec.json.decode(state)}
        return cursor if self._version is None else {**cursor, "version": self._version}

    def _take_other(self, message: _Message) -> None:
        match message.type:
            case "STATE":
                self._take_state(message.value)
            case "SCHEMA":
                self._take_schema(message)
            case "ACTIVATE_VERSION":
                self._take_version(message)
            case "BATCH":
                raise SourceError(
                    f"{self._place}: the tap sends its records in files (BATCH messages), which are not read",
                    "Take `batch_config` out of its config.",
                )
            case other:
                if other not in self._ignored:
                    self._ignored.add(other)
                    self._log(f"{self._place}: messages of the type {other[:40]!r} are passed over")

    def _take_state(self, value: msgspec.Raw) -> None:
        if not bytes(value):
            raise self._wrong("is a STATE without `value`")
        if self._is_increment:
            self._state = value.copy()
            self._marked = len(self._records)

    def _take_schema(self, message: _Message) -> None:
        name, selection = message.stream, self._selection
        if name is None:
            raise self._wrong("is a SCHEMA without `stream`")
        if name in selection.parents or (name in selection.others and name not in selection.names):
            return
        # Some taps write a name of which their catalog knows nothing: where one stream is selected, it is that one.
        if name not in selection.names and self._name not in {None, name}:
            return
        self._name = name
        keys = message.key_properties
        if keys and self._key is not None and set(keys) != set(self._key):
            raise ConfigurationError(
                f"{self._place}: the tap's key of the stream is {', '.join(keys)}",
                f"Write `key: {keys[0] if len(keys) == 1 else '[' + ', '.join(keys) + ']'}`, "
                "or `check_key: false` if the stream's own key tells its records apart as well.",
            )

    def _take_version(self, message: _Message) -> None:
        """Follow the version of an increment's table: a new one says that all that was loaded before is void."""
        if message.stream != self._name or not self._is_increment:
            return
        if self._version is not None and message.version != self._version:
            raise SourceError(
                f"{self._place}: the tap begins the stream anew (ACTIVATE_VERSION), so what was loaded may be gone",
                "Load it in full: --full-refresh.",
            )
        self._version = message.version

    def _check_foreign(self, name: str | None) -> None:
        if name in self._selection.parents:
            return
        if self._name is None or name in self._selection.names:
            raise self._wrong("is a RECORD that comes before its SCHEMA")
        raise self._wrong(
            "is a RECORD of a stream that was not selected",
            "The tap does not heed its catalog; where its config can name the streams to read, name this one alone.",
        )

    def _take_odd(self, line: bytes) -> None:
        """Take a record with NaN or Infinity in it as a bad one; anything else is no message."""
        try:
            message = json.loads(line, parse_constant=lambda _: None)
            is_record = message["type"] == "RECORD" and message["stream"] == self._name is not None
            record = json.dumps(message["record"]).encode() if is_record else b""
        except (ValueError, LookupError, TypeError, RecursionError):
            record = b""
        if not record:
            raise self._wrong(
                "is no Singer message", "A tap prints to its standard error; see what it writes to its output."
            ) from None
        self._unreadable[len(self._records)] = "NaN or Infinity, which no JSON can hold"
        self._records.append(record)
        self._size += len(record)

    def _wrong(self, what: str, hint: str = "The tap breaks Singer's rules: try another version of it.") -> SourceError:
        return SourceError(f"{self._place}: line {self._line} of the tap's output {what}", hint)
