"""The file connector: every format gives its records to the byte, and what is cut off is an error."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.connectors import Context, Fetch, json_text
from syncline.connectors.file.connector import FileConnector, FileSource, FileStream
from syncline.connectors.json_text import read_elements
from syncline.errors import ConfigurationError, SourceError
from tests.files import STREAM, read, read_pages, write


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncline.connectors.file.compression.BLOCK_BYTES", 7)
    monkeypatch.setattr("syncline.connectors.json_text.BLOCK_BYTES", 7)


# JSON lines


@pytest.mark.parametrize(
    "content",
    [
        b'{"id":1}\n{"id": 2}\n',
        b'{"id":1}\n{"id": 2}',
        b'\xef\xbb\xbf{"id":1}\r\n{"id": 2}\r\n',
        b'\n\n{"id":1}\r\n\r\n\n{"id": 2}\r\n\n',
    ],
    ids=["plain", "no final newline", "byte order mark and CRLF", "blank lines"],
)
@pytest.mark.parametrize("blocks", [7, 1 << 20])
def test_json_lines(tmp_path: Path, content: bytes, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line ends of all kinds, blank lines and a byte order mark are no part of a record, wherever a block ends."""
    monkeypatch.setattr("syncline.connectors.file.compression.BLOCK_BYTES", blocks)
    assert read(tmp_path, write(tmp_path, "a.jsonl", content)) == [b'{"id":1}', b'{"id": 2}']


def test_broken_line_in_the_middle_is_yielded_raw(tmp_path: Path) -> None:
    """A broken line is left to the loader, and the lines around it are read."""
    name = write(tmp_path, "a.ndjson", b'{"id":1}\n{"id":\xff\n{"id":3}\n')
    assert read(tmp_path, name) == [b'{"id":1}', b'{"id":\xff', b'{"id":3}']


@pytest.mark.parametrize("last", [b'{"id":2', b'{"id":2,"name":"}', b'{"id', b"[" * 10_000])
def test_json_lines_that_end_within_a_record_are_cut_off(tmp_path: Path, last: bytes) -> None:
    """A last line without line end that is not closed means that more is missing than that line."""
    with pytest.raises(SourceError, match="cut off"):
        read(tmp_path, write(tmp_path, "a.jsonl", b'{"id":1}\n' + last))


@pytest.mark.parametrize("last", [b'{"id": NaN}', b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}"])
def test_last_line_that_is_closed_but_broken_is_a_record(tmp_path: Path, last: bytes) -> None:
    """A last line whose brackets close is whole; whether it is any good is the loader's to say."""
    assert read(tmp_path, write(tmp_path, "a.jsonl", b'{"id":1}\n' + last))[1] == last


def test_record_of_10_mb(tmp_path: Path) -> None:
    """A record far longer than a block comes whole, from JSON lines and from an array."""
    record = b'{"id":1,"text":"' + b'\\"x]}' * 2_000_000 + b'"}'
    lines = write(tmp_path, "a.jsonl", b'{"id":0}\n' + record + b'\n{"id":2}\n')
    array = write(tmp_path, "a.json", b'[{"id":0},' + record + b',{"id":2}]')
    assert read(tmp_path, lines) == read(tmp_path, array) == [b'{"id":0}', record, b'{"id":2}']


def test_record_over_the_limit_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None) -> None:
    """What is longer than any record may be is refused before it fills the memory."""
    monkeypatch.setattr(json_text, "RECORD_BYTES", 100)
    for name, content in [("a.jsonl", b"x" * 500), ("a.json", b'["' + b"x" * 500), ("b.json", b'{"a":"' + b"x" * 500)]:
        with pytest.raises(SourceError, match="longer than"):
            read(tmp_path, write(tmp_path, name, content))


# JSON


@pytest.mark.parametrize("content", [b"[]", b" [ ]\n", b"null"])
def test_json_without_records(tmp_path: Path, content: bytes) -> None:
    """An empty array has no records; whether that is right is the loader's to say."""
    assert read(tmp_path, write(tmp_path, "a.json", content)) == []


def test_json_object_is_one_record(tmp_path: Path) -> None:
    """A single object at the top is one record, to the byte."""
    assert read(tmp_path, write(tmp_path, "a.json", b'\xef\xbb\xbf {"id": 1, "n": 1.10}\n')) == [
        b'{"id": 1, "n": 1.10}'
    ]


def test_data_selector(tmp_path: Path, small_blocks: None) -> None:
    """The path is followed past other fields, whatever they hold, and with or without the dollar sign."""
    content = b'{"x": {"data": [0]}, "t": "}\\"]", "a": {"n": -1.5e3, "d\\u0061ta": [ {"id":1} , 2 ], "y": []}, "z": 1}'
    name = write(tmp_path, "a.json", content)
    assert read(tmp_path, name, data_selector="$.a.data") == [b'{"id":1}', b"2"]
    assert read(tmp_path, name, data_selector="a.data") == [b'{"id":1}', b"2"]
    assert read(tmp_path, name, data_selector="x") == [b'{"data": [0]}']


@pytest.mark.parametrize(
    ("content", "selector", "message"),
    [
        (b"", "$", "cut off"),
        (b'[{"id":1}', "$", "cut off"),
        (b'[{"id":1},', "$", "cut off"),
        (b'[{"id":"1', "$", "cut off"),
        (b'{"a":[1', "a", "cut off"),
        (b'{"a":[1]', "a", "cut off"),
        (b'{"a":[1], "b', "a", "cut off"),
        (b'{"a":[1], "b": {}', "a", "cut off"),
        (b'{"a', "a", "cut off"),
        (b'[{"id":1}] x', "$", "the end is expected"),
        (b'[{"id":1}}', "$", "no valid JSON at byte 9"),
        (b'{"a":[1]} {}', "a", "the end is expected"),
        (b'{"a":[1]}', "b", "no field 'b'"),
        (b"{}", "b", "no field 'b'"),
        (b'{"a":"text"}', "a", "neither an array nor an object"),
        (b"[1]", "a", "no valid JSON"),
        (b"<html>", "$", "neither an array nor an object"),
    ],
)
@pytest.mark.parametrize("blocks", [7, 1 << 20])
def test_json_that_is_not_whole(
    tmp_path: Path, content: bytes, selector: str, message: str, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that ends early, goes on after its end or lacks the path is an error, never an end."""
    monkeypatch.setattr(json_text, "BLOCK_BYTES", blocks)
    with pytest.raises(SourceError, match=message) as caught:
        read(tmp_path, write(tmp_path, "a.json", content), data_selector=selector)
    assert caught.value.message.startswith("files.people: ")


@pytest.mark.parametrize(
    "bad", [b"[" * 10_000 + b"]" * 10_000, b'{"id": nope}', b'{"id": NaN}', b'{"id":"\xff\\x"}', b""]
)
def test_bad_element_costs_no_other(tmp_path: Path, bad: bytes) -> None:
    """An element nested too deep, or broken, is yielded raw between its neighbours."""
    name = write(tmp_path, "a.json", b'[{"id":1},' + bad + b',{"id":3}]')
    assert read(tmp_path, name) == [b'{"id":1}', bad, b'{"id":3}']


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.sampled_from(["id", "name", "of"]), JSON, max_size=3) | JSON
WHITE = st.text(" \t\r\n", max_size=3)


@settings(max_examples=300, deadline=None)
@given(
    elements=st.lists(RECORDS, max_size=12),
    white=st.tuples(WHITE, WHITE, WHITE, WHITE),
    indent=st.sampled_from([None, 2]),
    is_ascii=st.booleans(),
    size=st.integers(1, 80),
    is_wrapped=st.booleans(),
)
def test_array_gives_back_its_elements(
    elements: list[object],
    white: tuple[str, str, str, str],
    indent: int | None,
    is_ascii: bool,
    size: int,
    is_wrapped: bool,
) -> None:
    """Any array, with any white space and in blocks of any size, gives exactly its elements' texts, in order."""
    texts = [json.dumps(element, ensure_ascii=is_ascii, indent=indent) for element in elements]
    text = white[0] + "[" + white[1] + (white[2] + "," + white[3]).join(texts) + white[2] + "]" + white[0]
    if is_wrapped:
        text = '{"meta":' + json.dumps(elements) + ',"data":' + text + ',"next":null}'
    file = io.BytesIO(text.encode())
    pages = read_elements(lambda wanted: file.read(min(size, wanted)), ["data"] if is_wrapped else [], "place")
    assert [element.decode() for page in pages for element in page] == texts


@settings(max_examples=100, deadline=None)
@given(elements=st.lists(RECORDS, min_size=1, max_size=5), data=st.data())
def test_no_beginning_of_an_array_passes_for_whole(elements: list[object], data: st.DataObject) -> None:
    """Wherever an array is cut off, reading it to the end is an error."""
    text = json.dumps(elements).encode()
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(SourceError, match="cut off"):
        list(read_elements(io.BytesIO(text[:cut]).read, [], "place"))


def test_many_records_with_nested_ones_alike(tmp_path: Path) -> None:
    """Elements that hold objects which begin as they do themselves are told apart, over many blocks."""
    records = [json.dumps({"id": i, "parts": [{"id": k} for k in range(i % 20)]}) for i in range(20_000)]
    name = write(tmp_path, "a.json", ("[" + ", ".join(records) + "]").encode())
    assert read(tmp_path, name) == [record.encode() for record in records]


# gzip


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz"])
def test_gzip(tmp_path: Path, name: str) -> None:
    """Each format may be gzipped; the name tells it."""
    content = {"a.jsonl.gz": b'{"id":"1"}\n', "a.json.gz": b'[{"id":"1"}]', "a.csv.gz": b"id\n1\n"}[name]
    assert read(tmp_path, write(tmp_path, name, gzip.compress(content))) == [b'{"id":"1"}']


@pytest.mark.parametrize("kept", [0, 5, 15, 60, -1])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz"])
def test_gzip_that_is_cut_off(tmp_path: Path, name: str, kept: int) -> None:
    """A gzip file that ends early is an error wherever it was cut, even between two records."""
    content = gzip.compress(b"\n".join(b'{"id":%d}' % (i * 7919) for i in range(1000)) + b"\n")
    with pytest.raises(SourceError, match="cut off"):
        read(tmp_path, write(tmp_path, name, content[:kept]))


def test_gzip_that_is_damaged(tmp_path: Path) -> None:
    """A gzip file with a changed byte is an error."""
    content = bytearray(gzip.compress(b'{"id":1}\n' * 1000))
    content[-6] ^= 0xFF
    with pytest.raises(SourceError, match="damaged"):
        read(tmp_path, write(tmp_path, "a.jsonl.gz", bytes(content)))
    with pytest.raises(SourceError, match="damaged"):
        read(tmp_path, write(tmp_path, "b.jsonl.gz", b'{"id":1}\n'))


# CSV


def test_csv(tmp_path: Path) -> None:
    """Rows become objects of strings: quotes, line ends in cells and empty cells included."""
    content = '\ufeffid,"full ""name""",note\r\n1,"Ada, L.",\r\n\r\n2,Zoë,"two\nlines"\r\n'.encode()
    assert [json.loads(record) for record in read(tmp_path, write(tmp_path, "a.csv", content))] == [
        {"id": "1", 'full "name"': "Ada, L.", "note": None},
        {"id": "2", 'full "name"': "Zoë", "note": "two\nlines"},
    ]


def test_csv_delimiter_and_encoding(tmp_path: Path) -> None:
    """Another delimiter and encoding can be set; a .tsv file has tabs."""
    name = write(tmp_path, "a.txt", "id;name\n1;Zoë".encode("latin-1"))
    assert read(tmp_path, name, format="csv", delimiter=";", encoding="latin-1") == ['{"id":"1","name":"Zoë"}'.encode()]
    assert read(tmp_path, write(tmp_path, "a.tsv", b"id\tname\n1\tA\n")) == [b'{"id":"1","name":"A"}']


def test_csv_row_with_other_cells_than_the_header(tmp_path: Path) -> None:
    """A row with too few or too many cells is unreadable, keeps its key, and costs no other row."""
    (page,) = read_pages(tmp_path, write(tmp_path, "a.csv", b"id,a,b\n1,x,y\n2,x\n3,x,y,z\n4,x,y\n"))
    assert page.unreadable == {1: "has 2 cells, the header has 3", 2: "has 4 cells, the header has 3"}
    assert [json.loads(record)["id"] for record in page.records] == ["1", "2", "3", "4"]


def test_csv_row_that_cannot_be_decoded(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 make their row unreadable; the damaged cell is null, so no key is made up."""
    (page,) = read_pages(tmp_path, write(tmp_path, "a.csv", b"id,a\n1,x\nM\xfcller,y\n3,\xff\n4,z\n"))
    assert page.unreadable == {1: "has bytes that are not utf-8", 2: "has bytes that are not utf-8"}
    assert page.records[1:3] == [b'{"id":null,"a":"y"}', b'{"id":"3","a":null}']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,a\n1,x\n2", "ends within a row"),
        (b'id,a\n1,x\n2,"y\n3,z\n', "ends within a quoted cell"),
        (b"", "is empty"),
        (b"id,,a\n", "column 2 has no name"),
        (b"id,a,id\n", "names 'id' twice"),
        (b"id,\xff\n", "header cannot be decoded"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    """A CSV file that is cut off, or whose header does not name each column once, is an error."""
    with pytest.raises(SourceError, match=message):
        read(tmp_path, write(tmp_path, "a.csv", content))


def test_csv_cell_of_10_mb(tmp_path: Path) -> None:
    """A cell may be longer than the csv module's own limit."""
    (record,) = read(tmp_path, write(tmp_path, "a.csv", b"id,a\n1," + b"x" * 10_000_000 + b"\n"))
    assert len(record) > 10_000_000


# Files


def test_files_of_a_pattern_are_one_load_in_order(tmp_path: Path) -> None:
    """A pattern's files are read in the order of their names, each in its own format; folders may hold brackets."""
    folder = tmp_path / "in [1]"
    folder.mkdir()
    write(folder, "b.jsonl", b'{"id":"2"}')
    write(folder, "a.csv", b"id\n1\n")
    connector = FileConnector(FileSource(path="in [1]"), Context(tmp_path))
    pages = list(connector.read(Fetch(stream=STREAM, settings=FileStream(path="*"))))
    assert [page.records for page in pages] == [[b'{"id":"1"}'], [b'{"id":"2"}']]
    assert not connector.is_increment(STREAM, FileStream(path="*"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a pattern without a match, a folder and an unknown format are errors with a hint."""
    (tmp_path / "folder").mkdir()
    write(tmp_path, "a.dat", b"x")
    for path, message in [
        ("a.json", "no file"),
        ("*.json", "no file"),
        ("folder", "is a folder"),
        ("a.dat", "does not tell its format"),
    ]:
        with pytest.raises(SourceError, match=message) as caught:
            read(tmp_path, path)
        assert caught.value.hint


def test_settings_are_checked(tmp_path: Path) -> None:
    """An unknown encoding and a path that is no dotted one are wrong configuration, not a failed run."""
    with pytest.raises(ConfigurationError, match="encoding"):
        read(tmp_path, write(tmp_path, "a.csv", b"id\n1\n"), encoding="utf-99")
    with pytest.raises(ConfigurationError, match="data_selector"):
        read(tmp_path, write(tmp_path, "a.json", b"[]"), data_selector="$.a[*].b")
