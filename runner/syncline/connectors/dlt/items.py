"""Writes what dlt resources yield (dicts, lists of them, Arrow tables, data frames) as JSON records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any

import msgspec

from syncline.connectors import PAGE_BYTES, Page

PAGE_RECORDS = 10_000


class Records:
    """Gathers records into pages. Decimals become numbers with all their digits, times ISO 8601, bytes base64."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain).encode
        self._page = Page([])
        self._size = 0

    def take(self, item: Any) -> Iterator[Page]:
        """Take what a resource yielded and yield the pages that are full; raises TypeError where it is no record."""
        for record in _rows(item):
            try:
                text = self._encode(record)
            except (TypeError, ValueError, RuntimeError) as error:
                text = self._take_bad(record, error)
            self._page.records.append(text)
            self._size += len(text)
            if self._size >= PAGE_BYTES or len(self._page.records) >= PAGE_RECORDS:
                yield self.last()

    def last(self) -> Page:
        """Return what has been gathered since the last page."""
        page, self._page, self._size = self._page, Page([]), 0
        return page

    def _take_bad(self, record: Mapping[str, Any], error: Exception) -> bytes:
        """Note what is wrong with a record, and write it so that its key can be read."""
        kind = "text that is no Unicode" if isinstance(error, UnicodeError) else "a value that JSON cannot hold"
        self._page.unreadable[len(self._page.records)] = kind
        known = {name: value for name, value in record.items() if isinstance(name, str)}
        try:
            return json.dumps(known, default=str).encode()
        except (TypeError, ValueError, RecursionError):
            return b"{}"


def _rows(item: Any) -> Iterable[Mapping[str, Any]]:
    """Return the records of an item, a batch of them at a time in memory where it has many."""
    if isinstance(item, dict):
        return (item,)
    if isinstance(item, list | tuple):
        return (row for part in item for row in _rows(part))
    if hasattr(item, "to_batches"):  # Arrow's tables
        return (row for batch in item.to_batches(max_chunksize=PAGE_RECORDS) for row in batch.to_pylist())
    if hasattr(item, "to_pylist") and hasattr(item, "schema"):  # Arrow's batches
        return (
            row for start in range(0, len(item), PAGE_RECORDS) for row in item.slice(start, PAGE_RECORDS).to_pylist()
        )
    if hasattr(item, "iloc") and hasattr(item, "columns"):  # pandas
        parts = (item.iloc[start : start + PAGE_RECORDS] for start in range(0, len(item), PAGE_RECORDS))
        return (row for part in parts for row in part.to_dict("records"))
    return (_row(item),)


def _row(item: Any) -> Mapping[str, Any]:
    if hasattr(item, "model_dump"):  # pydantic
        dumped: dict[str, Any] = item.model_dump()
        return dumped
    if isinstance(item, Mapping):
        return dict(item)
    raise TypeError(type(item).__name__)


def _plain(value: Any) -> Any:
    """Return what JSON has for a value of another type; raises NotImplementedError where it has nothing."""
    if type(value).__name__ in {"NaTType", "NAType"}:
        return None
    if isinstance(value, timedelta):
        return timedelta(seconds=value.total_seconds())
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    for kind in (str, int, float, bytes):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return dict(value)
    for method in ("model_dump", "tolist"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise NotImplementedError
