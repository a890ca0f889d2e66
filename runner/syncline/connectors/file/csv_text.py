"""Turns the rows of a CSV file into JSON objects of strings."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from io import BufferedReader, TextIOWrapper
from itertools import chain, islice

import msgspec

from syncline.connectors import PAGE_BYTES, Page
from syncline.connectors.file.csv_dialect import Dialect, cut_cells, sniff
from syncline.connectors.json_text import RECORD_BYTES
from syncline.errors import ConfigurationError, SourceError

# Python's limit for one cell, 128 KB, is for the whole process; ours is the record's.
csv.field_size_limit(RECORD_BYTES)

_SAMPLE_LINES = 100
_SAMPLE_CHARACTERS = 1 << 16

_encode = msgspec.json.Encoder().encode


class CsvForm(msgspec.Struct, frozen=True, kw_only=True):
    """How a CSV file is written. `header` is whether its first row names the columns, or their names; `skip_rows`
    lines lie before that; `null_values` are the cells that stand for null.
    """

    encoding: str = "utf-8"
    dialect: Dialect = Dialect()
    header: bool | list[str] = True
    skip_rows: int = 0
    null_values: tuple[str, ...] = ("",)


def read_rows(file: BufferedReader, form: CsvForm, place: str) -> Iterator[Page]:
    """Yield the rows below the header as JSON objects.

    A row with too few or too many cells, or with bytes that are not of the encoding, is marked unreadable. Raises
    SourceError where names of the header are empty or there twice, or where the file ends within a row.
    """
    lines = _Lines(file, form.encoding)
    lines.skip(form.skip_rows)
    dialect = lines.sniff(form.dialect)
    header, rows = _read_header(cut_cells(lines, dialect), form.header, place)
    nulls = frozenset(form.null_values)
    is_usual = nulls == {""}
    page, size = Page([]), 0
    for cells in rows:
        if len(cells) != len(header):
            if not cells:
                continue
            if lines.is_open_ended and len(cells) < len(header):
                raise SourceError(f"{place} is cut off: it ends within a row", "Fetch or write it again.")
            page.unreadable[len(page.records)] = f"has {len(cells)} cells, the header has {len(header)}"
        values: list[str] | list[str | None] = cells
        if is_usual:
            values = [cell or None for cell in cells] if "" in cells else cells
        elif not nulls.isdisjoint(cells):
            values = [None if cell in nulls else cell for cell in cells]
        record = dict(zip(header, values, strict=False))
        try:
            text = _encode(record)
        except UnicodeEncodeError:
            page.unreadable[len(page.records)] = f"has bytes that are not {form.encoding}"
            text = _encode({name: _if_decoded(cell) for name, cell in record.items()})
        if lines.is_exhausted:
            raise SourceError(f"{place} is cut off: it ends within a quoted cell", "Fetch or write it again.")
        page.records.append(text)
        size += len(text)
        if size >= PAGE_BYTES:
            yield page
            page, size = Page([]), 0
    if page.records:
        yield page


def _read_header(
    rows: Iterator[list[str]], header: bool | list[str], place: str
) -> tuple[Sequence[str], Iterator[list[str]]]:
    """Return the names of the columns, and the rows below them."""
    if isinstance(header, list):
        return check_names(header, place), rows
    first = next((cells for cells in rows if cells), None)
    if not header:
        names = [f"column_{number}" for number in range(1, len(first or ()) + 1)]
        return names, chain([] if first is None else [first], rows)
    if first is None:
        raise SourceError(f"{place} is empty: the first row of a CSV file gives the names of the columns")
    if any(_if_decoded(name) is None for name in first):
        raise SourceError(f"{place}: the header cannot be decoded", "Set the file's encoding.")
    return check_names(first, place), rows


def check_names(header: Sequence[str], place: str) -> Sequence[str]:
    """Return the names of the columns; raises SourceError where one is empty or there twice."""
    if "" in header:
        raise SourceError(f"{place}: column {header.index('') + 1} has no name in the header", "Give each column one.")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise SourceError(f"{place}: the header names {twice!r} twice", "Give each column a name of its own.")
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
        self._ahead: list[str] = []
        self.is_open_ended = False
        """The last line read has no line end, as only the file's last may."""
        self.is_exhausted = False
        """More was asked for than there is. The csv module does so within a row only where a quote is not closed."""

    def skip(self, lines: int) -> None:
        for _ in islice(self._text, lines):
            pass

    def sniff(self, dialect: Dialect) -> Dialect:
        """Return the dialect with what it leaves open told from the next lines, which are read again."""
        if dialect.delimiter is not None and dialect.quote is not None:
            return dialect
        left = _SAMPLE_CHARACTERS
        while left > 0 and len(self._ahead) < _SAMPLE_LINES and (line := self._text.readline()):
            self._ahead.append(line.removeprefix("\ufeff"))
            left -= len(line)
        is_whole = left > 0 and len(self._ahead) < _SAMPLE_LINES
        return sniff(self._ahead, dialect, is_whole=is_whole)

    def __iter__(self) -> Iterator[str]:
        ahead, self._ahead = self._ahead, []
        for line in chain(ahead, self._text):
            self.is_open_ended = not line.endswith(("\n", "\r"))
            yield line
        self.is_exhausted = True
