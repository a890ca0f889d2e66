"""Reads files through the file connector, as a load does."""

from __future__ import annotations

from pathlib import Path

from syncline.config import Stream, StreamSettings, convert
from syncline.connectors import Context, Cursor, Fetch, Page
from syncline.connectors.file.connector import FileConnector, FileSource, FileStream

STREAM = Stream("files", "people", ("id",), StreamSettings(key="id"), {}, Path("sources.yml"))
APPENDED = Stream("files", "log", (), StreamSettings(key="none", append=True), {}, Path("sources.yml"))


def read_pages(
    folder: Path,
    path: str,
    *,
    appends: bool = False,
    cursor: Cursor | None = None,
    source: dict[str, object] | None = None,
    **stream: object,
) -> list[Page]:
    """Return the pages of one load of files in `folder`, or in what the source's settings name."""
    connector = FileConnector(convert(source or {}, FileSource, "source files"), Context(folder))
    shape = convert({"path": path, **stream}, FileStream, "stream files.people")
    return list(connector.read(Fetch(stream=APPENDED if appends else STREAM, settings=shape, cursor=cursor)))


def read(folder: Path, path: str, **stream: object) -> list[bytes]:
    """Return the records of one load."""
    return [record for page in read_pages(folder, path, **stream) for record in page.records]  # type: ignore[arg-type]


def write(folder: Path, name: str, content: bytes) -> str:
    """Write a file; return its name."""
    (folder / name).write_bytes(content)
    return name
