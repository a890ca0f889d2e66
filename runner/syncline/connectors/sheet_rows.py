"""What sheets have in common: ranges written as `B3:F`, a header that names the columns, titles that name streams."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from syncline.config import ENTITY_NAME_BYTES
from syncline.errors import ConfigurationError, SourceError

_RANGE = re.compile(r"([A-Za-z]{1,3})([1-9]\d*)?(?::([A-Za-z]{1,3})?([1-9]\d*)?)?")


@dataclass(frozen=True, slots=True)
class CellRange:
    """Columns and rows, counted from 1, both ends included; None is to the end."""

    first_column: int = 1
    first_row: int = 1
    last_column: int | None = None
    last_row: int | None = None


def parse_range(text: str) -> CellRange:
    """Return the cells that `B3:F90`, `B3:F`, `B:F` or `B3:90` names; raises ConfigurationError for anything else."""
    match = _RANGE.fullmatch(text)
    if not match:
        raise ConfigurationError(f"{text!r} is no range of cells", "Write it as A1:F90, A3:F or A:F.")
    first, row, last, last_row = match.groups()
    found = CellRange(
        column_number(first), int(row or 1), column_number(last) if last else None, int(last_row) if last_row else None
    )
    if (found.last_column or found.first_column) < found.first_column or (
        found.last_row or found.first_row
    ) < found.first_row:
        raise ConfigurationError(f"the range {text!r} ends before it begins", "Write it as A1:F90, A3:F or A:F.")
    return found


def column_number(letters: str) -> int:
    """Return 1 for A, 27 for AA."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - 64
    return number


def column_letters(number: int) -> str:
    """Return A for 1, AA for 27."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def header_names(cells: Sequence[str], place: str, first_column: int = 1) -> list[str]:
    """Return the columns' names, without empty ones at the end.

    Raises SourceError, which begins with `place`, for a header without a name, with a gap, or with one name twice.
    """
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise SourceError(f"{place} names no column", "Set header_row to the row with the columns' names.")
    gaps = [column_letters(first_column + place) for place, name in enumerate(names) if not name]
    if gaps:
        raise SourceError(
            f"{place}: {_columns(gaps)} no name", "Name each column in the header, or set `range` to leave it out."
        )
    for name in names:
        if names.count(name) > 1:
            where = [column_letters(first_column + place) for place, other in enumerate(names) if other == name]
            raise SourceError(
                f"{place}: columns {' and '.join(where)} are both named {name!r}", "Give each column a name of its own."
            )
    return names


def stream_name(title: str, taken: set[str]) -> str:
    """Return a stream's name made of a title, unlike those that are `taken`, and take it."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[: ENTITY_NAME_BYTES - 6]
    name = words if words and not words[0].isdigit() else f"t_{words}".strip("_")
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique)
    return unique


def _columns(letters: Sequence[str]) -> str:
    return f"column {letters[0]} has" if len(letters) == 1 else f"columns {', '.join(letters)} have"
