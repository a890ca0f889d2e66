"""Reads the records of files: JSON lines, JSON, CSV, Parquet and Excel, plain or packed, near or far."""

from __future__ import annotations

import csv
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Annotated, Any, Literal

import msgspec

from syncline.config import Stream
from syncline.connectors import Connector, Context, Cursor, Fetch, Found, Page
from syncline.connectors.file.compression import seekable, split_suffix, unpacked
from syncline.connectors.file.csv_dialect import Dialect
from syncline.connectors.file.csv_text import CsvForm, read_rows
from syncline.connectors.file.encodings import find_encoding, utf8_reader
from syncline.connectors.file.excel import SheetForm, read_sheet
from syncline.connectors.file.parquet import read_parquet
from syncline.connectors.file.seen import append_cursor, choose_fresh, full_cursor, is_unchanged
from syncline.connectors.file.storage import Folder, RemoteFolder, Storage, StoredFile, is_remote
from syncline.connectors.json_text import RECORD_BYTES, JsonPath, parse_path, read_elements, read_lines
from syncline.errors import SourceError

Format = Literal["jsonl", "json", "csv", "parquet", "xlsx"]
Character = Annotated[str, msgspec.Meta(min_length=1, max_length=1)]

FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}


class FileSource(msgspec.Struct, frozen=True, kw_only=True):
    """`path`: the folder that the streams' paths start from, relative to the project, or the address of one.

    `storage_options` are what fsspec takes to open it.
    """

    path: str = "."
    storage_options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return "FileSource(...)"


class FileStream(msgspec.Struct, frozen=True, kw_only=True):
    """`path`: a file, or a pattern whose files are read in the order of their names as one load."""

    path: str
    format: Format | None = None
    data_selector: JsonPath = "$"
    encoding: str | None = None
    delimiter: Character | None = None
    quote: Annotated[str, msgspec.Meta(max_length=1)] | None = None
    escape: Character | None = None
    header: bool | list[str] = True
    skip_rows: Annotated[int, msgspec.Meta(ge=0)] = 0
    null_values: tuple[str, ...] = ("",)
    sheet: str | None = None
    range: str | None = None
    header_row: Annotated[int, msgspec.Meta(ge=1)] | None = None
    skip_unchanged: bool = True


class FileConnector(Connector):
    """Reads files. A stream with `append` brings the files that no load before has read; any other brings all."""

    has_exact_increments = True
    SourceSettings = FileSource
    StreamSettings = FileStream
    identifying = ("path", "sheet")

    def __init__(self, settings: FileSource, context: Context) -> None:
        self._settings = settings
        self._storage: Storage
        if is_remote(settings.path):
            self._storage = RemoteFolder(settings.path, settings.storage_options)
        else:
            self._storage = Folder(context.root / settings.path)

    def is_increment(self, stream: Stream, settings: FileStream) -> bool:
        return stream.common.append

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the records of the files that the stream's path names, about a megabyte at a time.

        One page that says so where a full load would bring just what the last one did, or an increment nothing.
        Raises SourceError where there is no such file, or one cannot be read, is cut off or malformed.
        """
        stream, settings = fetch.stream, fetch.settings
        started = time.time()
        storage = self._storage_of(settings)
        files = storage.find(settings.path, stream.label)
        if stream.common.append:
            wanted = choose_fresh(files, fetch.cursor)
            cursor, is_same = append_cursor(files, fetch.cursor), not wanted
        else:
            known = [settings, stream.common, stream.key, self._settings.storage_options]
            wanted, cursor = files, full_cursor(files, known, started)
            is_same = settings.skip_unchanged and is_unchanged(files, known, fetch.cursor)
        if is_same:
            yield Page([], cursor=cursor, is_unchanged=True)
            return
        yield from _with_cursor(self._read_files(storage, stream, settings, wanted), cursor)

    def discover(self) -> Iterator[Found]:
        """Yield a stream for each file below the source's path, one for all whose names differ in digits alone."""
        from syncline.connectors.file.discovery import find_streams

        return find_streams(self._storage)

    def _storage_of(self, settings: FileStream) -> Storage:
        return (
            RemoteFolder(settings.path, self._settings.storage_options) if is_remote(settings.path) else self._storage
        )

    def _read_files(
        self, storage: Storage, stream: Stream, settings: FileStream, files: list[StoredFile]
    ) -> Iterator[Page]:
        for file in files:
            for page in read_file(storage, file, settings, f"{stream.label}: {file.name}"):
                # In several files, a row's number is its place among all of them.
                page.ordinal = page.ordinal if len(files) == 1 else None
                yield page


def read_file(storage: Storage, file: StoredFile, settings: FileStream, place: str) -> Generator[Page]:
    """Yield the records of one file; raises SourceError, which begins with `place`, where it cannot be read."""
    suffix, packed = split_suffix(file.name)
    with named_errors(place), unpacked(storage.open(file, place), packed, place) as content:
        yield from _read_pages(content, settings, suffix, place)


@contextmanager
def named_errors(place: str) -> Iterator[None]:
    """Raise what the system says of a file as SourceError, which begins with `place`."""
    try:
        yield
    except csv.Error:
        raise SourceError(
            f"{place}: a cell is longer than {RECORD_BYTES >> 20} MB", "Is a quote not closed? Check `quote`."
        ) from None
    except UnicodeError:
        raise SourceError(f"{place} cannot be decoded", "Set the file's encoding.") from None
    except FileNotFoundError:
        raise SourceError(f"{place} is gone since it was found", "Run it again.") from None
    except OSError as error:
        raise SourceError(f"{place} cannot be read: {error.strerror}", "Check that this user may read it.") from None


def _read_pages(content: BufferedReader, settings: FileStream, suffix: str, place: str) -> Iterator[Page]:
    match settings.format or _format_of(suffix, place):
        case "parquet":
            with seekable(content) as file:
                yield from read_parquet(file, place)
        case "xlsx":
            form = SheetForm(sheet=settings.sheet, range=settings.range, header_row=settings.header_row)
            with seekable(content) as file:
                yield from read_sheet(file, form, place)
        case "csv":
            yield from read_rows(content, _csv_form(content, settings, suffix), place)
        case "json":
            read = utf8_reader(content, find_encoding(content, settings.encoding), place)
            for records in read_elements(read, parse_path(settings.data_selector), place):
                yield Page(records)
        case "jsonl":
            read = utf8_reader(content, find_encoding(content, settings.encoding), place)
            for records in read_lines(read, place):
                yield Page(records)


def _csv_form(content: BufferedReader, settings: FileStream, suffix: str) -> CsvForm:
    delimiter = settings.delimiter or ("\t" if suffix == ".tsv" else None)
    return CsvForm(
        encoding=find_encoding(content, settings.encoding),
        dialect=Dialect(delimiter=delimiter, quote=settings.quote, escape=settings.escape),
        header=settings.header,
        skip_rows=settings.skip_rows,
        null_values=settings.null_values,
    )


def _format_of(suffix: str, place: str) -> Format:
    found = FORMATS.get(suffix)
    if found is None:
        names = msgspec.inspect.type_info(Format)
        assert isinstance(names, msgspec.inspect.LiteralType)
        raise SourceError(
            f"{place}: its name does not tell its format", f"Set `format` to {', '.join(map(str, names.values))}."
        )
    return found


def _with_cursor(pages: Iterator[Page], cursor: Cursor) -> Iterator[Page]:
    """Yield the pages, the last with the cursor: it holds once all are in."""
    last = Page([])
    for number, page in enumerate(pages):
        if number:
            yield last
        last = page
    last.cursor = cursor
    yield last
