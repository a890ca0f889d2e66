"""What `discover` makes of a folder of files."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncline.connectors import Context, Found
from syncline.connectors.file.connector import FileConnector, FileSource, FileStream
from syncline.errors import SourceError
from tests.files import read


def discover(folder: Path) -> dict[str, Found]:
    return {found.name: found for found in FileConnector(FileSource(), Context(folder)).discover()}


def test_files_become_streams(tmp_path: Path) -> None:
    """Each file is a stream; files that differ in numbers are one; others, and hidden ones, are none."""
    files = {
        "people.jsonl": b'{"id":1}\n',
        "exports/2024-01-31.csv": b"id;a\n1;x\n",
        "exports/2024-02-29.csv": b"id;a\n2;y\n",
        "logs/app.2024-01-01T10.jsonl.gz": b"",
        "logs/App v2.json": b'[{"id":1}]',
        "people.csv": b"id\n1\n",
        "read me.txt": b"",
        ".hidden/a.csv": b"id\n1\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "logs/app.2024-01-01T10.jsonl.gz").unlink()
    found = discover(tmp_path)
    assert {name: stream.settings for name, stream in found.items()} == {
        "exports": {"path": "exports/*.csv"},
        "app_v": {"path": "logs/App v2.json"},
        "people": {"path": "people.csv"},
        "people_2": {"path": "people.jsonl"},
    }
    assert found["exports"].records == [b'{"id":"2","a":"y"}']


def test_found_settings_read_what_was_found(tmp_path: Path) -> None:
    """A workbook gives a stream for each sheet, and its settings read that sheet."""
    book = openpyxl.Workbook()
    book.active.title = "Staff"
    book.active.append(["id"])
    book.active.append([1])
    book.create_sheet("2024 prices").append(["price"])
    book.save(tmp_path / "book.xlsx")
    found = discover(tmp_path)
    assert {name: stream.settings for name, stream in found.items()} == {
        "book_staff": {"path": "book.xlsx", "sheet": "Staff"},
        "book_2024_prices": {"path": "book.xlsx", "sheet": "2024 prices"},
    }
    assert read(tmp_path, **found["book_staff"].settings) == found["book_staff"].records == [b'{"id":1}']
    assert FileStream(**found["book_2024_prices"].settings)


def test_parquet_tells_its_types(tmp_path: Path) -> None:
    """The columns of a Parquet file come with their Postgres types; of many records a hundred are the sample."""
    types = {
        "id": (pa.int64(), "bigint"),
        "n": (pa.int32(), "integer"),
        "u": (pa.uint64(), "numeric(20)"),
        "price": (pa.decimal128(12, 2), "numeric(12,2)"),
        "share": (pa.float64(), "double precision"),
        "is_on": (pa.bool_(), "boolean"),
        "name": (pa.large_string(), "text"),
        "at": (pa.timestamp("us", "UTC"), "timestamptz"),
        "local": (pa.timestamp("ms"), "timestamp"),
        "day": (pa.date32(), "date"),
        "clock": (pa.time64("us"), "time"),
        "raw": (pa.binary(), "bytea"),
        "list": (pa.list_(pa.int8()), "jsonb"),
        "kind": (pa.dictionary(pa.int8(), pa.string()), "text"),
    }
    columns = {name: pa.nulls(150, kind) for name, (kind, _) in types.items()}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = discover(tmp_path)["a"]
    assert found.columns == {name: postgres for name, (_, postgres) in types.items()}
    assert len(found.records) == 100


def test_file_that_cannot_be_read_costs_the_others_nothing(tmp_path: Path) -> None:
    """A file that is cut off or empty has fewer records in its sample, or none, and says why."""
    for name, content in {
        "a.csv": b"",
        "b.parquet": b"PAR1",
        "c.xlsx": b"x",
        "d.jsonl.gz": b"x",
        "e.csv": b"id\n1\n",
    }.items():
        (tmp_path / name).write_bytes(content)
    found = discover(tmp_path)
    assert [name for name, one in found.items() if one.problem] == ["a", "b", "c", "d"]
    assert "d.jsonl.gz is cut off or damaged" in (found["d"].problem or "")
    assert {name: one.records for name, one in found.items()} == {
        "a": [],
        "b": [],
        "c": [],
        "d": [],
        "e": [b'{"id":"1"}'],
    }


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """A path that is no folder is an error."""
    with pytest.raises(SourceError, match="no folder"):
        discover(tmp_path / "none")
