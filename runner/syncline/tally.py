"""What a load has met so far: counts, row errors, fields; JSON, so that a fetch that was cut off can go on with it."""

from __future__ import annotations

from typing import Any

import msgspec

from syncline.config import Stream
from syncline.connectors import Cursor
from syncline.errors import SourceError
from syncline.records import BadRecordError

KEPT_ERRORS = 10_000
"""So many row errors of a load are kept in full; the rest is counted."""


class Tally(msgspec.Struct):
    """Counts of records, and what must outlive their pages."""

    read: int = 0
    ordinal: int = 0
    staged: int = 0
    rejected: int = 0
    is_closing: bool = True
    errors: list[dict[str, Any]] = []
    kept_keys: list[str] = []
    new_fields: list[str] = []
    cursor: Cursor | None = None

    def reject(self, stream: Stream, ordinal: int, record: bytes, error: BadRecordError) -> None:
        """Note a record that is not taken; without a key, the load closes nothing."""
        if error.key is None:
            self.is_closing = False
        else:
            self.kept_keys.append(error.key.decode())
        self.rejected += 1
        self._note(stream, ordinal, record, error, "error")

    def duplicate(self, stream: Stream, ordinal: int, record: bytes, message: str, key: bytes) -> None:
        """Note a record whose key came more than once."""
        self.rejected += 1
        self._note(stream, ordinal, record, BadRecordError(message, key), "warning")

    def watch_fields(self, stream: Stream, ordinal: int, record: bytes, key: bytes, known: set[str] | None) -> None:
        """Note fields that no load before had; raises SourceError where the stream wants none."""
        names = set(msgspec.json.decode(record, type=dict[str, msgspec.Raw])) - set(self.new_fields)
        fresh = sorted(names - (known or set()))
        if not fresh:
            return
        if known is not None and stream.common.on_new_field == "fail":
            raise SourceError(
                f"{stream.label} has a new field: {fresh[0]}", "Take it into the model, or set on_new_field to warn."
            )
        self.new_fields += fresh
        if known is not None:
            self._note(stream, ordinal, b"", BadRecordError(f"new field: {', '.join(fresh)}", key), "warning")

    def _note(self, stream: Stream, ordinal: int, record: bytes, error: BadRecordError, severity: str) -> None:
        if len(self.errors) >= KEPT_ERRORS:
            return
        value = None if stream.common.redact else record[:1000].decode("utf-8", "replace").replace("\0", "\ufffd")
        self.errors.append(
            {
                "_key": error.key.decode() if error.key else None,
                "row_number": ordinal,
                "value": value,
                "message": error.message,
                "severity": severity,
            }
        )
