"""Cuts JSON into the raw texts of its records, without re-serialising and whatever the size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Annotated, Any

import msgspec

from syncline.errors import SourceError

BLOCK_BYTES = 1 << 20
"""Bytes read at a time; a page is about one block."""

RECORD_BYTES = 256 << 20
"""Longest record: Postgres takes no more than 1 GB, and a record is held in memory whole."""

JsonPath = Annotated[str, msgspec.Meta(pattern=r"^[^.\[\]*]+(\.[^.\[\]*]+)*$")]
"""A dotted path of field names, `$` for the whole; `$.data.items` and `data.items` are the same."""

Read = Callable[[int], bytes]

_WHITE = b" \t\r\n"
_BLANK = re.compile(rb"[ \t\r\n]*+")
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING = re.compile(_TEXT, re.DOTALL)
# What a value begins with, or all of a word's beginning: what is cut off may go on from there.
_BEGINNING = re.compile(rb'[\[{"\-0-9]|(?:t|tr|tru|f|fa|fal|fals|n|nu|nul)\Z')
# Each match runs to the next mark that matters; a lone quote is a string whose end has not been read yet.
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|' + _TEXT + rb')*+([\[\]{}"]?)', re.DOTALL)
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|' + _TEXT + rb')*+([\[\]{},"]?)', re.DOTALL)

_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_QUICK_TRIES = 8
_FIRST_KEY_BYTES = 256


def parse_path(path: str) -> tuple[str, ...]:
    """Return the field names of a JsonPath; `$` gives none."""
    names = tuple(path.split("."))
    return names[1:] if names[0] == "$" else names


def read_elements(read: Read, path: Sequence[str], place: str) -> Iterator[list[bytes]]:
    """Yield the elements of the array at `path`, some at a time; a single object there is one record.

    `read(n)` gives up to n bytes, none at the end. Memory holds some blocks and the longest element. An element is
    found by its brackets alone, so one that is broken or nested too deep is yielded as it is. Raises SourceError,
    which begins with `place`, where the text is cut off, malformed around its elements, or goes on after its end.
    """
    text = _Text(read, place)
    for name in path:
        text.enter(name)
    first = text.peek()
    if first == b"[":
        yield from text.elements()
    elif first == b"{":
        yield [text.value(keep=True)]
    elif text.value(keep=True) != b"null":
        raise SourceError(f"{place}: there is neither an array nor an object to read", "Check data_selector.")
    for _ in path:
        text.leave()
    text.end()


def read_lines(read: Read, place: str) -> Iterator[list[bytes]]:
    """Yield the lines that hold something, those of a block at a time; raises SourceError where the last is cut off."""
    parts: list[bytes] = []
    size = 0
    while block := read(BLOCK_BYTES):
        head, newline, rest = block.rpartition(b"\n")
        if newline:
            if lines := _split_lines(b"".join((*parts, head))):
                yield lines
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > RECORD_BYTES:
            raise SourceError(f"{place}: a record is longer than {RECORD_BYTES >> 20} MB", "Is it JSON lines?")
    last = b"".join(parts).strip()
    if last:
        if not is_whole(last):
            if not _BEGINNING.match(last):
                raise SourceError(f"{place} is no JSON: its last line is none", "Write one JSON object a line.")
            raise SourceError(f"{place} is cut off: it ends within a record", "Fetch or write it again.")
        yield [last]


def split_array(text: bytes | msgspec.Raw, place: str) -> list[bytes]:
    """Return the raw texts of an array's elements; raises SourceError as `read_elements` does."""
    try:
        return list(map(bytes, _ELEMENTS.decode(text)))
    except (msgspec.DecodeError, RecursionError):
        # One element that is broken or nested too deep must not cost the others.
        pages = read_elements(BytesIO(bytes(text)).read, (), place)
        return [element for page in pages for element in page]


def split_object(text: bytes | msgspec.Raw, place: str) -> dict[str, Any]:
    """Return an object's fields as raw texts (bytes or Raw); raises SourceError as `read_elements` does."""
    try:
        return _MEMBERS.decode(text)
    except (msgspec.DecodeError, RecursionError):
        cursor = _Text(BytesIO(bytes(text)).read, place)
        members = dict(cursor.members())
        cursor.end()
        return members


def is_whole(text: bytes) -> bool:
    """Return whether `text` is one JSON value to its end; of an object or array only the brackets are judged."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        cursor = _Text(BytesIO(text).read, "")
        if cursor.peek() not in (b"{", b"["):
            return False
        try:
            cursor.value()
            cursor.end()
        except SourceError:
            return False
    return True


class _Text:
    """A place in a JSON text that is read block by block; what lies before it is let go."""

    def __init__(self, read: Read, place: str) -> None:
        self._read = read
        self._place = place
        self._buffer = b""
        self._at = 0
        self._offset = 0

    def peek(self) -> bytes:
        """Return the next byte that is no white space, without passing it; nothing at the end."""
        while True:
            match = _BLANK.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at : self._at + 1]
            if not self._more():
                return b""

    def enter(self, name: str) -> None:
        """Go to the value of the field `name` of the object that comes next."""
        self._take(b"{")
        if self.peek() != b"}":
            while self._key() != name:
                self.value()
                if self._take(b",}") == b"}":
                    break
            else:
                return
        raise SourceError(f"{self._place}: there is no field {name!r}", "Check data_selector.")

    def leave(self) -> None:
        """Go past the end of the object whose field was entered, which proves that it has one."""
        while self._take(b",}") == b",":
            self._key()
            self.value()

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Yield the fields of the object that comes next, with their raw texts."""
        self._take(b"{")
        if self.peek() == b"}":
            self._take(b"}")
            return
        while True:
            yield self._key(), self.value(keep=True)
            if self._take(b",}") == b"}":
                return

    def end(self) -> None:
        """Raise SourceError unless nothing but white space is left."""
        if self.peek():
            raise self._malformed("the end")

    def value(self, *, keep: bool = False) -> bytes:
        """Go past one value; return its text if it is to be kept."""
        parts: list[bytes] = []
        depth = size = 0
        self.peek()
        while True:
            mark, end = self._next_mark(self._at, depth)
            is_done = depth == 0 and mark in {b",", b"]", b"}"}
            if mark in {b"[", b"{"}:
                depth, end = depth + 1, end + 1
            elif depth and mark in {b"]", b"}"}:
                depth, end = depth - 1, end + 1
                is_done = depth == 0
            if keep:
                parts.append(self._buffer[self._at : end])
            size += end - self._at
            self._at = end
            if keep and size > RECORD_BYTES:
                raise self._too_long()
            if is_done:
                break
            if mark in {b"", b'"'} and not self._more():
                if depth or mark or not size:
                    raise self._cut_off()
                break
        return b"".join(parts).strip(_WHITE)

    def elements(self) -> Iterator[list[bytes]]:
        """Yield the elements of the array that comes next, those of a block at a time."""
        self._take(b"[")
        if self.peek() == b"]":
            self._take(b"]")
            return
        depth = ahead = 0
        while True:
            has_more = self._more()
            if found := self._quick():
                depth = ahead = 0
                yield found
                continue
            found, depth, ahead, is_closed = self._split(depth, ahead)
            if found:
                yield found
            if is_closed:
                return
            if not found and not has_more:
                raise self._cut_off()

    def _quick(self) -> list[bytes]:
        """Return as many elements as the block surely holds whole, or none where that cannot be told quickly.

        Records tend to begin with the same field. Where the last one seems to begin, what lies before is given to
        msgspec, ten times as fast as counting brackets. If it is a list, the guess was right: no text can be cut
        within an element, before a comma, and be valid.
        """
        start = self._at
        colon = self._buffer.find(b":", start, start + _FIRST_KEY_BYTES)
        beginning = self._buffer[start : colon + 1]
        if colon < 0 or not beginning.lstrip(_WHITE).startswith(b"{"):
            return []
        cut = len(self._buffer)
        for _ in range(_QUICK_TRIES):
            cut = self._buffer.rfind(beginning, start + 1, cut)
            if cut < 0:
                break
            before = self._buffer[start:cut].rstrip(_WHITE)
            if not before.endswith(b","):
                continue
            try:
                found = list(map(bytes, _ELEMENTS.decode(b"[" + before[:-1] + b"]")))
            except (msgspec.DecodeError, RecursionError):
                continue
            self._at = cut
            return found
        return []

    def _split(self, depth: int, ahead: int) -> tuple[list[bytes], int, int, bool]:
        """Return the elements that end in the buffer, by counting brackets; and how far the one after them was read.

        `depth` and `ahead` (bytes) say how far the first one was read before, so that a long one is not read again.
        """
        found: list[bytes] = []
        position = self._at + ahead
        while True:
            mark, end = self._next_mark(position, depth)
            if mark in {b"", b'"'}:
                return found, depth, end - self._at, False
            position = end + 1
            if mark in {b"[", b"{"}:
                depth += 1
            elif depth:
                depth -= 1
            else:
                if mark == b"}":
                    self._at = end
                    raise self._malformed("',' or ']'")
                found.append(self._buffer[self._at : end].strip(_WHITE))
                self._at = position
                if mark == b"]":
                    return found, 0, 0, True

    def _next_mark(self, position: int, depth: int) -> tuple[bytes, int]:
        match = (_INSIDE if depth else _BETWEEN).match(self._buffer, position)
        assert match is not None  # the patterns match the empty text
        return match[1], match.start(1)

    def _key(self) -> str:
        if self.peek() != b'"':
            raise self._malformed("a field name")
        while (match := _STRING.match(self._buffer, self._at)) is None:
            if not self._more():
                raise self._cut_off()
        self._at = match.end()
        try:
            name = msgspec.json.decode(match[0], type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._malformed("a field name") from None
        self._take(b":")
        return name

    def _take(self, wanted: bytes) -> bytes:
        byte = self.peek()
        if not byte or byte not in wanted:
            raise self._malformed(" or ".join(repr(chr(one)) for one in wanted))
        self._at += 1
        return byte

    def _more(self) -> bool:
        """Read on, as much again as is held, so that the longest record costs its length and not its square."""
        rest = self._buffer[self._at :]
        if len(rest) > RECORD_BYTES:
            raise self._too_long()
        block = self._read(max(BLOCK_BYTES, len(rest)))
        self._offset += self._at
        self._buffer, self._at = rest + block, 0
        return bool(block)

    def _malformed(self, wanted: str) -> SourceError:
        if self._at >= len(self._buffer):
            return self._cut_off()
        byte = self._offset + self._at
        return SourceError(f"{self._place}: no valid JSON at byte {byte}: {wanted} is expected there")

    def _cut_off(self) -> SourceError:
        return SourceError(f"{self._place} is cut off: its JSON is not closed", "Fetch or write it again.")

    def _too_long(self) -> SourceError:
        return SourceError(
            f"{self._place}: a record is longer than {RECORD_BYTES >> 20} MB",
            "Check data_selector: it should lead to the array of records.",
        )


def _split_lines(text: bytes) -> list[bytes]:
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").removesuffix(b"\r")
    lines = text.split(b"\n")
    return [line for line in lines if line] if b"" in lines else lines
