"""Takes records that another system sends: a JSON array or JSON lines, of any size."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from syncline.config import Stream
from syncline.connectors import Connector, Context, Fetch, Page
from syncline.connectors.json_text import BLOCK_BYTES, Read, read_elements, read_lines


@dataclass(frozen=True, slots=True)
class Push:
    """Records on their way: `read(n)` gives at most n bytes, none at the end. An increment unless `is_full`.

    `place` is what errors say that they came by.
    """

    read: Read
    is_full: bool = False
    place: str = "standard input"
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


class PushSource(msgspec.Struct, frozen=True, kw_only=True):
    """A system that sends its records of its own accord."""


class PushStream(msgspec.Struct, frozen=True, kw_only=True):
    """One collection of those records."""


class PushConnector(Connector):
    """Fetches nothing: its streams get their records by `syncline load SOURCE STREAM --stdin`."""

    SourceSettings = PushSource
    StreamSettings = PushStream
    is_fetched = False

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield nothing: what there is was pushed."""
        return iter(())


class PushedRecords(Connector):
    """Reads one push, into a stream of any source."""

    is_fetched = False
    has_exact_increments = True

    def __init__(self, push: Push, context: Context) -> None:
        super().__init__(push, context)
        self._push = push

    def is_increment(self, stream: Stream, settings: object) -> bool:
        return not self._push.is_full

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield what is sent, about a megabyte at a time; raises SourceError where it is cut off or no JSON."""
        place = f"{fetch.stream.label}: {self._push.place}"
        head = self._push.read(BLOCK_BYTES).lstrip()
        # White space alone may fill a block, and a pipe may give less than was asked for.
        while not head and (block := self._push.read(BLOCK_BYTES)):
            head = block.lstrip()
        rest = _Rest(head, self._push.read)
        pages = read_elements(rest.read, (), place) if head[:1] == b"[" else read_lines(rest.read, place)
        for records in pages:
            yield Page(records)


class _Rest:
    """A stream of bytes whose first ones were read already."""

    def __init__(self, head: bytes, read: Read) -> None:
        self._head = head
        self._read = read

    def read(self, size: int, /) -> bytes:
        head, self._head = self._head[:size], self._head[size:]
        return head or self._read(size)
