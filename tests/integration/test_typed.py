"""What fits which type: the same on every server, whatever its settings, its version and its clock say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncline import db
from tests.driver import Driver, person, typed
from tests.projects import Bench

SETTINGS = [
    "datestyle = 'SQL, DMY'",
    "datestyle = 'German, DMY'",
    "datestyle = 'Postgres, MDY'",
    "timezone = 'Asia/Tokyo'",
    "intervalstyle = 'sql_standard'",
]

TAKEN: list[tuple[str, str, str]] = [
    ("date", "2026-06-05", "2026-06-05"),
    ("date", " 2026-06-05 ", "2026-06-05"),
    ("date", "2026-06-05T23:30:00Z", "2026-06-05"),
    ("date", "2026-06-05T23:30:00-05:00", "2026-06-05"),
    ("date", "2026-06-05 01:30:00.5+14", "2026-06-05"),
    ("date", "-infinity", "-infinity"),
    ("timestamp", "2026-06-05T10:00:00", "2026-06-05 10:00:00"),
    ("timestamp", "2026-06-05 10:00", "2026-06-05 10:00:00"),
    ("timestamp", "2026-06-05", "2026-06-05 00:00:00"),
    ("timestamp", "infinity", "infinity"),
    ("timestamptz", "2026-06-05T10:00:00Z", "2026-06-05 10:00:00+00"),
    ("timestamptz", "2026-06-05T10:00:00.123456Z", "2026-06-05 10:00:00.123456+00"),
    ("timestamptz", "2026-06-05 10:00:00+0530", "2026-06-05 04:30:00+00"),
    ("timestamptz", "2026-06-05T10:00:00-05", "2026-06-05 15:00:00+00"),
    ("timestamptz", "2026-06-05T10:00:00", "2026-06-05 10:00:00+00"),
    ("timestamptz", "2026-06-05", "2026-06-05 00:00:00+00"),
    ("timestamp with time zone", "2026-06-05T10:00:00Z", "2026-06-05 10:00:00+00"),
    ("time", "10:00", "10:00:00"),
    ("timetz", "10:00:00+02", "10:00:00+02"),
    ("interval", "P1DT2H", "1 day 02:00:00"),
    ("interval", "-1 2:03:04", "-1 days +02:03:04"),
    ("bigint", "-12", "-12"),
    ("bigint", "+007", "7"),
    ("numeric(6,2)", "12.345", "12.35"),
    ("numeric", "NaN", "NaN"),
    ("numeric", "1e3", "1000"),
    ("double precision", "1.5E-3", "0.0015"),
    ("boolean", "true", "true"),
    ("boolean", "Yes", "true"),
    ("boolean", "0", "false"),
    ("bytea", r"\x00ff", r"\x00ff"),
    ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("int4range", "[1,5)", "[1,5)"),
    ("daterange", "[2026-01-01,infinity)", "[2026-01-01,infinity)"),
    ("varchar(3)", "abc", "abc"),
    ("text[]", '{a,"b,c"}', '{a,"b,c"}'),
    ("date[]", "{2026-06-05,NULL}", "{2026-06-05,NULL}"),
]
"""Type, text and what it becomes."""

REFUSED: list[tuple[str, str]] = [
    *(
        (kind, word)
        for kind in ("date", "timestamp", "timestamptz")
        for word in ("now", "today", " Yesterday", "epoch")
    ),
    ("timestamptz", "tomorrow"),
    ("time", "now"),
    ("time", "allballs"),
    ("date[]", "{2026-06-05,today}"),
    ("daterange", "[today,tomorrow)"),
    ("date", "05/06/2026"),
    ("date", "05-06-2026"),
    ("date", "05/06/26"),
    ("date", "26-06-05"),
    ("date", "5 June 2026"),
    ("date", "June-05-06"),
    ("date", "20260605"),
    ("date", "2026-6-5"),
    ("date", "2026--6--5"),
    ("date", "2026-02-30"),
    ("date", "J2451187"),
    ("timestamp", "2026-06-05T10:00:00Z"),
    ("timestamp", "2026-06-05 10:00:00+02"),
    ("timestamp", "05/06/2026 10:00"),
    ("timestamptz", "05/06/2026"),
    ("timestamptz", "2026-06-05 10:00 PM"),
    ("timestamptz", "2026-06-05 10:00:00 Europe/Rome"),
    ("timestamptz", "2026-06-05 10:00:00 PST"),
    ("timestamptz", "2026-06-05T10:00:00ZZ"),
    ("timestamptz", "2026--6--5T10:00:00Z"),
    ("integer", "0x10"),
    ("bigint", "1_000"),
    ("bigint", "0b1"),
    ("numeric", "1_000.5"),
    ("numeric(10,2)", "0xff"),
    ("double precision", "0x1p3"),
    ("integer[]", "{1,0x10}"),
    ("int4range", "[1_0,20)"),
    ("interval", "infinity"),
    ("bytea", "plain"),
    ("varchar(3)", "abcd"),
    ("bigint", ""),
]
"""Texts that Postgres may take, under some settings or on some versions."""


def judge(connection: db.Connection, function: str, kind: str, text: str | None) -> bool | None:
    statement = f"select syncline.{function}(value, '{kind}') as it from (select %s::text as value offset 0) as one"
    row = connection.execute(statement, (text,)).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row["it"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kind", "text"), REFUSED)
def test_refused_whatever_the_settings(connection: db.Connection, kind: str, text: str) -> None:
    """What depends on settings, version or clock does not fit, under any settings."""
    assert judge(connection, "is_valid", kind, text) is False
    for setting in SETTINGS:
        connection.execute(f"set {setting}")  # type: ignore[arg-type]
        assert judge(connection, "is_valid", kind, text) is False


def build_one(driver: Driver, kind: str, value: Any) -> tuple[str | None, list[dict[str, Any]]]:
    """Build an entity whose column `value` has this type from one record; return its text and the row errors."""
    sql = f"select _key, {typed('value', kind)} as value from {driver.relation}"
    driver.sync([{"id": 1, "value": value}], sql=sql, unique_key=[])
    with driver.connection.transaction():
        driver.connection.execute(
            "set local datestyle = 'ISO'; set local timezone = 'UTC'; set local intervalstyle = 'postgres'"
        )
        row = driver.connection.execute("select value::text as value from people_current").fetchone()
    assert row is not None
    return row["value"], driver.errors()


@pytest.mark.parametrize("setting", SETTINGS)
def test_taken_whatever_the_settings(driver: Driver, setting: str) -> None:
    """A value becomes the same under any settings of the session that builds."""
    columns = ", ".join(f"{typed(str(place), kind)} as c{place}" for place, (kind, _, _) in enumerate(TAKEN))
    record = {"id": 1} | {str(place): text for place, (_, text, _) in enumerate(TAKEN)}
    driver.load([record])
    driver.connection.execute(f"set {setting}")  # type: ignore[arg-type]
    build = driver.build(sql=f"select _key, {columns} from {driver.relation}", unique_key=[])
    driver.connection.execute("set datestyle = 'ISO, YMD'; set timezone = 'UTC'; set intervalstyle = 'postgres'")
    driver.publish(build)
    texts = ", ".join(f"c{place}::text" for place in range(len(TAKEN)))
    row = driver.connection.execute(f"select {texts} from people_current").fetchone()  # type: ignore[arg-type]
    assert row is not None
    assert driver.errors() == []
    assert list(row.values()) == [expected for _, _, expected in TAKEN]


def test_null_is_neither_valid_nor_not(connection: db.Connection) -> None:
    """A value that is missing fits an optional column of any type."""
    for kind in {kind for kind, _, _ in TAKEN} | {kind for kind, _ in REFUSED}:
        assert judge(connection, "is_valid", kind, None) is None, kind


PIECES = ["2026", "26", "06", "5", "31", "-", "/", ":", " ", "T", "Z", "+02", ".5", "e", "_", "0x", "now", "NaN", "inf"]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.sampled_from([text for _, text, _ in TAKEN] + [text for _, text in REFUSED]),
    st.text("0123456789-+:.TZ{}[],x\\", max_size=20),
)
KINDS = sorted({kind for kind, _, _ in TAKEN} | {kind for kind, _ in REFUSED})


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), text=TEXTS)
def test_trying_a_cast_agrees_with_asking(connection: db.Connection, kind: str, text: str) -> None:
    """The slow way of Postgres 15, to try a cast, judges every text as the way of later versions does."""
    if connection.info.server_version < 160000:
        # There the patterns that vouch for a text are what is held against the cast.
        assert judge(connection, "is_castable", kind, text) is judge(connection, "can_cast", kind, text)
        return
    row = connection.execute("select pg_input_is_valid(%s, %s) as it", (text, kind)).fetchone()
    assert row is not None
    assert judge(connection, "can_cast", kind, text) is row["it"]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), text=TEXTS)
def test_the_first_try_agrees_with_the_second(connection: db.Connection, kind: str, text: str) -> None:
    """What fits has the right form, and what has it and is castable fits: both tries of a build give one result."""
    is_valid = judge(connection, "is_valid", kind, text)
    if judge(connection, "is_castable", kind, text):
        assert judge(connection, "has_form", kind, text) is is_valid
    else:
        assert is_valid is False


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("text[]", ["a", 'b"c\\', None, "", "NULL", "{x}", 5, True], r'{a,"b\"c\\",NULL,"","NULL","{x}",5,true}'),
        ("text[]", [], "{}"),
        ("text[]", ["ä,ö", " blank "], '{"ä,ö"," blank "}'),
        ("text[]", [{"a": 1}], r'{"{\"a\": 1}"}'),
        ("integer[]", [[1, 2], [3, 4]], "{{1,2},{3,4}}"),
        ("integer[]", "{1,2}", "{1,2}"),
        ("numeric(5,2)[]", ["1.234", 2], "{1.23,2.00}"),
        ("timestamptz[]", ["2026-06-05T10:00:00Z"], '{"2026-06-05 10:00:00+00"}'),
        ("jsonb[]", [{"a": [1]}, "x", [1, 2]], r'{"{\"a\": [1]}","\"x\"","[1, 2]"}'),
        ("text[]", None, None),
    ],
)
def test_an_array_takes_a_json_array(driver: Driver, kind: str, value: Any, expected: str | None) -> None:
    """A JSON array becomes an array of Postgres, nested ones too; a string is read as Postgres writes an array."""
    assert build_one(driver, kind, value) == (expected, [])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer[]", ["a"]),
        ("integer[]", [[1], [2, 3]]),
        ("date[]", ["05/06/2026"]),
        ("text[]", "plain"),
        ("text[]", {"a": 1}),
        ("integer[]", 5),
    ],
)
def test_an_array_that_does_not_fit_is_a_row_error(driver: Driver, kind: str, value: Any) -> None:
    """An array with an element that does not fit, or none at all, is null with a warning."""
    text, errors = build_one(driver, kind, value)
    assert text is None
    assert [error["message"] for error in errors] == [f"not a valid {kind}"]


def test_an_object_for_a_text_is_its_json(driver: Driver) -> None:
    """A text column takes an object or an array as its JSON text, and an empty text satisfies `required`."""
    record = {"id": 1, "value": {"a": [1]}, "empty": ""}
    columns = f"{typed('value', 'text')} as value, {typed('empty', 'text', required=True)} as empty"
    driver.sync([record], sql=f"select _key, {columns} from {driver.relation}", unique_key=[])
    assert json.loads(driver.current()["1"]["value"]) == {"a": [1]}
    assert driver.current()["1"]["empty"] == ""
    assert driver.errors() == []


def test_columns_of_one_path_have_their_own_errors(driver: Driver) -> None:
    """Of two columns that read one path as two types, each has its row error; those of one type share theirs."""
    columns = {"on_day": "date", "at_time": "timestamptz", "number": "integer", "count": "integer"}
    listed = ", ".join(f"{typed('value', kind)} as {name}" for name, kind in columns.items())
    driver.sync([{"id": 1, "value": "13-06-2026"}], sql=f"select _key, {listed} from {driver.relation}", unique_key=[])
    assert {(error["column_name"], error["message"]) for error in driver.errors()} == {
        ("on_day", "not a valid date"),
        ("at_time", "not a valid timestamptz"),
        ("count, number", "not a valid integer"),
    }


# Formats, through dbt

FORMATS: dict[tuple[str, str], tuple[dict[str, str], list[str]]] = {
    ("date", "DD/MM/YYYY"): (
        {"05/06/2026": "2026-06-05", " 5/6/2026 ": "2026-06-05", "31/12/1999": "1999-12-31"},
        ["05-06-2026", "05/06/26", "2026-06-05", "31/02/2026", "06/13/2026", "05/06/2026 10:00", "today", "", "5 June"],
    ),
    ("timestamptz", "DD/MM/YYYY"): (
        {"5/6/2026": "2026-06-05 00:00:00+00"},
        ["05-06-2026", "05/06/26", "5/6/2026Z", "2026-06-05"],
    ),
    ("timestamp", "MM.DD.YYYY HH24:MI"): (
        {"06.05.2026 9:05": "2026-06-05 09:05:00", "6.5.2026": "2026-06-05 00:00:00"},
        ["06.05.2026 9:05:00", "13.05.2026 9:05", "06.05.2026 25:00", "06x05x2026 9:05", "06.05.2026 9:05Z"],
    ),
    ("timestamptz", "DD/MM/YYYY HH24:MI:SS TZ"): (
        {"05/06/2026 10:00:00 Z": "2026-06-05 10:00:00+00", "05/06/2026 10:00:00+02:00": "2026-06-05 08:00:00+00"},
        ["05/06/2026 10:00:00", "05/06/2026 10:00:00 PST"],
    ),
    ("timestamptz", "DD/MM/YYYY HH24:MI:SS"): (
        {"05/06/2026 10:00:00": "2026-06-05 10:00:00+00"},
        ["05/06/2026 10:00:00Z", "05/06/2026 10:00:00+02"],
    ),
    ("date", "YYYYMMDD"): ({"20260605": "2026-06-05"}, ["2026605", "2026-06-05"]),
}


def test_a_format_is_matched_or_it_is_a_row_error(bench: Bench) -> None:
    """With a format a value matches it, blanks around it aside, or is null with a row error; DateStyle has no say."""
    columns, record = [], {"id": 1}
    expected: dict[str, str | None] = {}
    for (kind, form), (taken, refused) in FORMATS.items():
        for text in [*taken, *refused]:
            name = f"c{len(columns)}"
            columns.append(f"{{{{ typed('{name}', '{kind}', format='{form}') }}}} as {name}")
            record[name], expected[name] = text, taken.get(text)  # type: ignore[assignment]
    listed = ",\n    ".join(columns)
    head = "{{ config(materialized='versioned', unique_key='_key') }}\n\nselect\n    _key,\n    "
    bench.write_model("visits", f"{head}{listed}\nfrom {{{{ source('files', 'visits') }}}}\n")
    bench.write_lines("visits.jsonl", [record])
    with bench.connect() as connection:
        connection.execute(
            "do $$ begin execute 'alter database ' || current_database() || ' set datestyle = DMY'; end $$"
        )
    bench.sync("files")
    texts = ", ".join(f"{name}::text" for name in expected)
    with bench.connect() as connection:
        connection.execute("set datestyle = ISO")
        assert connection.execute(f"select {texts} from visits_current").fetchone() == expected  # type: ignore[arg-type]
    failed = {error["column_name"]: error["message"] for error in bench.errors(entity="visits")}
    assert set(failed) == {name for name, text in expected.items() if text is None}
    assert failed["c3"] == "not a valid date as DD/MM/YYYY"


@pytest.mark.parametrize(
    ("kind", "form", "reason"),
    [
        ("timestamp", "DD/MM/YYYY HH12:MI", "cannot be read"),
        ("date", "DD/MM", "needs YYYY, MM and DD"),
        ("date", "DD/MM/YYYY TZ", "which only a timestamptz takes"),
        ("integer", "DD/MM/YYYY", "a format is for date"),
    ],
)
def test_a_format_that_makes_no_sense_is_refused(bench: Bench, kind: str, form: str, reason: str) -> None:
    """A format with parts that are not known is refused when the model is compiled."""
    column = f"{{{{ typed('d', '{kind}', format='{form}') }}}} as d"
    head = "{{ config(materialized='versioned', unique_key='_key') }}\nselect _key, "
    bench.write_model("visits", f"{head}{column} from {{{{ source('files', 'visits') }}}}\n")
    failure = bench.fail("files")
    assert failure.exit_code == 2
    assert reason in failure.message


def test_the_driver_types_as_the_macro_does(bench: Bench, database: str) -> None:
    """What the tests on SQL write by hand is what the macro compiles to."""
    wanted = [
        ("a", "bigint", True),
        ("b", "date", False),
        ("c", "text", True),
        ("d", "text", False),
        ("e", "text[]", False),
    ]
    listed = ",\n".join(
        f"{{{{ typed('{path}', '{kind}', required={must}) }}}} as {path}" for path, kind, must in wanted
    )
    head = "{{ config(materialized='versioned', unique_key='_key') }}\nselect _key,\n"
    bench.write_model("visits", f"{head}{listed}\nfrom {{{{ source('files', 'visits') }}}}\n")
    bench.sync("files")
    compiled = next((bench.root / ".syncline" / "target").rglob("compiled/**/visits.sql")).read_text()
    by_hand = [f"{typed(path, kind, required=must)} as {path}" for path, kind, must in wanted]
    for line in by_hand:
        assert " ".join(line.split()) in " ".join(compiled.split())


def test_person_fits(driver: Driver) -> None:
    """The records that other tests count on have no row errors."""
    driver.sync([person(1)])
    assert driver.errors() == []
