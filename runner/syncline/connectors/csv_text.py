"""Turns the rows of a CSV file into JSON objects of strings."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from io import BufferedReader, TextIOWrapper

import msgspec

from syncline.connectors import Page
from syncline.connectors.json_text import BLOCK_BYTES, RECORD_BYTES
from syncline.errors import ConfigurationError, SourceError

# Python's limit for one cell, 128 KB, is for the whole process; ours is the record's.
csv.field_size_limit(RECORD_BYTES)

_encode = msgspec.json.Encoder().encode


def read_rows(file: BufferedReader, delimiter: str, encoding: str, place: str) -> Iterator[Page]:
    """Yield the rows below the header as JSON objects; an empty cell is null.

    A row with too few or too many cells, or with bytes that are not `encoding`, is marked unreadable. Raises
    SourceError where names of the header are empty or there twice, or where the file ends within a row.
    """
    lines = _Lines(file, encoding)
    rows = csv.reader(lines, delimiter=delimiter)
    header = _read_header(rows, place)
    page, size = Page([]), 0
    for cells in rows:
        if len(cells) != len(header):
            if not cells:
                continue
            if lines.is_open_ended and len(cells) < len(header):
                raise SourceError(f"{place} is cut off: it ends within a row", "Fetch or write it again.")
            page.unreadable[len(page.records)] = f"has {len(cells)} cells, the header has {len(header)}"
        values: list[str] | list[str | None] = [cell or None for cell in cells] if "" in cells else cells
        record = dict(zip(header, values, strict=False))
        try:
            text = _encode(record)
        except UnicodeEncodeError:
            page.unreadable[len(page.records)] = f"has bytes that are not {encoding}"
            text = _encode({name: _if_decoded(cell) for name, cell in record.items()})
        if lines.is_exhausted:
            raise SourceError(f"{place} is cut off: it ends within a quoted cell", "Fetch or write it again.")
        page.records.append(text)
        size += len(text)
        if size >= BLOCK_BYTES:
            yield page
            page, size = Page([]), 0
    if page.records:
        yield page


def _read_header(rows: Iterator[list[str]], place: str) -> Sequence[str]:
    header = next((cells for cells in rows if cells), None)
    if header is None:
        raise SourceError(f"{place} is empty: the first row of a CSV file gives the names of the columns")
    if "" in header:
        raise SourceError(f"{place}: column {header.index('') + 1} has no name in the header")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise SourceError(f"{place}: the header names {twice!r} twice", "Give each column a name of its own.")
    if any(_if_decoded(name) is None for name in header):
        raise SourceError(f"{place}: the header cannot be decoded", "Set the file's encoding.")
    return header


def _if_decoded(cell: str | None) -> str | None:
    """Return the cell, or None where a byte of it was not decoded: a damaged key must not pass for another."""
    return cell if cell is not None and not any("\udc80" <= char <= "\udcff" for char in cell) else None


class _Lines:
    """The lines of a text file, which remembers how they ended."""

    def __init__(self, file: BufferedReader, encoding: str) -> None:
        try:
            # Kept here: a wrapper that is let go closes its file.
            self._text = TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
        except LookupError:
            raise ConfigurationError(f"the encoding {encoding!r} is not known", "utf-8 and latin-1 are.") from None
        self.is_open_ended = False
        """The last line read has no line end, as only the file's last may."""
        self.is_exhausted = False
        """More was asked for than there is. The csv module does so within a row only where a quote is not closed."""

    def __iter__(self) -> Iterator[str]:
        for line in self._text:
            self.is_open_ended = not line.endswith(("\n", "\r"))
            yield line
        self.is_exhausted = True
