"""What was read before is not read again: whole loads that are unchanged, and the files of an append stream."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from syncline.connectors import Context
from syncline.connectors.file.connector import FileConnector, FileSource, FileStream
from syncline.connectors.file.seen import append_cursor, choose_fresh
from syncline.connectors.file.storage import StoredFile
from tests.files import APPENDED, STREAM, read_pages, write


def write_old(folder: Path, name: str, content: bytes, age: float = 3600) -> str:
    """Write a file that was changed so many seconds ago."""
    write(folder, name, content)
    moment = time.time() - age
    os.utime(folder / name, (moment, moment))
    return name


def cursor_of(folder: Path, path: str, **settings: Any) -> Any:
    return read_pages(folder, path, **settings)[-1].cursor


def is_unchanged(folder: Path, path: str, cursor: Any, **settings: Any) -> bool:
    pages = read_pages(folder, path, cursor=cursor, **settings)
    assert all(not page.is_unchanged for page in pages) or len(pages) == 1
    return pages[0].is_unchanged


# full loads


def test_files_as_they_were_are_not_read(tmp_path: Path) -> None:
    """A full load of the same files in the same state is one page that says so, time and again."""
    for name in ("a.csv", "b.csv"):
        write_old(tmp_path, name, b"id\n1\n")
    cursor = cursor_of(tmp_path, "*.csv")
    for _ in range(2):
        (page,) = read_pages(tmp_path, "*.csv", cursor=cursor)
        assert page.is_unchanged
        assert page.records == []
        cursor = page.cursor


@pytest.mark.parametrize("change", ["content", "time", "new file", "gone file", "put in its place"])
def test_any_change_of_the_files_is_read(tmp_path: Path, change: str) -> None:
    """Another size, time or name is read, and so is a file that was put in another's place with its size and time."""
    for name in ("a.csv", "b.csv"):
        write_old(tmp_path, name, b"id\n1\n")
    cursor = cursor_of(tmp_path, "*.csv")
    match change:
        case "content":
            state = (tmp_path / "a.csv").stat()
            (tmp_path / "a.csv").write_bytes(b"id\n23\n")
            os.utime(tmp_path / "a.csv", ns=(state.st_atime_ns, state.st_mtime_ns))
        case "time":
            write_old(tmp_path, "a.csv", b"id\n1\n", age=1800)
        case "new file":
            write_old(tmp_path, "c.csv", b"id\n1\n")
        case "gone file":
            (tmp_path / "b.csv").unlink()
        case "put in its place":
            state = (tmp_path / "a.csv").stat()
            write(tmp_path, "other", b"id\n2\n")
            os.utime(tmp_path / "other", ns=(state.st_atime_ns, state.st_mtime_ns))
            (tmp_path / "other").rename(tmp_path / "a.csv")
    assert not is_unchanged(tmp_path, "*.csv", cursor)


def test_another_setting_is_read(tmp_path: Path) -> None:
    """The same file gives other records by other settings."""
    name = write_old(tmp_path, "a.csv", b"id;a\n1;NA\n")
    cursor = cursor_of(tmp_path, name)
    assert is_unchanged(tmp_path, name, cursor)
    assert not is_unchanged(tmp_path, name, cursor, null_values=["NA"])
    assert not is_unchanged(tmp_path, name, cursor, delimiter=",")


def test_file_that_was_just_written_is_read_again(tmp_path: Path) -> None:
    """What is younger than two seconds may change again within its time stamp."""
    name = write(tmp_path, "a.csv", b"id\n1\n")
    cursor = cursor_of(tmp_path, name)
    assert cursor == {"state": None}
    assert not is_unchanged(tmp_path, name, cursor)


def test_skip_unchanged_is_a_setting(tmp_path: Path) -> None:
    """Without it, and without a cursor as in a full refresh, all is read."""
    name = write_old(tmp_path, "a.csv", b"id\n1\n")
    cursor = cursor_of(tmp_path, name, skip_unchanged=False)
    assert not is_unchanged(tmp_path, name, cursor, skip_unchanged=False)
    assert not is_unchanged(tmp_path, name, None)


def test_empty_file_leaves_a_cursor(tmp_path: Path) -> None:
    """A load without records leaves its state, too."""
    name = write_old(tmp_path, "a.jsonl", b"")
    (page,) = read_pages(tmp_path, name)
    assert page.records == []
    assert is_unchanged(tmp_path, name, page.cursor)


# append


def records(folder: Path, path: str, cursor: Any) -> tuple[list[bytes], Any]:
    pages = read_pages(folder, path, appends=True, cursor=cursor)
    assert all(page.cursor is None for page in pages[:-1])
    return [record for page in pages for record in page.records], pages[-1].cursor


def test_append_reads_each_file_once(tmp_path: Path) -> None:
    """Only files that are new come; a file that changed comes whole once more."""
    connector = FileConnector(FileSource(), Context(tmp_path))
    assert connector.is_increment(APPENDED, FileStream(path="*"))
    assert not connector.is_increment(STREAM, FileStream(path="*"))
    write(tmp_path, "a.jsonl", b'{"id":1}\n')
    found, cursor = records(tmp_path, "*.jsonl", None)
    assert found == [b'{"id":1}']
    assert list(cursor["files"]) == [str(tmp_path / "a.jsonl")]
    (page,) = read_pages(tmp_path, "*.jsonl", appends=True, cursor=cursor)
    assert page.is_unchanged
    write(tmp_path, "b.jsonl", b'{"id":2}\n')
    found, cursor = records(tmp_path, "*.jsonl", page.cursor)
    assert found == [b'{"id":2}']
    write(tmp_path, "a.jsonl", b'{"id":1}\n{"id":3}\n')
    found, cursor = records(tmp_path, "*.jsonl", cursor)
    assert found == [b'{"id":1}', b'{"id":3}']
    assert records(tmp_path, "*.jsonl", cursor)[0] == []


def test_append_forgets_files_that_are_gone(tmp_path: Path) -> None:
    """The cursor holds what is there, so it does not grow for ever."""
    write(tmp_path, "a.jsonl", b'{"id":1}\n')
    _, cursor = records(tmp_path, "*.jsonl", None)
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")
    found, cursor = records(tmp_path, "*.jsonl", cursor)
    assert found == [b'{"id":1}']
    assert list(cursor["files"]) == [str(tmp_path / "b.jsonl")]


def test_append_cursor_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many files the newest are remembered each, and of the older ones the time: none of them comes again."""
    monkeypatch.setattr("syncline.connectors.file.seen.MOST_FILES", 3)

    def file(number: int) -> StoredFile:
        return StoredFile(f"f{number}", f"f{number}", 10, float(number), str(number))

    files = [file(number) for number in range(8)]
    cursor = append_cursor(files[:6], None)
    assert sorted(cursor["files"]) == ["f3", "f4", "f5"]
    assert cursor["before"] == 2.0
    assert choose_fresh(files, cursor) == files[6:]
    later = append_cursor(files, cursor)
    assert sorted(later["files"]) == ["f5", "f6", "f7"]
    assert choose_fresh(files, later) == []
    assert append_cursor(files[6:], later)["before"] == 4.0
