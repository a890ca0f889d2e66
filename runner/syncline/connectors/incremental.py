"""Remembers how far an increment has come: the greatest value of one field over the records."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from syncline.connectors import Cursor
from syncline.connectors.json_text import JsonPath, parse_path
from syncline.errors import SourceError

Value = str | int | float


class Incremental(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks with `start_param` for what changed since the greatest value at `cursor_path`, `initial_value` at first.

    `row_order: asc` says that records come in that order; then each page moves the cursor, and not only the last.
    """

    cursor_path: JsonPath
    start_param: str
    initial_value: Value | None = None
    row_order: Literal["asc", "desc"] | None = None


class Watermark:
    """The greatest value so far; numbers compare as numbers, strings by their characters."""

    def __init__(self, settings: Incremental, cursor: Cursor | None, label: str) -> None:
        self._settings = settings
        self._label = label
        self._decode = _value_decoder(parse_path(settings.cursor_path)).decode
        self._start: Value | None = cursor["value"] if cursor else None
        self._highest = self._start

    def params(self) -> dict[str, Value]:
        """Return what to ask with."""
        start = self._settings.initial_value if self._start is None else self._start
        return {} if start is None else {self._settings.start_param: start}

    def cursor(self, *, is_last: bool) -> Cursor | None:
        """Return the state to save with a page, None where it is too early.

        Records that come in no order, or the newest first, leave nothing to go on from until all are there.
        """
        is_safe = is_last or self._settings.row_order == "asc"
        return {"value": self._highest} if is_safe and self._highest is not None else None

    def follow(self, records: list[bytes]) -> None:
        """Take the records' values in; raises SourceError where some are strings and some are numbers."""
        values = [value for record in records if (value := self._value(record)) is not None]
        if not values:
            return
        if self._highest is not None:
            values.append(self._highest)
        try:
            self._highest = max(values)
        except TypeError:
            raise self._mixed() from None

    def _value(self, record: bytes) -> Any:
        try:
            found = self._decode(record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # The loader judges the record.
            return None
        while isinstance(found, msgspec.Struct):
            found = found.value  # type: ignore[attr-defined]
        if isinstance(found, bool | list | dict):
            raise self._mixed()
        return found

    def _mixed(self) -> SourceError:
        return SourceError(
            f"{self._label}: the values of {self._settings.cursor_path!r} are not all strings or all numbers",
            "Choose another cursor_path.",
        )


def _value_decoder(path: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Return a decoder that reads the field at `path` alone: structs in structs, None where there is nothing."""
    shape: Any = Any
    for name in reversed(path):
        shape = msgspec.defstruct("Level", [("value", shape | None, None)], rename={"value": name})
    return msgspec.json.Decoder(shape)
