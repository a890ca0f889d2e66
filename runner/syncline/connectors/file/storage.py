"""Finds and opens files: in a folder, or through fsspec in an object store or on a web server."""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, Protocol

from syncline.connectors.file.errors import explain, patiently
from syncline.errors import ConfigurationError, SourceError

BUFFER_BYTES = 1 << 16
_PACKAGES = {
    **dict.fromkeys(("http", "https", "memory"), "syncline[files]"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that was found.

    `path` opens it, `name` shows it to people, without what may be secret. `modified` is in seconds since 1970.
    `version` is another once the content is: an entity tag, else the time of change; None where the store tells
    neither. `trace` differs too where a file was put in another's place with its size and time.
    """

    path: str
    name: str
    size: int | None
    modified: float | None
    version: str | None
    has_tag: bool = False
    trace: str = ""


class Storage(Protocol):
    """Where files are."""

    def find(self, pattern: str, label: str) -> list[StoredFile]:
        """Return the files that a path or pattern names, by name; raises SourceError, for `label`, without one."""

    def walk(self) -> Iterator[tuple[str, StoredFile]]:
        """Yield every file below, with its path from there."""

    def open(self, file: StoredFile, place: str) -> BufferedReader:
        """Return the file's bytes; raises SourceError, which begins with `place`, here and where reading fails."""


def is_remote(path: str) -> bool:
    return "://" in path


class Folder:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, pattern: str, label: str) -> list[StoredFile]:
        whole = self._folder / pattern
        if whole.is_file():
            return [_local(whole)]
        # The folder is no part of the pattern: its own name may hold brackets.
        names = glob.glob(pattern, root_dir=self._folder, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute one)
        files = sorted(file for name in names if (file := self._folder / name).is_file())
        if files:
            return [_local(file) for file in files]
        if whole.is_dir():
            raise SourceError(f"{label}: {whole} is a folder", f"Name its files, such as {pattern}/*.jsonl.")
        raise SourceError(f"{label}: there is no file {whole}", "Check `path` of the stream and of its source.")

    def walk(self) -> Iterator[tuple[str, StoredFile]]:
        if not self._folder.is_dir():
            raise SourceError(f"there is no folder {self._folder}", "Check `path` of the source.")
        for file in sorted(self._folder.rglob("*")):
            inside = file.relative_to(self._folder)
            if file.is_file() and not any(part.startswith(".") for part in inside.parts):
                yield inside.as_posix(), _local(file)

    def open(self, file: StoredFile, place: str) -> BufferedReader:
        return BufferedReader(FileIO(file.path), BUFFER_BYTES)


class RemoteFolder:
    """What fsspec opens: a bucket and prefix, or an address."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._url = url
        self._protocol = url.partition("://")[0]
        self._options = options

    def find(self, pattern: str, label: str) -> list[StoredFile]:
        url = pattern if is_remote(pattern) else f"{self._url.rstrip('/')}/{pattern}"
        shown = _display(url)
        store, path = self._open_store(url, f"{label}: {shown}")
        try:
            store.invalidate_cache()
            # A question mark of an address begins its query.
            is_pattern = "*" in url if self._is_web else glob.has_magic(path)
            found = store.glob(path, detail=True) if is_pattern else {path: patiently(store.info, path)}
            if is_pattern and self._is_web:
                # An index tells names alone.
                found = {name: patiently(store.info, name) for name in found}
            files = [_describe(store, name, info) for name, info in sorted(found.items()) if _is_file(info)]
        except Exception as error:
            raise explain(error, f"{label}: {shown}") from None
        if not files:
            is_folder = any(info.get("type") == "directory" for info in found.values())
            what = f"{shown} is a folder" if is_folder else f"there is no file {shown}"
            raise SourceError(f"{label}: {what}", "Check `path` of the stream and of its source.")
        return files

    def walk(self) -> Iterator[tuple[str, StoredFile]]:
        place = _display(self._url)
        store, path = self._open_store(self._url, place)
        try:
            store.invalidate_cache()
            found = store.find(path, detail=True)
        except Exception as error:
            raise explain(error, place) from None
        if not found:
            raise SourceError(f"{place}: there is no file", "Check `path` of the source.")
        for name, info in sorted(found.items()):
            yield name.removeprefix(path).lstrip("/"), _describe(store, name, info)

    def open(self, file: StoredFile, place: str) -> BufferedReader:
        store, path = self._open_store(file.path, place)
        # A web server may not know ranges, and one answer is of one state of the file.
        options: dict[str, Any] = (
            {"block_size": 0} if self._is_web else {"block_size": 4 << 20, "cache_type": "readahead"}
        )
        try:
            content = patiently(store.open, path, "rb", **options)
        except Exception as error:
            raise explain(error, place) from None
        return BufferedReader(_RemoteBytes(content, place, is_seekable=not self._is_web), BUFFER_BYTES)

    @property
    def _is_web(self) -> bool:
        return self._protocol in {"http", "https"}

    def _open_store(self, url: str, place: str) -> tuple[Any, str]:
        protocol = url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs

            store, path = url_to_fs(url, **self._options)
        except ImportError:
            package = _PACKAGES.get(protocol, f"the fsspec package for {protocol}")
            raise ConfigurationError(
                f"{place}: {protocol}:// needs a package that is not installed", f"pip install '{package}'"
            ) from None
        except (ValueError, TypeError) as error:
            what = "is not known to fsspec" if isinstance(error, ValueError) else "does not take these options"
            raise ConfigurationError(
                f"{place}: {protocol}:// {what}", "Check `path` and `storage_options`, and fsspec's documentation."
            ) from None
        except Exception as error:
            raise explain(error, place) from None
        return store, path


class _RemoteBytes(io.RawIOBase):
    """A remote file whose failures name it."""

    def __init__(self, content: Any, place: str, *, is_seekable: bool) -> None:
        self._content = content
        self._place = place
        self._is_seekable = is_seekable

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._is_seekable

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._content.seek(offset, whence))

    def tell(self) -> int:
        return int(self._content.tell())

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer, less only at the end: a network gives what has come."""
        view, size = memoryview(buffer), 0
        while size < len(view):
            try:
                part = self._content.read(len(view) - size)
            except Exception as error:
                raise explain(error, self._place) from None
            if not part:
                break
            view[size : size + len(part)] = part
            size += len(part)
        return size

    def close(self) -> None:
        if not self.closed:
            self._content.close()
        super().close()


def _local(file: Path) -> StoredFile:
    state = file.stat()
    trace = f"{state.st_ctime_ns} {state.st_ino}"
    return StoredFile(str(file), str(file), state.st_size, state.st_mtime, str(state.st_mtime_ns), trace=trace)


def _describe(store: Any, name: str, info: dict[str, Any]) -> StoredFile:
    tag = next((str(info[key]) for key in ("ETag", "etag", "generation", "Content-MD5") if info.get(key)), None)
    modified = _modified(info)
    version = tag or (None if modified is None else str(modified))
    url = name if is_remote(name) else store.unstrip_protocol(name)
    return StoredFile(url, _display(url), info.get("size"), modified, version, tag is not None)


def _is_file(info: Mapping[str, Any]) -> bool:
    return bool(info.get("type", "file") == "file")


def _modified(info: Mapping[str, Any]) -> float | None:
    for key in ("LastModified", "last_modified", "mtime", "updated", "Last-Modified", "created"):
        value = info.get(key)
        try:
            if isinstance(value, datetime):
                return value.timestamp()
            if isinstance(value, int | float):
                return float(value)
            if isinstance(value, str):
                parse = parsedate_to_datetime if key == "Last-Modified" else datetime.fromisoformat
                return parse(value).timestamp()
        except ValueError:
            continue
    return None


def _display(url: str) -> str:
    """Return an address for people: its query and password may be secret."""
    url = re.sub("[?#].*", "", url) if url.startswith("http") else url
    return re.sub("(?<=://)[^/@:]*:[^/@]*@", "", url)
