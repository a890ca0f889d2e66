"""Remembers between loads which files were read, and in which state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import xxhash

import syncline
from syncline.connectors import Cursor
from syncline.connectors.file.storage import StoredFile

SETTLED_SECONDS = 2.0
"""What was changed later than this before a load may change again and keep its time."""

MOST_FILES = 10_000
"""So many files of a stream with `append` are remembered each; of older ones, the time of the newest."""


def full_cursor(files: Sequence[StoredFile], settings: Sequence[Any], started: float) -> Cursor:
    """Return what a full load leaves: the state of its files and settings, or none where the files may yet change.

    `started` is when the files were looked up, in seconds since 1970.
    """
    is_settled = all(_is_settled(file, started) for file in files)
    return {"state": _state(files, settings) if is_settled else None}


def is_unchanged(files: Sequence[StoredFile], settings: Sequence[Any], cursor: Cursor | None) -> bool:
    """Return whether the last full load read exactly this."""
    state = (cursor or {}).get("state")
    return state is not None and state == _state(files, settings)


def choose_fresh(files: Sequence[StoredFile], cursor: Cursor | None) -> list[StoredFile]:
    """Return the files that are new or changed since the loads that left `cursor`."""
    seen, before = (cursor or {}).get("files", {}), (cursor or {}).get("before")
    return [file for file in files if not _is_seen(file, seen, before)]


def append_cursor(files: Sequence[StoredFile], cursor: Cursor | None) -> Cursor:
    """Return what a load with `append` leaves: size and version of each file that is there, at most MOST_FILES."""
    before = (cursor or {}).get("before")
    by_time = sorted(files, key=_age_order, reverse=True)
    kept, older = by_time[:MOST_FILES], by_time[MOST_FILES:]
    times = [file.modified for file in older if file.modified is not None]
    times += [before] if before is not None else []
    left: Cursor = {"files": {file.name: [file.size, file.version] for file in kept}}
    return left | ({"before": max(times)} if times else {})


def _age_order(file: StoredFile) -> float:
    return float("inf") if file.modified is None else file.modified


def _is_seen(file: StoredFile, seen: dict[str, list[Any]], before: float | None) -> bool:
    if file.name in seen:
        return seen[file.name] == [file.size, file.version]
    return before is not None and file.modified is not None and file.modified <= before


def _is_settled(file: StoredFile, started: float) -> bool:
    if file.version is None:
        return False
    return file.has_tag or (file.modified is not None and file.modified < started - SETTLED_SECONDS)


def _state(files: Sequence[StoredFile], settings: Sequence[Any]) -> str:
    states = [[file.name, file.size, file.version, file.trace] for file in files]
    # Another release may read the same bytes in another way.
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode([syncline.__version__, settings, states], enc_hook=str))
