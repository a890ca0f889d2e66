"""What a load has met so far: counts, row errors, fields; JSON, so that a fetch that was cut off can go on with it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any

import msgspec

from syncline.config import Stream
from syncline.connectors import Cursor
from syncline.errors import SourceError
from syncline.records import BadRecordError

KEPT_ERRORS = 10_000
"""So many row errors of a load are kept in full; the rest is counted."""


KEPT_KEYS = 100_000
"""Of so many rejected records the revisions are kept one by one; with more, the load closes nothing."""

KEPT_RECORD_BYTES = 1 << 20
"""Rejected records up to this size are kept, so that they can be replayed."""

KEPT_BYTES = 16 << 20
"""So many bytes of rejected records a load keeps in all: what is left out must be loaded again."""

WATCHED_FIELDS = 10_000
"""So many names of fields are told apart; where names are data, there is no end of new ones."""


class Tally(msgspec.Struct):
    """Counts of records, and what must outlive their pages."""

    read: int = 0
    ordinal: int = 0
    staged: int = 0
    rejected: int = 0
    is_closing: bool = True
    errors: list[dict[str, Any]] = []
    kept_keys: list[str] = []
    new_fields: set[str] = set()
    cursor: Cursor | None = None
    kept_bytes: int = 0

    def reject(
        self, stream: Stream, ordinal: int, record: bytes, error: BadRecordError, *, is_readable: bool = True
    ) -> None:
        """Note a record that is not taken, and keep it; without a key, the load closes nothing.

        One that the connector could not read is kept to be looked at, not to be replayed.
        """
        if error.key is None or len(self.kept_keys) >= KEPT_KEYS:
            self.is_closing = False
            self.kept_keys.clear()
        elif self.is_closing:
            self.kept_keys.append(error.key.decode())
        self.rejected += 1
        is_noted = self._note(stream, ordinal, record, error, "error")
        size = len(record)
        is_small = size <= KEPT_RECORD_BYTES and self.kept_bytes + size <= KEPT_BYTES
        if is_noted and is_small and not stream.common.redact:
            self.kept_bytes += size
            self.errors[-1] |= {"record": b64encode(record).decode(), "is_readable": is_readable}

    def duplicate(self, stream: Stream, ordinal: int, record: bytes, message: str, key: bytes) -> None:
        """Note a record whose key came more than once."""
        self.rejected += 1
        self._note(stream, ordinal, record, BadRecordError(message, key), "warning")

    def watch_fields(self, stream: Stream, ordinal: int, record: bytes, key: bytes, known: set[str] | None) -> None:
        """Note fields that no load before had; raises SourceError where the stream wants none."""
        names = set(msgspec.json.decode(record, type=dict[str, msgspec.Raw])) - self.new_fields
        fresh = sorted(names - (known or set()))
        if not fresh or len(self.new_fields) >= WATCHED_FIELDS:
            return
        if known is not None and stream.common.on_new_field == "fail":
            raise SourceError(
                f"{stream.label} has a new field: {fresh[0]}", "Take it into the model, or set on_new_field to warn."
            )
        self.new_fields.update(fresh)
        if known is not None:
            self._note(stream, ordinal, b"", BadRecordError(f"new field: {', '.join(fresh)}", key), "warning")

    def forget(self, outrun: Iterable[dict[str, Any]]) -> None:
        """Keep the records of these errors no longer: the load has a later one of the same key."""
        for error in outrun:
            self.kept_bytes -= len(error.pop("record")) * 3 // 4

    def _note(self, stream: Stream, ordinal: int, record: bytes, error: BadRecordError, severity: str) -> bool:
        if len(self.errors) >= KEPT_ERRORS:
            return False
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
        return True
