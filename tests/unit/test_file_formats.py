"""Parquet, Excel and packed files: records as JSON has them, and an error for what is cut off."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.connectors.file.arrow_text import write_records
from syncline.connectors.sheet_rows import CellRange, column_letters, column_number, parse_range
from syncline.errors import ConfigurationError, SourceError
from tests.files import read, read_pages, write

# Parquet


def write_parquet(folder: Path, columns: dict[str, Any], **options: Any) -> str:
    pq.write_table(pa.table(columns), folder / "a.parquet", **options)
    return "a.parquet"


def test_parquet_values(tmp_path: Path) -> None:
    """Each type has its JSON: numbers to the last digit, ISO times, hexadecimal bytes, nested lists and objects."""
    moment = datetime(2024, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    columns = {
        "id": pa.array([1, None], pa.int64()),
        "big": pa.array([2**64 - 1, 0], pa.uint64()),
        "price": pa.array([Decimal("10.50"), Decimal("-0.01")], pa.decimal128(38, 2)),
        "share": pa.array([0.1, None]),
        "odd": pa.array([float("nan"), float("-inf")]),
        "is_on": pa.array([True, False]),
        "name": pa.array(['say "hi"\\\n\x01', "Zoë 😀"]),
        "kind": pa.array(["a", None]).dictionary_encode(),
        "at": pa.array([moment, None], pa.timestamp("us", "Europe/Berlin")),
        "local": pa.array([datetime(2024, 1, 2), datetime(2024, 1, 2, 0, 0, 0, 5)], pa.timestamp("us")),
        "day": pa.array([date(2024, 1, 2), None]),
        "clock": pa.array([time(3, 4, 5), None], pa.time64("us")),
        "bytes": pa.array([b"\x00\xff", b""]),
        "list": pa.array([[1, None], []]),
        "tree": pa.array([{"a": ["x"], "b": {"c": Decimal("1.20")}}, None]),
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
        "nothing": pa.nulls(2),
    }
    texts = read(tmp_path, write_parquet(tmp_path, columns))
    assert b'"price":10.50,' in texts[0]
    assert [json.loads(text, parse_float=str) for text in texts] == [
        {
            "id": 1, "big": 2**64 - 1, "price": "10.50", "share": "0.1", "odd": "NaN", "is_on": True,
            "name": 'say "hi"\\\n\x01', "kind": "a", "at": "2024-01-02T03:04:05.000600Z",
            "local": "2024-01-02T00:00:00", "day": "2024-01-02", "clock": "03:04:05.000000", "bytes": "\\x00ff",
            "list": [1, None], "tree": {"a": ["x"], "b": {"c": "1.20"}}, "map": {"k": 1}, "nothing": None,
        },
        {
            "id": None, "big": 0, "price": "-0.01", "share": None, "odd": "-Infinity", "is_on": False,
            "name": "Zoë 😀", "kind": None, "at": None, "local": "2024-01-02T00:00:00.000005", "day": None,
            "clock": None, "bytes": "\\x", "list": [], "tree": None, "map": {}, "nothing": None,
        },
    ]  # fmt: skip


ROWS = st.fixed_dictionaries(
    {
        "t": st.none() | st.text(),
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "l": st.none() | st.lists(st.none() | st.text(), max_size=3),
        "s": st.none() | st.fixed_dictionaries({"a": st.none() | st.text(), "b": st.none() | st.lists(st.booleans())}),
    }
)
SCHEMA = pa.schema(
    {
        "t": pa.string(),
        "i": pa.int64(),
        "f": pa.float64(),
        "l": pa.list_(pa.string()),
        "s": pa.struct({"a": pa.string(), "b": pa.list_(pa.bool_())}),
    }
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(ROWS, max_size=8), start=st.integers(0, 4))
def test_columns_give_back_their_rows(rows: list[dict[str, Any]], start: int) -> None:
    """Any values, nested and null, in a whole batch or a part of one, come out as they went in."""
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA).slice(start)
    assert [json.loads(text) for text in write_records(SCHEMA.names, batch.columns)] == rows[start:]


def test_text_of_a_row_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    """A row that did not change has the same bytes, whatever rows are beside it."""
    one = [datetime(2024, 1, 1), datetime(2024, 1, 1, 1, 1, 1, 1)]
    both = write_records(["a", "b"], [pa.array(one), pa.array(["x", 'y"'])])
    assert [*write_records(["a", "b"], [pa.array(one[:1]), pa.array(["x"])])] == both[:1]


def test_parquet_is_read_in_batches(tmp_path: Path) -> None:
    """Many row groups, or one large one, give pages of at most ten thousand rows, in order."""
    for size in (1_000, 50_000):
        name = write_parquet(tmp_path, {"id": range(50_000)}, row_group_size=size)
        pages = read_pages(tmp_path, name)
        assert max(len(page.records) for page in pages) <= 10_000
        assert [r for page in pages for r in page.records] == [b'{"id":%d}' % i for i in range(50_000)]


@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_parquet_that_is_cut_off(tmp_path: Path, kept: int) -> None:
    """A Parquet file that ends early is an error."""
    name = write_parquet(tmp_path, {"id": range(1000)})
    content = (tmp_path / name).read_bytes()
    with pytest.raises(SourceError, match="cut off"):
        read(tmp_path, write(tmp_path, name, content[:kept]))


def test_parquet_with_a_damaged_page(tmp_path: Path) -> None:
    """Bytes that were changed in the middle are an error where they cannot be unpacked."""
    name = write_parquet(tmp_path, {"id": [f"text {i}" for i in range(10_000)]}, compression="gzip")
    content = bytearray((tmp_path / name).read_bytes())
    content[2000:2100] = b"\xff" * 100
    with pytest.raises(SourceError, match="damaged"):
        read(tmp_path, write(tmp_path, name, bytes(content)))


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    """Two columns of one name cannot be fields of one object."""
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="named 'a'"):
        read(tmp_path, "a.parquet")


# Excel


def write_workbook(folder: Path, name: str = "a.xlsx", **sheets: dict[str, Any]) -> str:
    """Write a workbook of sheets, each of values by cell."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, cells in sheets.items():
        sheet = book.create_sheet(title)
        for cell, value in cells.items():
            sheet[cell] = value
    book.save(folder / name)
    return name


PEOPLE = {"A1": "id", "B1": "name", "A2": 1, "B2": "Ada", "A4": 2.5, "C4": "beside", "A5": True, "B5": ""}


def test_excel(tmp_path: Path) -> None:
    """Rows below the header become objects, empty cells null; blank rows are left out, and rows keep their numbers."""
    pages = read_pages(tmp_path, write_workbook(tmp_path, People=PEOPLE))
    assert [(page.ordinal, page.records) for page in pages] == [
        (2, [b'{"id":1,"name":"Ada"}']),
        (4, [b'{"id":2.5,"name":null}', b'{"id":true,"name":null}']),
    ]


def test_excel_dates(tmp_path: Path) -> None:
    """Dates and times are ISO 8601."""
    cells = {"A1": "at", "B1": "clock", "A2": datetime(2024, 1, 2, 3, 4, 5), "B2": time(3, 4), "A3": date(2024, 1, 2)}
    (page,) = read_pages(tmp_path, write_workbook(tmp_path, People=cells))
    assert page.records == [b'{"at":"2024-01-02T03:04:05","clock":"03:04:00"}', b'{"at":"2024-01-02","clock":null}']


def test_excel_sheet_and_range(tmp_path: Path) -> None:
    """A sheet is chosen by name, and a part of it by a range or the header's row."""
    cells = {"B3": "id", "C3": "a", "B4": 1, "C4": "x", "D4": "no", "B5": 2, "C5": "y", "B6": 3, "C6": "z"}
    name = write_workbook(tmp_path, People=PEOPLE, Other=cells)
    assert read(tmp_path, name, sheet="Other", range="B3:C5") == [b'{"id":1,"a":"x"}', b'{"id":2,"a":"y"}']
    assert read(tmp_path, name, sheet="Other", range="C:C", header_row=3)[-1] == b'{"a":"z"}'
    (page,) = read_pages(tmp_path, name, sheet="Other", range="B3:C4")
    assert page.ordinal == 4
    with pytest.raises(SourceError, match="no sheet 'Prices'") as caught:
        read(tmp_path, name, sheet="Prices")
    assert caught.value.hint == "Its sheets: People, Other."


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"A1": "id", "C1": "a"}, "column B has no name"),
        ({"A1": "id", "B1": "a", "C1": "id"}, "columns A and C are both named 'id'"),
        ({"A2": 1}, "names no column"),
        ({}, "names no column"),
    ],
)
def test_excel_header_that_does_not_name_each_column(tmp_path: Path, cells: dict[str, Any], message: str) -> None:
    """A header with a gap, one name twice or none at all is an error that names the columns."""
    with pytest.raises(SourceError, match=message):
        read(tmp_path, write_workbook(tmp_path, People=cells))


def test_excel_that_is_no_workbook(tmp_path: Path) -> None:
    """A workbook that is cut off, or something else of that name, is an error."""
    content = (tmp_path / write_workbook(tmp_path, People=PEOPLE)).read_bytes()
    for part in (b"", b"id,a\n1,x\n", content[: len(content) // 2]):
        with pytest.raises(SourceError, match="cut off or damaged"):
            read(tmp_path, write(tmp_path, "b.xlsx", part))


def test_rows_of_several_workbooks_are_numbered_through(tmp_path: Path) -> None:
    """Two workbooks have the same row numbers, and a load must not: it counts them itself."""
    for name in ("a.xlsx", "b.xlsx"):
        write_workbook(tmp_path, name, People=PEOPLE)
    assert [page.ordinal for page in read_pages(tmp_path, "*.xlsx")] == [None] * 4


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("A1:F90", CellRange(1, 1, 6, 90)),
        ("B3:F", CellRange(2, 3, 6, None)),
        ("B:AA", CellRange(2, 1, 27, None)),
        ("b3:90", CellRange(2, 3, None, 90)),
        ("C5", CellRange(3, 5, None, None)),
    ],
)
def test_range(text: str, cells: CellRange) -> None:
    """Ranges are written as sheets write them."""
    assert parse_range(text) == cells


@pytest.mark.parametrize("text", ["", "1:3", "A0:B", "F1:A9", "A9:B1", "Sheet!A1"])
def test_range_that_is_none(text: str) -> None:
    """Anything else is wrong configuration."""
    with pytest.raises(ConfigurationError, match="range"):
        parse_range(text)


@given(number=st.integers(1, 20_000))
def test_column_letters(number: int) -> None:
    """Letters and numbers of columns are each other's inverse."""
    assert column_number(column_letters(number)) == number


# Packed files


def pack(content: bytes, *names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", b'{"id":"1"}\n'), ("a.csv", b"id\n1\n")])
def test_zstd_and_zip(tmp_path: Path, name: str, content: bytes) -> None:
    """Files may be packed by zstd, in one frame or several, and by zip."""
    for suffix, packed in [
        (".zst", zstd.compress(content)),
        (".zst", zstd.compress(content[:3]) + zstd.compress(content[3:])),
        (".zip", pack(content, "folder/inner.txt")),
    ]:
        assert read(tmp_path, write(tmp_path, name + suffix, packed)) == [b'{"id":"1"}']


def test_parquet_and_excel_may_be_packed(tmp_path: Path) -> None:
    """A format that is read at any place is unpacked before."""
    content = (tmp_path / write_parquet(tmp_path, {"id": [1]})).read_bytes()
    assert read(tmp_path, write(tmp_path, "b.parquet.zst", zstd.compress(content))) == [b'{"id":1}']
    content = (tmp_path / write_workbook(tmp_path, People=PEOPLE)).read_bytes()
    assert len(read(tmp_path, write(tmp_path, "b.xlsx.zip", pack(content, "b.xlsx")))) == 3


@pytest.mark.parametrize("kept", [0, 3, 60, -1])
@pytest.mark.parametrize("suffix", [".zst", ".zip"])
def test_packed_file_that_is_cut_off(tmp_path: Path, suffix: str, kept: int) -> None:
    """A packed file that ends early is an error wherever it was cut."""
    content = b"\n".join(b'{"id":%d}' % (i * 7919) for i in range(1000)) + b"\n"
    packed = zstd.compress(content) if suffix == ".zst" else pack(content, "a.jsonl")
    with pytest.raises(SourceError, match="cut off or damaged"):
        read(tmp_path, write(tmp_path, "a.jsonl" + suffix, packed[:kept]))


def test_packed_file_that_is_damaged(tmp_path: Path) -> None:
    """A changed byte, or something else of that name, is an error."""
    content = bytearray(pack(b'{"id":1}\n' * 1000, "a.jsonl"))
    content[45] ^= 0xFF
    with pytest.raises(SourceError, match="damaged"):
        read(tmp_path, write(tmp_path, "a.jsonl.zip", bytes(content)))
    for suffix in (".zst", ".zip"):
        with pytest.raises(SourceError, match="damaged"):
            read(tmp_path, write(tmp_path, f"b.jsonl{suffix}", b'{"id":1}\n' * 10))


def test_zip_of_several_files(tmp_path: Path) -> None:
    """An archive of several files does not tell which is meant."""
    name = write(tmp_path, "a.jsonl.zip", pack(b'{"id":1}', "a.jsonl", "b.jsonl"))
    with pytest.raises(SourceError, match="holds 2 files"):
        read(tmp_path, name)


# Packages


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("a.parquet", "pyarrow", "syncline[parquet]"),
        ("a.xlsx", "python_calamine", "syncline[excel]"),
        ("a.jsonl.zst", "backports", "syncline[files]"),
    ],
)
def test_package_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    """A format whose package is not installed is wrong configuration, with what to install; others are read."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, write(tmp_path, name, b"x"))
    assert caught.value.hint == f"pip install '{extra}'"
    assert name in caught.value.message
    assert read(tmp_path, write(tmp_path, "a.csv", b"id\n1\n")) == [b'{"id":"1"}']
