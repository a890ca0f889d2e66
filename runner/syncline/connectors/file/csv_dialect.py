"""Tells how a CSV file is written from its first rows: delimiter and quote."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence

import msgspec

DELIMITERS = (",", ";", "\t", "|")


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How to cut lines into cells, each of one character; no `quote` (empty) where quotes are text like any other."""

    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None


def sniff(lines: Sequence[str], dialect: Dialect, *, is_whole: bool) -> Dialect:
    """Return the dialect with what it leaves open told from `lines`, the first of a file.

    The delimiter is the one that gives most rows as many cells as the first has, and more than one; a comma where
    there is none such. A quote is `"` unless the first row has cells in `'` and there is no `"`.
    """
    quote = dialect.quote if dialect.quote is not None else _sniff_quote(lines)
    if dialect.delimiter is not None:
        return Dialect(delimiter=dialect.delimiter, quote=quote, escape=dialect.escape)
    # The last line may go on in lines that are not here.
    sample = list(lines) if is_whole or len(lines) < 2 else list(lines[:-1])
    candidates = [Dialect(delimiter=delimiter, quote=quote, escape=dialect.escape) for delimiter in DELIMITERS]
    return max(candidates, key=lambda candidate: _fit(sample, candidate))


def cut_cells(lines: Iterable[str], dialect: Dialect) -> Iterator[list[str]]:
    """Yield the cells of each row, as the csv module cuts them."""
    return csv.reader(
        lines,
        delimiter=dialect.delimiter or ",",
        quotechar=dialect.quote or None,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        escapechar=dialect.escape,
    )


def _fit(lines: Sequence[str], dialect: Dialect) -> tuple[float, int]:
    """Return the share of rows with as many cells as the first, and that number; nothing for a single cell."""
    sizes = [len(cells) for cells in cut_cells(lines, dialect) if cells]
    if not sizes or sizes[0] < 2:
        return 0.0, 0
    return sizes.count(sizes[0]) / len(sizes), sizes[0]


def _sniff_quote(lines: Sequence[str]) -> str:
    if any('"' in line for line in lines):
        return '"'
    first = next((line.strip() for line in lines if line.strip()), "")
    cells = [cell for delimiter in DELIMITERS if delimiter in first for cell in first.split(delimiter)] or [first]
    return "'" if any(len(cell) > 2 and cell[0] == cell[-1] == "'" for cell in cells) else '"'
