"""CSV files of many hands: their delimiter, quotes and encoding are told from the file, or set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from syncline.errors import ConfigurationError, SourceError
from tests.files import read, read_pages, write


def rows(folder: Path, content: bytes, name: str = "a.csv", **settings: object) -> list[dict[str, str | None]]:
    return [json.loads(record) for record in read(folder, write(folder, name, content), **settings)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_told_from_the_rows(tmp_path: Path, delimiter: str) -> None:
    """Any usual delimiter is found, also where cells hold another one."""
    lines = [["id", "name, first", "price"], ["1", '"Ada; L|x"', "1.5"], ["2", "Bob\t", "2.5"]]
    lines[0][1] = f'"{lines[0][1]}"'
    lines[2][1] = '"Bob\t"'
    content = "".join(delimiter.join(cells) + "\n" for cells in lines).encode()
    assert rows(tmp_path, content) == [
        {"id": "1", "name, first": "Ada; L|x", "price": "1.5"},
        {"id": "2", "name, first": "Bob\t", "price": "2.5"},
    ]


def test_decimal_commas_do_not_pass_for_delimiters(tmp_path: Path) -> None:
    """What cuts all rows like the first is the delimiter, not what occurs most."""
    content = b"id;price;share\n1;1,50;0,5\n2;2,75;0,25\n"
    assert rows(tmp_path, content)[0] == {"id": "1", "price": "1,50", "share": "0,5"}


def test_one_column_and_one_short_row(tmp_path: Path) -> None:
    """A file of one column needs no delimiter, and a row that is short does not spoil the choice."""
    assert rows(tmp_path, b"id\n1\n2\n") == [{"id": "1"}, {"id": "2"}]
    (page,) = read_pages(tmp_path, write(tmp_path, "b.csv", b"id;a\n1\n2;x\n3;y\n"))
    assert page.unreadable == {0: "has 1 cells, the header has 2"}
    assert page.records[1:] == [b'{"id":"2","a":"x"}', b'{"id":"3","a":"y"}']


def test_single_quotes_are_told_from_the_header(tmp_path: Path) -> None:
    """Cells in single quotes lose them; an apostrophe is text where the header has none."""
    assert rows(tmp_path, b"'id','a'\n'1','x, y'\n") == [{"id": "1", "a": "x, y"}]
    assert rows(tmp_path, b"id,a\n1,it's\n") == [{"id": "1", "a": "it's"}]


def test_quote_and_escape_are_set(tmp_path: Path) -> None:
    """A quote may be another character or none, and an escape may stand before a delimiter or quote."""
    assert rows(tmp_path, b"id,a\n1,^x, y^\n", quote="^", delimiter=",") == [{"id": "1", "a": "x, y"}]
    assert rows(tmp_path, b'id,a\n1,5" nail\n2,"x\n', quote="") == [{"id": "1", "a": '5" nail'}, {"id": "2", "a": '"x'}]
    content = b'id,a\n1,x\\, y\n2,"say \\"hi\\""\n'
    assert rows(tmp_path, content, escape="\\") == [{"id": "1", "a": "x, y"}, {"id": "2", "a": 'say "hi"'}]


@pytest.mark.parametrize("name", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_byte_order_mark_tells_the_encoding(tmp_path: Path, name: str) -> None:
    """A file that begins with a byte order mark needs no encoding set, whether it is CSV or JSON."""
    mark = "" if name in {"utf-8-sig", "utf-16", "utf-32"} else "\ufeff"
    content = (mark + "id,a\n1,Zoë 😀\n").encode(name)
    assert rows(tmp_path, content) == [{"id": "1", "a": "Zoë 😀"}]
    lines = (mark + '{"id":1}\n{"id":"Zoë 😀"}\n').encode(name)
    assert read(tmp_path, write(tmp_path, "a.jsonl", lines)) == [b'{"id":1}', '{"id":"Zoë 😀"}'.encode()]
    array = (mark + '[{"id":1}, {"id":2}]').encode(name)
    assert read(tmp_path, write(tmp_path, "a.json", array)) == [b'{"id":1}', b'{"id":2}']


def test_encoding_that_is_set(tmp_path: Path) -> None:
    """JSON may be in another encoding, too; bytes that are not of it are an error."""
    name = write(tmp_path, "a.jsonl", '{"id":"Zoë"}\n'.encode("latin-1"))
    assert read(tmp_path, name, encoding="latin-1") == ['{"id":"Zoë"}'.encode()]
    for name, content in [("b.jsonl", b'{"id":1}\n\xff'), ("b.csv", b"id\n\xff")]:
        with pytest.raises(SourceError, match="decoded"):
            read(tmp_path, write(tmp_path, name, content), encoding="ascii" if name == "b.jsonl" else "utf-16")
    with pytest.raises(ConfigurationError, match="not known"):
        read(tmp_path, name, encoding="utf-99")


def test_header_that_is_not_there(tmp_path: Path) -> None:
    """Columns get numbers, or the names that are set; rows may be left out above."""
    assert rows(tmp_path, b"1,x\n2,y\n", header=False) == [
        {"column_1": "1", "column_2": "x"},
        {"column_1": "2", "column_2": "y"},
    ]
    assert rows(tmp_path, b"1;x\n", header=["id", "a"]) == [{"id": "1", "a": "x"}]
    assert rows(tmp_path, b'Report "of May\n\nid,a\n1,x\n', skip_rows=2) == [{"id": "1", "a": "x"}]
    assert rows(tmp_path, b"old,names\n1,x\n", header=["id", "a"], skip_rows=1) == [{"id": "1", "a": "x"}]
    assert rows(tmp_path, b"", header=False) == []
    with pytest.raises(SourceError, match="'id' twice"):
        rows(tmp_path, b"1,x\n", header=["id", "id"])


def test_null_values(tmp_path: Path) -> None:
    """The cells that are set stand for null, and no others then, not even the empty."""
    content = b"id,a,b\n1,NA,\n2,-,x\n"
    assert rows(tmp_path, content, null_values=["NA", "-"]) == [
        {"id": "1", "a": None, "b": ""},
        {"id": "2", "a": None, "b": "x"},
    ]
    assert rows(tmp_path, content, null_values=[])[0] == {"id": "1", "a": "NA", "b": ""}


@pytest.mark.parametrize("setting", [{"delimiter": ";;"}, {"quote": '""'}, {"escape": ""}, {"skip_rows": -1}])
def test_settings_that_cannot_be(tmp_path: Path, setting: dict[str, object]) -> None:
    """A delimiter, quote or escape is one character, and no rows are skipped before the first."""
    with pytest.raises(ConfigurationError):
        rows(tmp_path, b"id\n1\n", **setting)
