"""Reads the rows of an Excel sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import msgspec

from syncline.connectors import PAGE_BYTES, Page
from syncline.connectors.sheet_rows import CellRange, header_names, parse_range
from syncline.errors import ConfigurationError, SourceError

_encode = msgspec.json.Encoder(enc_hook=str).encode


class SheetForm(msgspec.Struct, frozen=True, kw_only=True):
    """What to read of a workbook: the first sheet where none is named, the columns and rows of `range` (`B3:F`)."""

    sheet: str | None = None
    range: str | None = None
    header_row: int | None = None


def read_sheet(content: BinaryIO, form: SheetForm, place: str) -> Iterator[Page]:
    """Yield the rows below the header; a page's ordinal is the sheet's row number, rows without a value are left out.

    A workbook is held in memory whole. Raises SourceError where it is no workbook, has no such sheet or no header.
    """
    area = parse_range(form.range) if form.range else CellRange()
    header_row = form.header_row or area.first_row
    with _opened(content, place) as workbook:
        name = _choose(workbook.sheet_names, form.sheet, place)
        sheet = workbook.get_sheet_by_name(name)
    rows = _cut(sheet, area)
    first = next((cells for number, cells in rows if number == header_row), [])
    texts = [str(_value(cell) or "") for cell in first]
    header = header_names(texts, f"{place}: row {header_row} of {name!r}", area.first_column)
    yield from _pages(header, rows)


def sheet_names(content: BinaryIO, place: str) -> list[str]:
    """Return the names of the sheets; raises SourceError where it is no workbook."""
    with _opened(content, place) as workbook:
        return list(workbook.sheet_names)


@contextmanager
def _opened(content: BinaryIO, place: str) -> Iterator[Any]:
    try:
        import python_calamine
    except ImportError:
        raise ConfigurationError(f"{place}: Excel needs python-calamine", "pip install 'syncline[excel]'") from None
    try:
        yield python_calamine.CalamineWorkbook.from_filelike(content)
    except python_calamine.PasswordError:
        raise SourceError(f"{place} has a password", "Write it without one.") from None
    except python_calamine.CalamineError:
        raise SourceError(
            f"{place} is cut off or damaged: it is no Excel workbook", "Fetch or write it again."
        ) from None


def _choose(names: Sequence[str], wanted: str | None, place: str) -> str:
    if not names:
        raise SourceError(f"{place} has no sheet")
    if wanted is None or wanted in names:
        return wanted or names[0]
    raise SourceError(f"{place} has no sheet {wanted!r}", f"Its sheets: {', '.join(names)}.")


def _cut(sheet: Any, area: CellRange) -> Iterator[tuple[int, list[Any]]]:
    """Yield the rows of the area with their numbers."""
    # Its rows begin with the first of the sheet, its columns with the first that has a value.
    left = [""] * (sheet.start or (0, 0))[1]
    for number, cells in enumerate(sheet.iter_rows(), 1):
        if area.last_row is not None and number > area.last_row:
            return
        if number >= area.first_row:
            yield number, [*left, *cells][area.first_column - 1 : area.last_column]


def _pages(header: Sequence[str], rows: Iterator[tuple[int, list[Any]]]) -> Iterator[Page]:
    page, size = Page([]), 0
    for number, cells in rows:
        values = [_value(cell) for cell in cells[: len(header)]]
        if not any(value is not None for value in values):
            continue
        # A page's rows are in one piece.
        if page.ordinal is not None and (number != page.ordinal + len(page.records) or size >= PAGE_BYTES):
            yield page
            page, size = Page([]), 0
        page.ordinal = number if page.ordinal is None else page.ordinal
        values += [None] * (len(header) - len(values))
        text = _encode(dict(zip(header, values, strict=True)))
        page.records.append(text)
        size += len(text)
    if page.records:
        yield page


def _value(cell: Any) -> Any:
    """Return a cell as JSON has it: Excel's numbers are all floats, and an empty cell is an empty text."""
    if type(cell) is str:
        return cell or None
    if type(cell) is float:
        return int(cell) if cell.is_integer() and abs(cell) < 1 << 53 else cell
    return cell
