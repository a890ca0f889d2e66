"""What the transforms of typed() take, what they refuse, and what a model may ask of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from syncline.errors import ConfigurationError
from tests.projects import Bench

HEAD = "{{ config(materialized='versioned', unique_key='_key') }}\n\nselect\n    _key,\n    "

Cases = dict[tuple[str, str], tuple[dict[Any, str], list[Any]]]

CASES: Cases = {
    ("date", "as_date(formats=['DD/MM/YYYY', 'YYYY-MM-DD', 'DD Mon YYYY'])"): (
        {
            "05/06/2026": "2026-06-05",
            "2026-06-05": "2026-06-05",
            "\u00a05 jun 2026 ": "2026-06-05",
            "5 September 2026": "2026-09-05",
            "5 SEPT 2026": "2026-09-05",
        },
        ["31/02/2026", "06-05-2026", "5 juin 2026", "5 Mond 2026", "today", "", 45292, "5/6/26"],
    ),
    ("timestamp", "as_date(formats=['YYYY Mon DD HH24:MI'])"): (
        {"2026 Jun 5 9:05": "2026-06-05 09:05:00", "2026 June 05": "2026-06-05 00:00:00"},
        ["2026 Jun 5 25:00", "2026 6 5"],
    ),
    ("timestamptz", "as_date(formats=['DD/MM/YYYY HH24:MI TZ'])"): (
        {"05/06/2026 10:00 +02": "2026-06-05 08:00:00+00"},
        ["05/06/2026 10:00", "05/06/2026"],
    ),
    ("date", "as_date(serial=true)"): (
        {
            45292: "2024-01-01",
            "45292": "2024-01-01",
            45292.75: "2024-01-01",
            1: "1900-01-01",
            59: "1900-02-28",
            61: "1900-03-01",
            2958465: "9999-12-31",
        },
        [0, 0.5, 60, 60.5, -1, 2958466, "1e5", "2024-01-01", ""],
    ),
    ("timestamp", "as_date(formats=['YYYY-MM-DD'], serial=true)"): (
        {
            45292.75: "2024-01-01 18:00:00",
            45292.7083333333: "2024-01-01 17:00:00",
            "45292.9999999999": "2024-01-02 00:00:00",
            "2024-01-01": "2024-01-01 00:00:00",
        },
        ["01/01/2024"],
    ),
    ("timestamptz", "as_timestamp(zone='Europe/Prague')"): (
        {
            "2026-06-05 10:00": "2026-06-05 08:00:00+00",
            "2026-12-05T10:00:00.5": "2026-12-05 09:00:00.5+00",
            "2026-12-05": "2026-12-04 23:00:00+00",
            "2026-06-05T10:00:00Z": "2026-06-05 10:00:00+00",
            "2026-06-05 10:00:00+05:30": "2026-06-05 04:30:00+00",
            "2026-03-29 02:30": "2026-03-29 01:30:00+00",
            "2026-10-25 02:30": "2026-10-25 01:30:00+00",
        },
        ["2026-06-05 10:00 CET", "now", "2026-02-30 10:00", "05/06/2026", "", 1767225600],
    ),
    ("timestamptz", "as_timestamp(zone='America/New_York', formats=['MM/DD/YYYY HH24:MI'], unix=true)"): (
        {
            "06/05/2026 10:00": "2026-06-05 14:00:00+00",
            "6/5/2026": "2026-06-05 04:00:00+00",
            1767225600: "2026-01-01 00:00:00+00",
        },
        ["2026-06-05 10:00", "13/05/2026"],
    ),
    ("timestamptz", "as_timestamp(unix=true)"): (
        {
            0: "1970-01-01 00:00:00+00",
            "-1": "1969-12-31 23:59:59+00",
            1767225600.25: "2026-01-01 00:00:00.25+00",
            1767225600123: "2026-01-01 00:00:00.123+00",
            -62135596800: "0001-01-01 00:00:00+00",
        },
        ["2026-01-01", "", "0x10", "1e9", -62135596801, 123456789012345],
    ),
    ("numeric", "as_currency()"): (
        {
            "1,234.50": "1234.50",
            "$1,234.50": "1234.50",
            "€ 5": "5",
            "5 EUR": "5",
            "US$\u00a05.00": "5.00",
            "$5.00 USD": "5.00",
            "-$5": "-5",
            "$-5": "-5",
            "($1,234.50)": "-1234.50",
            "$ (5)": "-5",
            "5-": "-5",
            "\u22125": "-5",
            ".5": "0.5",
            1234.5: "1234.5",
            -0.0000001: "-0.0000001",
        },
        ["1,5", "12,34", "1.234,50", "(5", "5)", "(-5)", "--5", "-5-", "$", "", "five", "5 euros", "1e3", "NaN", "5%"],
    ),
    ("numeric(12,2)", "as_currency(decimal=',', symbols=['Kč', 'zł'])"): (
        {
            "1.234,50 €": "1234.50",
            "Kč 5": "5.00",
            "1234,5 Kč": "1234.50",
            "-5,00 zł": "-5.00",
            12.345: "12.35",
        },
        ["12.345,6.7", "5 Kc.", "1 234,50", "1,234.50"],
    ),
    ("numeric", "as_number(decimal=',', thousands=' ')"): (
        {"1 234 567,8": "1234567.8", "1\u00a0234": "1234", "1\u202f234": "1234", "+5": "5", "5-": "-5", 1.5: "1.5"},
        ["1 23", "1.5", "1  234", "5 EUR", "-5-", "", ","],
    ),
    ("bigint", 'as_number(thousands="\'")'): (
        {"1'234": "1234", "1\u2019234'567": "1234567", "- 7": "-7"},
        ["1,234", "12.5", "99999999999999999999"],
    ),
    ("numeric", "as_percentage()"): (
        {"12.5%": "0.125", "12.5 %": "0.125", "-1,200%": "-12.00", ".5%": "0.005"},
        ["12.5", 0.125, "%", "12,5%", "12.5%%", ""],
    ),
    ("numeric", "as_percentage(decimal=',', scale=false)"): ({"12,5 %": "12.5", "1.200%": "1200"}, ["12,5", 12.5]),
    ("boolean", "as_boolean()"): (
        {
            "Yes": "true",
            " y ": "true",
            True: "true",
            "ON": "true",
            "1": "true",
            "no": "false",
            False: "false",
            "0": "false",
        },
        ["maybe", "ye", "2", "", "t r u e"],
    ),
    ("boolean", "as_boolean(yes=['Ano', 'ДА'], no=['ne', 'off'])"): (
        {"ANO": "true", "да": "true", "Ne": "false", "off": "false"},
        ["yes", True],
    ),
    ("text", "as_email()"): (
        {" Ann@Example.COM ": "Ann@example.com", "a+b@c.d.example": "a+b@c.d.example", "x@ÚŘAD.cz": "x@úřad.cz"},
        ["ann", "ann@", "@example.com", "a@b@c.cz", "a b@c.cz", "a@b", "a@b..cz", "Ann <a@b.cz>", "", 5],
    ),
    ("varchar(12)", "as_email(lower=true)"): ({"Ann@B.CZ": "ann@b.cz"}, ["ann@example.cz", "\u001a"]),
    ("text", "as_phone(country='CZ')"): (
        {
            "777 123 456": "+420777123456",
            "+420 777-123-456": "+420777123456",
            "00420777123456": "+420777123456",
            "+44 (0)20 7946 0958": "+442079460958",
            777123456: "+420777123456",
        },
        ["777 123 45a", "12", "+0777123456", "00", "0", "", "+420777123456789012", "ext", "++420777123456"],
    ),
    ("text", "as_phone(country='gb')"): (
        {"020 7946 0958": "+442079460958", "(0)20-7946-0958": "+442079460958", "7946095812": "+447946095812"},
        ["0020", "00 0946 0958"],
    ),
    ("text", "as_phone(country='US')"): (
        {"(415) 555-2671": "+14155552671", "1 415 555 2671": "+14155552671", "011 420 777 123 456": "+420777123456"},
        ["555-2671", "1155552671"],
    ),
    ("text", "as_phone(country='+39')"): ({"06 698 1234": "+39066981234"}, ["1", "tel. 5"]),
    ("text", "as_phone()"): ({"+1 415 555 2671": "+14155552671"}, ["415 555 2671"]),
    ("uuid", "as_uuid()"): (
        {
            "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        },
        [
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a1",
            "g0eebc999c0b4ef8bb6d6bb9bd380a11",
            "",
        ],
    ),
    ("text", "as_uuid()"): (
        {"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
        ["a0eebc99--9c0b4ef8bb6d6bb9bd380a11"],
    ),
    ("text", """as_enum({'Active': 'active', "it's": "o'clock"})"""): (
        {"Active": "active", "it's": "o'clock"},
        ["active", "Active ", "", 5],
    ),
    ("text", "as_enum({'A': 'a'}, other='keep')"): ({"A": "a", "B": "B", "": ""}, []),
    ("text", "as_enum({'A': 'a'}, other='unknown')"): ({"A": "a", "B": "unknown", "": "unknown"}, []),
    ("text", "as_enum(['red', 'green'])"): ({"red": "red"}, ["blue"]),
    ("integer", "as_enum({'low': 1, 'high': 2, 5: 6})"): ({"low": "1", "high": "2", 5: "6"}, ["1"]),
    ("boolean", "as_enum({'open': true, 'shut': false})"): ({"open": "true", "shut": "false"}, [True]),
    ("text", "[as_text(case='lower'), as_enum({'active': 'yes'}, other='no')]"): ({" ACTIVE ": "yes", "x": "no"}, []),
    ("text", "[as_email(), as_enum({'a@b.cz': 'me'}, other='somebody')]"): (
        {"a@B.cz": "me", "x@b.cz": "somebody"},
        ["nobody", ""],
    ),
    ("text", "[as_number(decimal=','), as_text()]"): ({"1.234,5": "1234.5", 1.5: "1.5"}, ["", "x"]),
    ("text", "as_text(case='upper', collapse=true)"): ({" a\u00a0 \tß ": "A SS", "éa": "ÉA"}, []),
    ("text", "as_text(case='title')"): ({"anne-MARIE o'neil": "Anne-Marie O'neil", "éva žďár": "Éva Žďár"}, []),
    ("text", "as_text(trim=false, empty_to_null=false)"): ({" a ": " a ", "": ""}, []),
    ("bigint", "as_text()"): ({" 5 ": "5"}, ["x", "1_000"]),
    ("date", "as_text()"): ({"\u00a02026-06-05": "2026-06-05"}, ["05/06/2026"]),
    ("text[]", "as_list()"): (
        {
            "a, b ,c": "{a,b,c}",
            ",a,, b,": "{a,b}",
            "": "{}",
            ' "q" , \\x,{y}': r'{"\"q\"","\\x","{y}"}',
            "null": '{"null"}',
            5: "{5}",
        },
        [],
    ),
    ("integer[]", "as_list(separator='|')"): ({"1 | 2|3": "{1,2,3}"}, ["1,2", "1|x"]),
    ("date[]", "as_list(separator='; ')"): (
        {"2026-06-05; 2026-06-06": "{2026-06-05,2026-06-06}"},
        ["2026-06-05;today"],
    ),
    ("text[]", "as_list(separator='a\"\\\\b', trim=false)"): ({'x a"\\b y': '{"x "," y"}'}, []),
}
"""Type and transform, then texts and what they become, and texts that are row errors."""


def write(bench: Bench, cases: Cases, *, refused: bool) -> dict[str, tuple[Any, str | None]]:
    """Write a model with a column, and a record with a value, for each case; return values and outcomes by column."""
    columns: list[str] = []
    outcomes: dict[str, tuple[Any, str | None]] = {}
    for (kind, transform), (taken, not_taken) in cases.items():
        for value in [*taken, *(not_taken if refused else []), None]:
            name = f"c{len(columns)}"
            columns.append(f"{{{{ typed('{name}', '{kind}', transform={transform}) }}}} as {name}")
            is_taken = any(type(key) is type(value) and key == value for key in taken)
            outcomes[name] = (value, taken[value] if is_taken else None)
    listed = ",\n    ".join(columns)
    bench.write_model("visits", f"{HEAD}{listed}\nfrom {{{{ source('files', 'visits') }}}}\n")
    record = {name: value for name, (value, _) in outcomes.items()}
    bench.write_lines("visits.jsonl", [{"id": 1} | record])
    return outcomes


def read(bench: Bench, names: list[str]) -> dict[str, Any]:
    """The columns of the one row, as text."""
    texts = ", ".join(f"{name}::text" for name in names)
    with bench.connect() as connection:
        connection.execute("set timezone = 'UTC'; set datestyle = 'ISO'")
        return dict(connection.execute(f"select {texts} from visits_current").fetchone() or {})


def as_raw(value: Any) -> str:
    """The text of a JSON value as Postgres writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("half", [0, 1])
def test_what_fits_becomes_canonical_and_the_rest_is_a_row_error(bench: Bench, half: int) -> None:
    """Each value that a transform takes becomes what is documented, each other is null with its raw text; DateStyle,
    the time zone and the locale have no say.
    """
    cases = dict(list(CASES.items())[half::2])
    outcomes = write(bench, cases, refused=True)
    with bench.connect() as connection:
        connection.execute(
            """do $$ begin
                execute 'alter database ' || current_database() || ' set datestyle = DMY';
                execute 'alter database ' || current_database() || ' set timezone = ''Asia/Tokyo''';
            end $$"""
        )
    bench.sync("files")
    found = read(bench, list(outcomes))
    assert {name: text for name, text in found.items() if text != outcomes[name][1]} == {}
    errors = {error["column_name"]: error for error in bench.errors(entity="visits")}
    refused = {name for name, (value, text) in outcomes.items() if text is None and value is not None}
    assert set(errors) == refused
    assert {name: error["value"] for name, error in errors.items()} == {
        name: as_raw(outcomes[name][0]) for name in refused
    }
    assert {error["row_number"] for error in errors.values()} == {1}
    assert {error["severity"] for error in errors.values()} == {"warning"}


@pytest.mark.parametrize("half", [0, 1])
def test_what_fits_needs_no_second_try(bench: Bench, half: int) -> None:
    """Where all values fit, a build's first try, which records nothing, gives what the second gives."""
    outcomes = write(bench, dict(list(CASES.items())[half::2]), refused=False)
    bench.sync("files")
    assert read(bench, list(outcomes)) == {name: text for name, (_, text) in outcomes.items()}
    assert bench.errors(entity="visits") == []


def test_a_required_value_that_does_not_fit_rejects_the_record(bench: Bench) -> None:
    """The message names type and transforms; a value of which nothing is left counts as missing."""
    calls = {
        "amount": "'numeric', required=true, transform=as_currency(decimal=',')",
        "day": "'date', required=true, transform=as_date(formats=['DD/MM/YYYY', 'DD Mon YYYY'], serial=true)",
        "name": "'text', required=true, transform=as_text()",
        "state": "'text', required=true, transform=[as_text(case='lower'), as_enum({'a': 'b'})]",
        "mail": "'text', required=true, transform=as_email()",
        "place": "'text', transform=as_phone()",
    }
    listed = ",\n    ".join(f"{{{{ typed('{name}', {call}) }}}} as {name}" for name, call in calls.items())
    bench.write_model("visits", f"{HEAD}{listed}\nfrom {{{{ source('files', 'visits') }}}}\n")
    good = {
        "amount": "5,00 €",
        "day": "1/2/2026",
        "name": "n",
        "state": " A",
        "mail": "a@b.cz",
        "place": "+420777123456",
    }
    bad: dict[str, Any] = {
        "amount": "x",
        "day": "30/02/2026",
        "name": " \u00a0",
        "state": "c",
        "mail": None,
        "place": "p",
    }
    lines = [{"id": 1} | good] + [
        {"id": n, **good, name: value} for n, (name, value) in enumerate(bad.items(), start=2)
    ]
    bench.write_lines("visits.jsonl", lines)
    bench.sync("files")
    assert set(bench.current("visits")) == {"1", "7"}
    found = {
        e["column_name"]: (e["row_number"], e["value"], e["message"], e["severity"])
        for e in bench.errors(entity="visits")
    }
    assert found == {
        "amount": (2, "x", "not a valid numeric as currency", "error"),
        "day": (3, "30/02/2026", "not a valid date as DD/MM/YYYY or DD Mon YYYY or a serial number", "error"),
        "name": (4, None, "a required value is missing", "error"),
        "state": (5, "c", "not a valid text, enum", "error"),
        "mail": (6, None, "a required value is missing", "error"),
        "place": (7, "p", "not a valid phone", "warning"),
    }


NONSENSE = [
    ("date", "as_currency()", "currency is no transform for date"),
    ("integer", "as_date(serial=true)", "a serial number is no transform for integer"),
    ("date", "as_date(formats=['DD/MM/YYYY TZ'])", "DD/MM/YYYY TZ is no transform for date"),
    ("timestamp", "as_timestamp(unix=true)", "a unix time is no transform for timestamp"),
    ("integer", "as_percentage()", "percentage is no transform for integer"),
    ("text[]", "as_text()", "text is no transform for text[]"),
    ("jsonb", "as_text()", "text is no transform for jsonb"),
    ("text", "as_list()", "list is no transform for text"),
    ("text[]", "[as_text(), as_list()]", "list stands alone"),
    ("text", "as_text(casing='lower')", "casing"),
    ("text", "as_text(case='Title')", "case is lower, upper or title"),
    ("text", "as_text", "a transform is a call"),
    ("text", "'text'", "a transform is a call"),
    ("text", "as_fone()", "there is no transform as_fone; there are as_boolean, as_currency, as_date, "),
    ("text", "fone()", "there is no transform of the name given"),
    ("text", "[as_text(), as_fone(country='CZ')]", "there is no transform as_fone; there"),
    ("text", "[]", "a transform is a call"),
    ("date", "as_date()", "it needs formats, serial=true, or both"),
    ("date", "as_date(formats='DD/MM/YYYY')", "formats is a list"),
    ("date", "as_date(formats=['DD/MM'])", "needs YYYY, MM and DD"),
    ("date", "as_date(formats=['DD}MM}YYYY'])", "no braces"),
    ("date", "as_date(serial=true), format='DD/MM/YYYY'", "format is a transform of its own"),
    ("timestamptz", "as_timestamp()", "it needs a zone, formats or unix=true"),
    ("timestamptz", "as_timestamp(zone='Prague')", "there is no time zone"),
    ("numeric", "as_currency(decimal=';')", "decimal is"),
    ("numeric", "as_number(decimal=',', thousands=',')", "not what decimal is"),
    ("numeric", "as_currency(symbols='Kc')", "symbols is a list"),
    ("boolean", "as_boolean(yes='ano')", "lists of words"),
    ("boolean", "as_boolean(yes=['x'], no=['X'])", "a word is in both yes and no: x"),
    ("text", "as_phone(country='Czechia')", "is no country that it knows"),
    ("text", "as_enum({})", "it needs a map"),
    ("text[]", "as_list(separator='')", "separator is a text"),
]
"""Type, transform, and what the refusal says."""


def test_a_transform_that_makes_no_sense_is_refused(bench: Bench) -> None:
    """What a transform does not know is refused when the model is compiled, with the model's name and exit code 2."""
    for kind, transform, reason in NONSENSE:
        column = f"{{{{ typed('d', '{kind}', transform={transform}) }}}} as d"
        bench.write_model("visits", f"{HEAD}{column} from {{{{ source('files', 'visits') }}}}\n")
        with pytest.raises(ConfigurationError) as refused:
            bench.engine.dbt.parse()
        assert refused.value.exit_code == 2
        assert reason in refused.value.message
        assert "visits" in refused.value.message


def test_a_transform_of_ones_own(bench: Bench) -> None:
    """A project's macro that returns a name and SQL is a transform as the others are."""
    macro = bench.macros / "as_digits.sql"
    page = Path(__file__).parents[2] / "docs" / "reference" / "transforms.md"
    found = re.search(r"{% macro as_digits\(\) %}.*?{% endmacro %}", page.read_text(), re.DOTALL)
    assert found
    macro.write_text(found.group(0))
    column = "{{ typed('place', 'integer', transform=as_digits()) }} as place"
    bench.write_model("visits", f"{HEAD}{column} from {{{{ source('files', 'visits') }}}}\n")
    bench.write_lines("visits.jsonl", [{"id": 1, "place": "a1b2"}, {"id": 2, "place": "none"}])
    try:
        bench.sync("files")
    finally:
        macro.unlink()
    assert bench.current("visits") == {"1": {"place": 12}, "2": {"place": None}}
    assert [error["message"] for error in bench.errors(entity="visits")] == ["not a valid integer as digits"]
