"""Remembers how far an increment has come: the greatest value of one field over the records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import msgspec

from syncline.connectors import Cursor, Fetch
from syncline.connectors.json_text import JsonPath, parse_path
from syncline.errors import ConfigurationError, SourceError

Value = str | int | float

_DATE_LENGTH = len("2026-01-31")


class Incremental(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks with `start_param` for what changed since the greatest value at `cursor_path`, `initial_value` at first.

    `end_param` carries `end_value`, or a backfill's end. `lag` asks for so much more before the start: seconds of a
    time, days of a date, else a number. `row_order: asc` says that records come in that order; then each page moves the
    cursor, and not only the last.
    """

    cursor_path: JsonPath
    start_param: str | None = None
    end_param: str | None = None
    initial_value: Value | None = None
    end_value: Value | None = None
    lag: float | None = None
    row_order: Literal["asc", "desc"] | None = None


class Watermark:
    """The greatest value so far; numbers compare as numbers, times as times, other strings by their characters.

    `used` are the placeholders that the stream's path, params and body have.
    """

    def __init__(self, settings: Incremental, fetch: Fetch, used: set[str]) -> None:
        self._settings = settings
        self._label = fetch.stream.label
        self._decode = _value_decoder(parse_path(settings.cursor_path)).decode
        self._is_backfill = fetch.since is not None or fetch.until is not None
        self._last: Value | None = fetch.cursor.get("value") if fetch.cursor else None
        self._highest: Value | None = (fetch.position or {}).get("mark", self._last)
        self._start = fetch.since if self._is_backfill else self._first()
        self._end = fetch.until if self._is_backfill else settings.end_value
        is_start_sent = bool(settings.start_param) or bool(used & {"incremental.start_value", "incremental.last_value"})
        is_end_sent = bool(settings.end_param) or "incremental.end_value" in used
        if not is_start_sent:
            raise ConfigurationError(
                f"{self._label}: `incremental` has no start_param, and no placeholder says where to start",
                "Set start_param, or write {incremental.start_value} into params, path or json.",
            )
        self._drops_after = None if is_end_sent else self._end

    def params(self) -> dict[str, Value]:
        """Return what to ask with."""
        asked = {self._settings.start_param: self._start, self._settings.end_param: self._end}
        return {name: value for name, value in asked.items() if name is not None and value is not None}

    def values(self) -> dict[str, Value | None]:
        """Return what the placeholders stand for."""
        return {
            "incremental.start_value": self._start,
            "incremental.last_value": self._start,
            "incremental.initial_value": self._settings.initial_value,
            "incremental.end_value": self._end,
        }

    def position(self) -> dict[str, Value]:
        """Return what a fetch that goes on needs to know of the records before."""
        return {} if self._highest is None else {"mark": self._highest}

    def cursor(self, *, is_last: bool) -> Cursor | None:
        """Return the state to save with a page, None where it is too early.

        Records that come in no order, or the newest first, leave nothing to go on from until all are there.
        """
        is_safe = not self._is_backfill and (is_last or self._settings.row_order == "asc")
        return {"value": self._highest} if is_safe and self._highest is not None else None

    def follow(self, records: list[bytes]) -> list[bytes]:
        """Take the records' values in; return the records without those after the end.

        Raises SourceError where some values are strings and some are numbers.
        """
        values = [self._value(record) for record in records]
        if self._drops_after is not None:
            kept = [place for place, value in enumerate(values) if value is None or not self._is_after_end(value)]
            records, values = [records[place] for place in kept], [values[place] for place in kept]
        found = [value for value in values if value is not None]
        if found:
            found = found if self._highest is None else [*found, self._highest]
            try:
                self._highest = _greatest(found)
            except TypeError:
                raise self._mixed() from None
        return records

    def _first(self) -> Value | None:
        """Return what to ask with where the last load ended: the lag before it, not before the initial value."""
        settings = self._settings
        if self._last is None:
            return settings.initial_value
        if not settings.lag:
            return self._last
        lagged = _before(self._last, settings.lag)
        if lagged is None:
            raise ConfigurationError(
                f"{self._label}: its cursor is neither a number nor a time, so no lag can be taken from it",
                "Leave out `lag`.",
            )
        if settings.initial_value is None:
            return lagged
        try:
            return cast("Value", _greatest([lagged, settings.initial_value]))
        except TypeError:
            return lagged

    def _is_after_end(self, value: Value) -> bool:
        end = self._drops_after
        if isinstance(value, str):
            return _is_later_than_end(value, str(end))
        try:
            return value > float(end)  # type: ignore[arg-type]
        except ValueError:
            raise ConfigurationError(
                f"{self._label}: the range ends at something that is no number, and its cursor is one",
                "Write the range as the source writes its cursor.",
            ) from None

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


def _greatest(values: list[Any]) -> Any:
    """Return the greatest value as it is written; raises TypeError where strings and numbers are mixed."""
    if not isinstance(values[0], str):
        return max(values)
    try:
        # Of one moment written twice, either will do; text tells apart what is finer than a microsecond.
        return max([(_moment(value), value) for value in values])[1]
    except ValueError:
        return max(values)


def _moment(text: str) -> datetime:
    """Return the time that ISO 8601 text tells, in UTC where it names no zone; raises ValueError for other text."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _is_later_than_end(value: str, end: str) -> bool:
    try:
        moment, last = _moment(value), _moment(end)
    except ValueError:
        return value > end
    # The end is included: of a date, the whole day.
    return moment >= last + timedelta(days=1) if len(end) == _DATE_LENGTH else moment > last


def _before(value: Value, lag: float) -> Value | None:
    """Return the value `lag` before this one, written in the same way, None where it is neither a number nor a time."""
    if not isinstance(value, str):
        earlier = value - lag
        return int(earlier) if isinstance(value, int) and float(earlier).is_integer() else earlier
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if len(value) == _DATE_LENGTH:
        return (moment - timedelta(days=lag)).date().isoformat()
    fraction = value.partition(".")[2].rstrip("Z").split("+")[0].split("-")[0]
    digits: Literal["seconds", "milliseconds", "microseconds"] = (
        "microseconds" if len(fraction) > 3 else "milliseconds" if fraction else "seconds"
    )
    text = (moment - timedelta(seconds=lag)).isoformat(sep=value[_DATE_LENGTH], timespec=digits)
    return text.removesuffix("+00:00") + "Z" if value.endswith("Z") else text


def _value_decoder(path: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Return a decoder that reads the field at `path` alone: structs in structs, None where there is nothing."""
    shape: Any = Any
    for name in reversed(path):
        shape = msgspec.defstruct("Level", [("value", shape | None, None)], rename={"value": name})
    return msgspec.json.Decoder(shape)
