"""Sends records to Postgres as binary COPY, the format of `COPY ... (format binary)`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from psycopg import Copy

Encode = Callable[[bytes, bytes, int, bytes], bytes]
"""Makes a COPY row of a record's key, hash, ordinal and text."""

_BATCH_BYTES = 256 * 1024
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TAIL = b"\xff\xff"

_HEAD = struct.Struct(">hi").pack
_STAGED_REST = struct.Struct(">i16siqi").pack
_FIRST_REST = struct.Struct(">i16siqiqi").pack
_TOMBSTONE_REST = struct.Struct(">iiqi").pack


class CopyWriter:
    """Gathers rows and sends them some hundred kilobytes at a time."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy
        self._batch = [_COPY_HEAD]
        self._size = 0

    def write(self, rows: Iterable[bytes]) -> None:
        batch = self._batch
        size = self._size
        for row in rows:
            batch.append(row)
            size += len(row)
            if size > _BATCH_BYTES:
                self._copy.write(b"".join(batch))
                batch.clear()
                size = 0
        self._size = size

    def finish(self) -> None:
        self._batch.append(_COPY_TAIL)
        self._copy.write(b"".join(self._batch))


def first_encoder(load_id: int) -> Encode:
    """Return the encoder of rows (_key, _hash, _first_load, _ordinal, payload)."""

    def encode(key: bytes, digest: bytes, ordinal: int, record: bytes) -> bytes:
        rest = _FIRST_REST(16, digest, 8, load_id, 8, ordinal, len(record))
        return b"".join((_HEAD(5, len(key)), key, rest, record))

    return encode


def staged_encoder(is_tombstone: Callable[[bytes], bool] | None) -> Encode:
    """Return the encoder of rows (_key, _hash, _ordinal, payload); hash and payload of a tombstone are null."""

    def encode(key: bytes, digest: bytes, ordinal: int, record: bytes) -> bytes:
        if is_tombstone is not None and is_tombstone(record):
            return b"".join((_HEAD(4, len(key)), key, _TOMBSTONE_REST(-1, 8, ordinal, -1)))
        return b"".join((_HEAD(4, len(key)), key, _STAGED_REST(16, digest, 8, ordinal, len(record)), record))

    return encode


def address_row(address: bytes) -> bytes:
    """Return the row of one tid."""
    return b"\0\x01\0\0\0\x06" + address
