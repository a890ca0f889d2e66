"""Records that are bad: each costs nobody else anything, and the rest of the load is published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.projects import Bench, people, person, row, rows


@dataclass(frozen=True)
class Bad:
    """A bad version of record 7: what is wrong with it, and whether its key can be read."""

    record: bytes
    message: str
    has_key: bool = True


def raw(**changes: str) -> bytes:
    """Record 7 with raw JSON texts in the place of values."""
    texts = {name: json.dumps(value) for name, value in person(7).items()} | changes
    return ("{" + ", ".join(f'"{name}": {text}' for name, text in texts.items()) + "}").encode()


DEEP = "[" * 10_000 + "]" * 10_000

UNTAKEN = {
    "no key": Bad(b'{"name": "nobody"}', "its key is missing", has_key=False),
    "a null key": Bad(raw(id="null"), "its key is null", has_key=False),
    "a boolean key": Bad(raw(id="true"), "neither a string nor a number", has_key=False),
    "an object as key": Bad(raw(id='{"a": 1}'), "neither a string nor a number", has_key=False),
    "an empty key": Bad(raw(id='""'), "its key is empty", has_key=False),
    "a long key": Bad(raw(id='"' + "k" * 1001 + '"'), "longer than 1000 bytes", has_key=False),
    "a record that is no object": Bad(b'"seven"', "not an object", has_key=False),
    "a zero character": Bad(raw(name=r'"a\u0000b"'), r"\u0000"),
    "half of a surrogate pair": Bad(raw(name=r'"a\ud800b"'), "surrogate"),
    "the other half": Bad(raw(name=r'"a\udc00"'), "surrogate"),
    "bytes that are no UTF-8": Bad(raw(name='"MARK"').replace(b"MARK", b"a\xffb"), "UTF-8"),
    "a half surrogate in UTF-8": Bad(raw(name='"MARK"').replace(b"MARK", b"\xed\xa0\x80"), "UTF-8"),
    "10,000 levels": Bad(raw(deep=DEEP), "nested deeper than", has_key=False),
    "a number beyond all types": Bad(raw(age="1e400000"), "out of range"),
    "a number below all types": Bad(raw(age="1e-400000"), "out of range"),
    "a number of 200,000 digits": Bad(raw(age="9" * 200_000), "out of range"),
}
"""Records that raw does not take: what was there before stays."""


@pytest.mark.parametrize("wrong", UNTAKEN)
def test_a_bad_record_costs_nobody_else_anything(bench: Bench, wrong: str) -> None:
    """The bad record is a row error, its last good state stays, the rest is published, and what is gone is closed.

    Where its key cannot be read, it may be any of those that did not come: the full load closes nothing and says so.
    """
    bench.run(steps=("load",))
    bad = UNTAKEN[wrong]
    good = [person(n, name="changed") if n == 9 else person(n) for n in range(1, 50)]
    bench.api.records["people"] = [bad.record if record["id"] == 7 else record for record in good]
    report = bench.sync()
    expected = rows(good) | ({} if bad.has_key else rows([person(50)]))
    assert bench.current() == expected
    assert set(bench.live()) == set(expected)
    assert report["streams"]["shop.people"]["closes"] is bad.has_key
    (error,) = bench.errors()
    assert (error["stream"], error["_key"], error["row_number"]) == ("shop.people", "7" if bad.has_key else None, 7)
    assert error["severity"] == "error"
    assert bad.message in error["message"]
    assert report["row_errors"] == 1
    bench.api.records["people"] = people(49)
    bench.sync()
    assert bench.current() == rows(people(49))
    assert bench.errors() == []
    bench.verify()


@pytest.mark.parametrize("wrong", ["no key", "a zero character", "10,000 levels", "a number beyond all types"])
def test_a_bad_record_in_the_first_load(bench: Bench, wrong: str) -> None:
    """The first load takes all but the bad record."""
    bench.api.records["people"] = [UNTAKEN[wrong].record if n == 7 else person(n) for n in range(1, 51)]
    bench.sync()
    assert bench.current() == rows(record for record in people(50) if record["id"] != 7)
    (error,) = bench.errors()
    assert UNTAKEN[wrong].message in error["message"]


def test_all_bad_records_at_once(bench: Bench) -> None:
    """One load with one record of each kind brings one row error for each, and all of the others."""
    count = 400
    bench.api.records["people"] = people(count)
    bench.run(steps=("load",))
    bads = [bad.record.replace(b'"id": 7', b'"id": %d' % n) for n, bad in enumerate(UNTAKEN.values(), 1)]
    bench.api.records["people"] = [*bads, *people(count)[len(bads) :]]
    bench.sync()
    assert bench.current() == rows(people(count))
    assert [error["row_number"] for error in bench.errors()] == list(range(1, len(bads) + 1))


UNTYPED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a number too large for its type": ({"age": 99999999999}, "age", "not a valid integer"),
    "a number of 400 digits": ({"age": 10**400}, "age", "not a valid integer"),
    "a fraction": ({"age": 1.5}, "age", "not a valid integer"),
    "a date that is none": ({"born": "1990-02-31"}, "born", "not a valid date"),
    "a text that is no date": ({"born": "yesterday-ish"}, "born", "not a valid date"),
    "an object for a date": ({"born": {"year": 1990}}, "born", "not a valid date"),
    "an empty text for a number": ({"age": ""}, "age", "not a valid integer"),
}


@pytest.mark.parametrize("wrong", UNTYPED)
def test_a_value_that_does_not_fit_is_null(bench: Bench, wrong: str) -> None:
    """An optional value that does not fit its type is null with a warning that names column, row and key."""
    changes, column, message = UNTYPED[wrong]
    bench.api.records["people"][6] |= changes
    bench.sync()
    assert bench.current() == rows(people(50)) | {"7": row(person(7)) | {column: None}}
    (error,) = bench.errors()
    assert (error["entity"], error["column_name"], error["_key"], error["row_number"]) == ("people", column, "7", 7)
    assert (error["message"], error["severity"]) == (message, "warning")


@pytest.mark.parametrize("wrong", [{"id": 7, "email": None}, {"id": "seven"}, {"id": 10**30}, {"id": 7.5}])
def test_a_required_value_that_does_not_fit_rejects_the_record(bench: Bench, wrong: dict[str, Any]) -> None:
    """Without a required value the record is rejected, with an error; the others are published."""
    bench.api.records["people"][6] |= wrong
    bench.sync()
    assert bench.current() == rows(record for record in people(50) if record["id"] != 7)
    assert [error["severity"] for error in bench.errors()] == ["error"]


def test_a_field_of_ten_megabytes_is_a_value(bench: Bench) -> None:
    """A long text is no error: it is loaded, published and compared like any other."""
    long = "x" * 10_000_000
    bench.run(steps=("load",))
    bench.api.records["people"][6] |= {"name": long}
    bench.sync()
    assert bench.errors() == []
    assert bench.current()["7"]["name"] == long
    report = bench.sync()
    assert report["entities"]["people"]["state"] == "unchanged"
    bench.api.records["people"] = people(49)
    bench.sync()
    assert bench.current() == rows(people(49))
    bench.verify()


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_records_with_one_key_the_last_wins(bench: Bench, is_first: bool) -> None:
    """A duplicate key is a warning with its row, in the first load and in later ones; the last record counts."""
    if not is_first:
        bench.run(steps=("load",))
    bench.api.records["people"] = [*people(50), person(7, name="last")]
    bench.sync()
    assert bench.current() == rows([*people(50), person(7, name="last")])
    (error,) = bench.errors()
    assert (error["_key"], error["row_number"], error["severity"]) == ("7", 7, "warning")
    assert "duplicate key" in error["message"]
    bench.verify()


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_records_with_one_unique_key_one_is_rejected(bench: Bench, is_first: bool) -> None:
    """Of two records with one unique key, one is published and the other is an error; the rest goes through."""
    if not is_first:
        bench.sync()
    bench.api.records["people"] = [*people(50), person(51, email="p50@example.com"), person(52)]
    bench.sync()
    assert bench.current() == rows([*people(50), person(52)])
    (error,) = bench.errors()
    assert (error["entity"], error["_key"], error["severity"]) == ("people", "51", "error")
    assert "email" in error["message"]
    bench.verify()


# Files


BROKEN_LINES = [
    (b'{"id": 3, "place": "x"', "3", True),
    (b'{"place": "x", "id": ', None, False),
    (b"not JSON at all", None, False),
    (b'{"id": 3, "place": "\xff"}', "3", True),
    (b'{"id": 3, "place": "a\x00b"}', "3", True),
    (b'[{"id": 3}]', None, False),
]


@pytest.mark.parametrize(("line", "key", "closes"), BROKEN_LINES)
def test_a_broken_line_costs_its_record(bench: Bench, line: bytes, key: str | None, closes: bool) -> None:
    """A broken line in the middle of a JSON-lines file is a row error with its number; the lines after it count."""
    bench.write_lines("visits.jsonl", [{"id": n, "place": "a"} for n in range(1, 6)])
    bench.run("files", steps=("load",))
    bench.write_lines("visits.jsonl", [{"id": 1, "place": "b"}, {"id": 2, "place": "b"}, line, {"id": 4, "place": "b"}])
    report = bench.sync("files")
    errors = bench.errors(stream="visits")
    assert [(error["row_number"], error["severity"]) for error in errors] == [(3, "error")]
    # A key that can be read spares the others; one in broken JSON counts as unreadable.
    closes = report["streams"]["files.visits"]["closes"]
    expected = {"1": "b", "2": "b", "3": "a", "4": "b"} | ({} if closes else {"5": "a"})
    assert {name: found["place"] for name, found in bench.current("visits").items()} == expected
    assert errors[0]["_key"] == (key if closes else None)
    bench.verify("visits")


@pytest.mark.parametrize(
    ("line", "message", "has_key"),
    [
        (b"3", "has 1 cells, the header has 2", True),
        (b"3,30,300", "has 3 cells, the header has 2", True),
        (b"3,\xff", "not utf-8", True),
        (b",30", "key", False),
    ],
)
def test_a_bad_row_costs_its_record(bench: Bench, line: bytes, message: str, has_key: bool) -> None:
    """A CSV row that is too short, too long or no text is a row error; the rows after it count."""
    bench.write_lines("prices.csv", ["id,amount", *(f"{n},{n}" for n in range(1, 6))])
    bench.run("files", steps=("load",))
    bench.write_lines("prices.csv", ["id,amount", "1,10", "2,20", line, "4,40"])
    bench.sync("files")
    (error,) = bench.errors(stream="prices")
    assert (error["row_number"], error["_key"]) == (3, "3" if has_key else None)
    assert message in error["message"]
    expected = {"1": 10, "2": 20, "3": 3, "4": 40} | ({} if has_key else {"5": 5})
    assert {name: found["amount"] for name, found in bench.current("prices").items()} == expected
    bench.verify("prices")


def test_too_many_bad_records_stop_the_run(bench: Bench) -> None:
    """Where more than a tenth of a load's records are bad, and more than ten, nothing is published; exit is 3."""
    bench.sync()
    bench.api.records["people"] = [{"name": "nobody"}] * 11 + people(50, name="y")[11:]
    failure = bench.fail()
    assert failure.exit_code == 3
    assert "11 of the 50 records of shop.people were rejected" in failure.message
    assert "syncline errors" in (failure.hint or "")
    assert bench.current() == rows(people(50))
