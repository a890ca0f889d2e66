"""Unpacks files: gzip, zstandard, and zip archives of one member."""

from __future__ import annotations

import gzip
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import PurePosixPath
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast

from syncline.connectors.json_text import BLOCK_BYTES
from syncline.errors import ConfigurationError, SourceError

_SUFFIXES = (".gz", ".zst", ".zip")


def split_suffix(name: str) -> tuple[str, str]:
    """Return the suffix that tells what is in a file of that name, and that of its compression; either may be empty."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in _SUFFIXES else ""
    return (suffixes[-1] if suffixes else ""), packed


@contextmanager
def unpacked(content: BufferedReader, packed: str, place: str) -> Iterator[BufferedReader]:
    """Give the bytes that `content`, compressed as the suffix `packed` says, stands for; both are closed at the end.

    Raises SourceError, which begins with `place`, also where reading finds the file cut off or damaged.
    """
    kind = {".gz": "gzip", ".zst": "zstd", ".zip": "zip"}.get(packed, "")
    try:
        with content, _opened(content, kind, place) as plain:
            yield plain
    except _damages(kind):
        raise SourceError(
            f"{place} is cut off or damaged: {kind} cannot unpack it", "Fetch or write it again."
        ) from None


@contextmanager
def seekable(content: BufferedReader) -> Iterator[BinaryIO]:
    """Give the same bytes as a file that can be read at any place: on disk for the while, where it has to be."""
    if content.seekable():
        yield content
        return
    with TemporaryFile() as spool:
        copyfileobj(content, spool, BLOCK_BYTES)
        spool.seek(0)
        yield cast(BinaryIO, spool)


@contextmanager
def _opened(content: BufferedReader, kind: str, place: str) -> Iterator[BufferedReader]:
    match kind:
        case "gzip":
            # To gzip, a file of no bytes is a whole one.
            if not content.peek(1):
                raise SourceError(f"{place} is cut off: it has no bytes", "Fetch or write it again.")
            with _buffered(gzip.open(content, "rb")) as plain:
                yield plain
        case "zstd":
            with _buffered(_zstd(place).ZstdFile(content, "rb")) as plain:
                yield plain
        case "zip":
            with seekable(content) as whole, zipfile.ZipFile(whole) as archive:
                names = [member for member in archive.namelist() if not member.endswith("/")]
                if len(names) != 1:
                    raise SourceError(f"{place} holds {len(names)} files", "A zip archive is read where it holds one.")
                if archive.getinfo(names[0]).flag_bits & 1:
                    raise SourceError(f"{place} is encrypted", "Write it without a password.")
                with _buffered(archive.open(names[0])) as plain:
                    yield plain
        case _:
            yield content


def _buffered(content: Any) -> BufferedReader:
    return BufferedReader(content, BLOCK_BYTES)


def _zstd(place: str) -> Any:
    try:
        return _import_zstd()
    except ImportError:
        raise ConfigurationError(f"{place}: zstd needs a package", "pip install 'syncline[files]'") from None


def _import_zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _damages(kind: str) -> tuple[type[Exception], ...]:
    """Return what says that a file is not whole."""
    damages: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile)
    if kind == "zstd":
        with suppress(ImportError):  # what is raised then says itself what is missing, and for which file
            damages += (_import_zstd().ZstdError,)
    return damages
