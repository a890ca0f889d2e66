"""Finds the streams that the files of a source could be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePosixPath
from typing import Any

from syncline.connectors import SAMPLE_RECORDS, Found
from syncline.connectors.file.compression import seekable, split_suffix, unpacked
from syncline.connectors.file.connector import FORMATS, FileStream, named_errors, read_file
from syncline.connectors.file.excel import sheet_names
from syncline.connectors.file.parquet import parquet_columns
from syncline.connectors.file.storage import Storage, StoredFile
from syncline.connectors.sheet_rows import stream_name
from syncline.errors import SourceError, SourceUnavailableError

# Dates, times and numbers, with what joins them.
_NUMBERS = re.compile(r"\d+(?:[-_.T:]?\d+)*Z?")


def find_streams(storage: Storage) -> Iterator[Found]:
    """Yield what each file, or each group of files whose names differ in their numbers, could be as a stream.

    A workbook gives one for each sheet. Raises SourceError where the files cannot be listed.
    """
    groups: dict[str, list[tuple[str, StoredFile]]] = {}
    for path, file in storage.walk():
        if split_suffix(path)[0] in FORMATS:
            groups.setdefault(_NUMBERS.sub("*", path), []).append((path, file))
    taken: set[str] = set()
    for pattern, members in groups.items():
        path = pattern if len(members) > 1 else members[0][0]
        # The newest by name: what is to come will look like it.
        yield from _find_in(storage, members[-1][1], path, pattern, taken)


def _find_in(storage: Storage, file: StoredFile, path: str, pattern: str, taken: set[str]) -> Iterator[Found]:
    try:
        columns, sheets = _describe(storage, file)
    except SourceUnavailableError:
        raise
    except SourceError:
        columns, sheets = None, []  # reading the sample will say what it is
    for sheet in sheets if len(sheets) > 1 else [None]:
        settings: dict[str, Any] = {"path": path} | ({} if sheet is None else {"sheet": sheet})
        name = stream_name(f"{_stem(pattern)} {sheet or ''}", taken)
        records, problem = _sample(storage, file, FileStream(**settings))
        yield Found(name=name, settings=settings, records=records, columns=columns, problem=problem)


def _describe(storage: Storage, file: StoredFile) -> tuple[dict[str, str] | None, list[str | None]]:
    """Return the columns of a Parquet file and the sheets of a workbook."""
    suffix, packed = split_suffix(file.name)
    kind, place = FORMATS[suffix], file.name
    if kind not in {"parquet", "xlsx"}:
        return None, []
    with named_errors(place), unpacked(storage.open(file, place), packed, place) as content, seekable(content) as whole:
        if kind == "parquet":
            return parquet_columns(whole, place), []
        return None, [*sheet_names(whole, place)]


def _sample(storage: Storage, file: StoredFile, settings: FileStream) -> tuple[list[bytes], str | None]:
    """Return the first records, and what is wrong with a file that cannot be read behind them."""
    records: list[bytes] = []
    problem = None
    try:
        with closing(read_file(storage, file, settings, file.name)) as pages:
            for page in pages:
                records += [record for at, record in enumerate(page.records) if at not in page.unreadable]
                if len(records) >= SAMPLE_RECORDS:
                    break
    except SourceUnavailableError:
        raise
    except SourceError as error:
        problem = error.message  # it costs the other files nothing
    return records[:SAMPLE_RECORDS], problem


def _stem(pattern: str) -> str:
    """Return the file's own name, or its folder's where that has nothing but numbers."""
    stem = PurePosixPath(pattern).name.partition(".")[0].replace("*", "")
    return stem if re.search("[^_-]", stem) else PurePosixPath(pattern).parent.name
