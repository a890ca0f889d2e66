"""The live records of a stream in memory, as 26 bytes each, to tell what a full load changes."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator

from psycopg import sql

from syncline import db

# Entries are grouped by the first two bytes of the hash; each holds the other 14 and the row's address of 6.
_BUCKETS = 65536
_HASH, _ENTRY = 14, 20
_HEADER, _BUCKET_AT, _CONTENT_AT = 19, 6, 14

_QUERY = sql.SQL("""
copy (
    select
        get_byte(hash, 0) * 256 + get_byte(hash, 1),
        string_agg(substr(hash, 3) || tidsend(address), '')
    from (select uuid_send(_hash) as hash, ctid as address from {} where _gone_load is null offset 0) as live
    group by 1
) to stdout (format binary)
""")


class LiveRecords:
    """Hashes and addresses of a stream's live records, with the place in this load where each was seen."""

    def __init__(self, connection: db.Connection, table: sql.Identifier) -> None:
        self._buckets = [b""] * _BUCKETS
        with db.translated(), connection.transaction(), connection.cursor() as cursor:
            # Grouped by the server: a fifth faster than in Python, and it leaves no garbage here.
            cursor.execute("set local work_mem = '128MB'")
            with cursor.copy(_QUERY.format(table)) as copy:
                self._read(copy)
        self._starts = array("L", [0]) * _BUCKETS
        total = 0
        for bucket, content in enumerate(self._buckets):
            self._starts[bucket] = total
            total += len(content) // _ENTRY
        self._seen = array("I", [0]) * total

    def _read(self, copy: Iterable[bytes | bytearray | memoryview]) -> None:
        at = _HEADER
        for row in copy:
            if len(row) > at + _CONTENT_AT:
                bucket = int.from_bytes(row[at + _BUCKET_AT : at + _BUCKET_AT + 4], "big")
                self._buckets[bucket] = bytes(row[at + _CONTENT_AT :])
            at = 0

    def sift(
        self, records: list[bytes], first: int, digest_of: Callable[[bytes], bytes]
    ) -> tuple[list[tuple[int, bytes, bytes]], list[int]]:
        """Confirm the live records among these, the first of them at place `first` in the load, counted from 1.

        Return (ordinal, record, digest) of those that are new or changed, and the ordinals of those seen before.
        """
        fresh, again = [], []
        buckets, starts, seen = self._buckets, self._starts, self._seen
        for ordinal, record in enumerate(records, first):
            digest = digest_of(record)
            bucket = digest[0] << 8 | digest[1]
            at = buckets[bucket].find(digest[2:])
            if at % _ENTRY:
                at = self._find(digest)
            if at < 0:
                fresh.append((ordinal, record, digest))
                continue
            place = starts[bucket] + at // _ENTRY
            if seen[place]:
                again.append(ordinal)
            seen[place] = ordinal
        return fresh, again

    def _find(self, digest: bytes) -> int:
        """Return where the digest's entry begins in its bucket, -1 for nowhere."""
        content = self._buckets[digest[0] << 8 | digest[1]]
        at = content.find(digest[2:])
        while at >= 0 and at % _ENTRY:
            at = content.find(digest[2:], at + 1)
        return at

    def seen_at(self, digest: bytes) -> int:
        """Return the ordinal where the live record with this hash was seen last, 0 for never."""
        at = self._find(digest)
        return self._seen[self._starts[digest[0] << 8 | digest[1]] + at // _ENTRY] if at >= 0 else 0

    def unseen(self) -> Iterator[bytes]:
        """Yield the addresses (six bytes, as Postgres sends a tid) of the live records that did not come."""
        seen = self._seen
        for start, content in zip(self._starts, self._buckets, strict=True):
            for place in range(len(content) // _ENTRY):
                if not seen[start + place]:
                    yield content[place * _ENTRY + _HASH : (place + 1) * _ENTRY]
