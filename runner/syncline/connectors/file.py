"""Reads the records of JSON-lines, JSON and CSV files, plain or gzipped, whatever their size."""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Literal

import msgspec

from syncline.config import Stream
from syncline.connectors import Connector, Context, Fetch, Page
from syncline.connectors.csv_text import read_rows
from syncline.connectors.json_text import (
    BLOCK_BYTES,
    JsonPath,
    parse_path,
    read_elements,
    read_lines,
)
from syncline.errors import SourceError

Format = Literal["jsonl", "json", "csv"]

_FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class FileSource(msgspec.Struct, frozen=True, kw_only=True):
    """`path`: the folder that the streams' paths start from, itself relative to the project."""

    path: str = "."


class FileStream(msgspec.Struct, frozen=True, kw_only=True):
    """`path`: a file, or a pattern whose files are read in the order of their names as one load."""

    path: str
    format: Format | None = None
    data_selector: JsonPath = "$"
    delimiter: str | None = None
    encoding: str = "utf-8"


class FileConnector(Connector):
    """Reads files; each load is a full one."""

    SourceSettings = FileSource
    StreamSettings = FileStream

    def __init__(self, settings: FileSource, context: Context) -> None:
        self._folder = context.root / settings.path

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the records of all files that the stream's path names, about a megabyte at a time.

        Raises SourceError where there is no such file, or one cannot be read, is cut off or malformed.
        """
        settings: FileStream = fetch.settings
        for file in self._find(fetch.stream, settings.path):
            place = f"{fetch.stream.label}: {file}"
            with _named_errors(place), closing(_open(file, place)) as content:
                yield from _read_pages(content, settings, file, place)

    def _find(self, stream: Stream, path: str) -> list[Path]:
        whole = self._folder / path
        if whole.is_file():
            return [whole]
        # The folder is no part of the pattern: its own name may hold brackets.
        names = glob.glob(path, root_dir=self._folder, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute one)
        files = sorted(file for name in names if (file := self._folder / name).is_file())
        if files:
            return files
        if whole.is_dir():
            raise SourceError(f"{stream.label}: {whole} is a folder", f"Name its files, such as {path}/*.jsonl.")
        raise SourceError(f"{stream.label}: there is no file {whole}", "Check `path` of the stream and of its source.")


def _read_pages(content: BufferedReader, settings: FileStream, file: Path, place: str) -> Iterator[Page]:
    if content.peek(3).startswith(_BYTE_ORDER_MARK):
        content.read(3)
    match settings.format or _format_of(file, place):
        case "csv":
            delimiter = settings.delimiter or ("\t" if ".tsv" in file.suffixes else ",")
            yield from read_rows(content, delimiter, settings.encoding, place)
        case "json":
            for records in read_elements(content.read, parse_path(settings.data_selector), place):
                yield Page(records)
        case "jsonl":
            for records in read_lines(content.read, place):
                yield Page(records)


def _format_of(file: Path, place: str) -> Format:
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    found = _FORMATS.get(suffixes[-1]) if suffixes else None
    if found is None:
        raise SourceError(f"{place}: its name does not tell its format", "Set `format` to jsonl, json or csv.")
    return found


def _open(file: Path, place: str) -> BufferedReader:
    if file.suffix.lower() != ".gz":
        return file.open("rb")
    # To gzip, a file of no bytes is a whole one.
    if file.stat().st_size == 0:
        raise SourceError(f"{place} is cut off: it has no bytes", "Fetch or write it again.")
    return BufferedReader(gzip.open(file, "rb"), BLOCK_BYTES)


@contextmanager
def _named_errors(place: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise SourceError(f"{place} is cut off or damaged: gzip cannot unpack it", "Fetch or write it again.") from None
    except UnicodeError:
        raise SourceError(f"{place} cannot be decoded", "Set the file's encoding.") from None
    except OSError as error:
        raise SourceError(f"{place} cannot be read: {error.strerror}", "Check that this user may read it.") from None
