"""Each transform, as typed() compiles it, against a plain model of it in Python, on real Postgres."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from syncline import db
from tests.projects import Bench

BLANKS = " \t\n\x0b\f\r\u00a0\u2007\u2009\u202f"
PRAGUE = ZoneInfo("Europe/Prague")
MONTHS = [date(2000, month, 1).strftime("%B") for month in range(1, 13)]


def as_moment(moment: datetime) -> str:
    """A moment as Postgres writes it in UTC."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    return (text.rstrip("0") if "." in text else text) + "+00"


def read_day(text: str) -> str | None:
    """The first of the formats DD/MM/YYYY and DD Mon YYYY that matches says what day it is."""
    text = text.strip(BLANKS)
    if match := re.fullmatch(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})", text):
        day, month, year = map(int, match.groups())
    elif match := re.fullmatch(r"([0-9]{1,2}) ([A-Za-z]+) ([0-9]{4})", text):
        word = match[2].lower()
        known = [n for n, name in enumerate(MONTHS, 1) if word in (name.lower(), name[:3].lower())]
        known += [9] if word == "sept" else []
        if not known:
            return None
        day, month, year = int(match[1]), known[0], int(match[3])
    else:
        return None
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None


def read_serial(text: str) -> str | None:
    """Days from 1900, of which February has 29."""
    text = text.strip(BLANKS)
    if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]+)?", text):
        return None
    number = Decimal(text)
    if number < 1 or 60 <= number < 61 or number >= 2958466:
        return None
    start = datetime(1899, 12, 31) if number < 60 else datetime(1899, 12, 30)
    milliseconds = int((number * 86400000).to_integral_value(ROUND_HALF_UP))
    moment = (start + timedelta(milliseconds=milliseconds)).isoformat(sep=" ")
    return moment.rstrip("0") if "." in moment else moment


def read_zoned(text: str) -> str | None:
    """A local time of Prague; one that is left out by the offset before, one that comes twice by the one after."""
    match = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}:[0-9]{2})(Z?)", text.strip(BLANKS))
    match = match or re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})()()", text.strip(BLANKS))
    if not match:
        return None
    assume(match[1] >= "1900")
    try:
        local = datetime.fromisoformat(f"{match[1]} {match[2] or '00:00:00'}")
    except ValueError:
        return None
    if match[3]:
        return as_moment(local.replace(tzinfo=UTC))
    first, second = local.replace(tzinfo=PRAGUE, fold=0), local.replace(tzinfo=PRAGUE, fold=1)
    is_twice = (first.utcoffset() or timedelta()) > (second.utcoffset() or timedelta())
    return as_moment(second if is_twice else first)


def read_unix(text: str) -> str | None:
    """Seconds from 1970, of 12 digits and more milliseconds."""
    text = text.strip(BLANKS)
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,13})(\.[0-9]+)?", text):
        return None
    digits = len(text.lstrip("-").split(".")[0])
    microseconds = Decimal(text) * (1000000 if digits <= 11 else 1000)
    if microseconds < -62135596800 * 1000000:
        return None
    whole = int(microseconds.to_integral_value(ROUND_HALF_UP))
    return as_moment(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=whole))


def read_digits(text: str, decimal: str, thousands: str) -> Decimal | None:
    """A number without a sign."""
    whole, mark, rest = text.partition(decimal)
    if mark and not (rest.isascii() and rest.isdigit()):
        return None
    groups = re.split(f"[{thousands}]", whole)
    if groups[1:] and (len(groups[0]) not in (1, 2, 3) or any(len(group) != 3 for group in groups[1:])):
        return None
    digits = "".join(groups)
    if digits and not (digits.isascii() and digits.isdigit()):
        return None
    return Decimal(f"{digits or 0}.{rest or 0}") if digits or rest else None


def read_number(text: str, decimal: str = ",", thousands: str = " \u00a0\u2007\u2009\u202f") -> str | None:
    """A number with a sign before it, or a minus behind."""
    text = text.strip(BLANKS)
    factor = 1
    if text[:1] in ("-", "\u2212", "+"):
        factor, text = (1 if text[0] == "+" else -1), text[1:].lstrip(" \u00a0\u2007\u2009\u202f")
    elif text[-1:] in ("-", "\u2212"):
        factor, text = -1, text[:-1]
    number = read_digits(text, decimal, thousands)
    return None if number is None else f"{number * factor:f}"


def read_percentage(text: str) -> str | None:
    """A number with a percent sign, divided by 100."""
    text = text.strip(BLANKS)
    if text[-1:] != "%" or text[:-1].rstrip(" \u00a0\u2007\u2009\u202f")[-1:] in ("-", "\u2212"):
        return None
    number = read_number(text[:-1].rstrip(" \u00a0\u2007\u2009\u202f"), ".", ",")
    return None if number is None else f"{Decimal(number) / 100:f}"


def read_boolean(text: str) -> str | None:
    """A word for yes or no."""
    word = text.strip(BLANKS).lower()
    if word in ("true", "yes", "y", "1", "on"):
        return "true"
    return "false" if word in ("false", "no", "n", "0", "off") else None


def read_email(text: str) -> str | None:
    """Something, one @, a domain with a dot."""
    local, _, domain = (parts := text.strip(BLANKS)).partition("@")
    labels = domain.split(".")
    is_one = parts.count("@") == 1 and local and len(labels) > 1 and all(labels) and len(labels[-1]) > 1
    if not is_one or set(parts) & set(BLANKS + '"(),:;<>[]\\') or re.search(r"[0-9]", labels[-1]) or "/" in domain:
        return None
    return f"{local}@{domain.lower()}"


def read_phone(text: str) -> str | None:
    """A number of Great Britain, or an international one."""
    digits = text.replace("(0)", "").translate({ord(char): None for char in BLANKS + ".-/()\u2010\u2011\u2012\u2013"})
    if not re.fullmatch(r"\+?[0-9]+", digits):
        return None
    if digits.startswith("+"):
        number = digits[1:]
    elif re.fullmatch(r"00[1-9][0-9]{6,14}", digits):
        number = digits[2:]
    else:
        number = "44" + (rest := digits.removeprefix("0"))
        if rest[:1] in ("", "0") or len(rest) < 2:
            return None
    return f"+{number}" if not number.startswith("0") and 7 <= len(number) <= 15 else None


def read_uuid(text: str) -> str | None:
    """32 digits, hyphens between groups, braces around."""
    text = text.strip(BLANKS)
    inner = text[1:-1] if text[:1] == "{" and text[-1:] == "}" else text
    group = "[0-9a-fA-F]{4}"
    if not re.fullmatch(f"{group}{group}-?{group}-?{group}-?{group}-?{group}{group}{group}", inner):
        return None
    plain = inner.replace("-", "").lower()
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))


def read_list(text: str) -> str:
    """The parts that are not empty, as Postgres reads an array back into JSON."""
    return json.dumps([part.strip(BLANKS) for part in text.split(";") if part.strip(BLANKS)], ensure_ascii=False)


def mixed(*pieces: str, size: int = 8) -> st.SearchStrategy[str]:
    """Texts made of such pieces: near misses more often than not."""
    return st.lists(st.sampled_from(pieces), max_size=size).map("".join)


def shaped(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True)


AMOUNTS = shaped(r"[-+\u2212]?[ \u00a0]?([0-9]{1,7}|[0-9]{1,3}([ \u202f][0-9]{3}){1,2})(,[0-9]{1,3})?-?")
PERCENTAGES = shaped(r"-?([0-9]{1,5}|[0-9]{1,3},[0-9]{3})(\.[0-9]{1,3})?[ \u00a0]?%")
TIMES = st.datetimes(datetime(1975, 1, 1), datetime(2035, 1, 1)).map(lambda moment: moment.replace(microsecond=0))
HOURS = st.builds(
    lambda year, month, day, minute: datetime(year, month, day, 2, minute),
    st.integers(1996, 2030),
    st.sampled_from([3, 10]),
    st.integers(24, 31),
    st.integers(0, 59),
)

Model = Callable[[str], str | None]

TRANSFORMS: dict[str, tuple[str, str, Model, st.SearchStrategy[str]]] = {
    "day": (
        "date",
        "as_date(formats=['DD/MM/YYYY', 'DD Mon YYYY'])",
        read_day,
        shaped(r"[0-3]?[0-9]/[01]?[0-9]/[12][0-9]{3}")
        | mixed("5", "31", " ", "/", "Feb", "sept", "MAY", "June", "2024")
        | st.builds(
            lambda day, name, year: f"{day} {name} {year}",
            st.integers(0, 32),
            st.sampled_from([*MONTHS, "sept"]),
            st.integers(1000, 3000),
        ),
    ),
    "serial": (
        "timestamp",
        "as_date(serial=true)",
        read_serial,
        st.integers(0, 3000000).map(str)
        | st.decimals(0, 2958467, places=9).map(str)
        | mixed("6", "0", ".", "-", "e", "61"),
    ),
    "zoned": (
        "timestamptz",
        "as_timestamp(zone='Europe/Prague')",
        read_zoned,
        (TIMES | HOURS).map(str)
        | TIMES.map(lambda moment: moment.isoformat() + "Z")
        | mixed("2024-03-31", "T", " ", "02:30:00", "Z"),
    ),
    "unix": (
        "timestamptz",
        "as_timestamp(unix=true)",
        read_unix,
        st.integers(-(10**11), 10**14).map(str)
        | st.decimals(-(10**9), 10**10, places=6).map(lambda n: f"{n:f}")
        | mixed("1", "0", "-", ".", "e", "767225600"),
    ),
    "number": (
        "numeric",
        "as_number(decimal=',', thousands=' ')",
        read_number,
        AMOUNTS | mixed("12", "345", " ", ",", ".", "-", "+", "\u00a0", "\u2212"),
    ),
    "percentage": (
        "numeric",
        "as_percentage()",
        read_percentage,
        PERCENTAGES | mixed("12", "345", " ", ",", ".", "-", "%"),
    ),
    "boolean": (
        "boolean",
        "as_boolean()",
        read_boolean,
        mixed("y", "e", "s", "Yes", "NO", "on", " ", "tRue", "0", "1", size=3),
    ),
    "email": (
        "text",
        "as_email()",
        read_email,
        mixed("a", "B.c", "@", ".", " ", "cz", "É", ",", "5", "-", "/") | st.emails(),
    ),
    "phone": (
        "text",
        "as_phone(country='GB')",
        read_phone,
        mixed("0", "00", "+", "44", "20794", "6095", "(0)", " ", "-", "a", size=7),
    ),
    "uuid": (
        "uuid",
        "as_uuid()",
        read_uuid,
        st.uuids().map(lambda one: str(one).upper())
        | st.uuids().map(lambda one: "{" + one.hex + "}")
        | st.uuids().map(str)
        | mixed("{", "}", "-", "0123abCD", "abcd", "g"),
    ),
    "list": (
        "text[]",
        "as_list(separator=';')",
        read_list,
        mixed("a", ";", " ", '"', "\\", "{", "}", ",", "NULL", "\u00a0", size=12),
    ),
}
"""By column: type, transform, what it has to do, and texts to try."""


@pytest.fixture(scope="module")
def expressions(shared_bench: Bench) -> dict[str, str]:
    """The SQL of each column as dbt compiles it; the database has the functions that it calls."""
    shared_bench.reset()
    listed = ",\n    ".join(
        f"{{{{ typed('v', '{kind}', transform={transform}) }}}} as c_{name}"
        for name, (kind, transform, _, _) in TRANSFORMS.items()
    )
    head = "{{ config(materialized='versioned', unique_key='_key') }}\nselect\n    _key,\n    "
    shared_bench.write_model("visits", f"{head}{listed}\nfrom {{{{ source('files', 'visits') }}}}\n")
    shared_bench.sync("files")
    compiled = next((shared_bench.root / ".syncline" / "target").rglob("compiled/**/visits.sql")).read_text()
    found = re.findall(r"^\s*(.*) /\* syncline:typed .* \*/ as c_(\w+),?$", compiled, re.MULTILINE)
    return {name: expression for expression, name in found}


@pytest.fixture(scope="module")
def session(shared_bench: Bench, expressions: dict[str, str]) -> Iterator[db.Connection]:
    with shared_bench.connect() as connection:
        yield connection


@pytest.mark.parametrize("name", TRANSFORMS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_transform_does_what_its_model_does(
    session: db.Connection, expressions: dict[str, str], name: str, data: st.DataObject
) -> None:
    """Whatever the text, a transform gives what its model gives, null where that takes it not, and never fails."""
    kind, _, model, texts = TRANSFORMS[name]
    tried = data.draw(
        st.lists(
            texts | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
            min_size=1,
            max_size=20,
        )
    )
    text = "to_jsonb(made.value)::text" if kind.endswith("]") else "made.value::text"
    statement = f"""
        select {text} as it
        from (
            select {expressions[name]} as value, _ordinal
            from (
                select place::text collate "C" as _key, place as _ordinal, jsonb_build_object('v', text) as payload
                from unnest(%s::text[]) with ordinality as given (text, place) offset 0
            ) as records
        ) as made
        order by _ordinal
    """
    found: list[Any] = [row["it"] for row in session.execute(statement, (tried,)).fetchall()]
    wanted: list[Any] = [model(one) for one in tried]
    if kind == "numeric":
        found = [None if one is None else Decimal(one) for one in found]
        wanted = [None if one is None else Decimal(one) for one in wanted]
    assert dict(zip(tried, found, strict=True)) == dict(zip(tried, wanted, strict=True))


SYMBOLS = ["$", "€", "EUR", "US$", "¥", "czk", "Kč"]


@settings(max_examples=300, deadline=None)
@given(
    amount=st.decimals(0, 10**9, places=2),
    symbol=st.sampled_from(SYMBOLS),
    blank=st.sampled_from(["", " ", "\u00a0"]),
    shape=st.sampled_from(
        [
            "{n}",
            "-{n}",
            "{s}{b}{n}",
            "{n}{b}{s}",
            "-{s}{n}",
            "{s}{b}-{n}",
            "({s}{n})",
            "{s}({n})",
            "({n}{b}{s})",
            "{n}-",
            "\u2212{n} {s}",
        ]
    ),
    decimal=st.sampled_from([".", ","]),
    is_grouped=st.booleans(),
)
def test_an_amount_is_the_same_in_every_form(
    session: db.Connection, amount: Decimal, symbol: str, blank: str, shape: str, decimal: str, is_grouped: bool
) -> None:
    """An amount of money comes back from each way to write it, negative where it has a minus or parentheses."""
    written = f"{amount:,.2f}" if is_grouped else f"{amount:.2f}"
    written = written.translate({ord(","): ".", ord("."): ","}) if decimal == "," else written
    text = shape.format(n=written, s=symbol, b=blank)
    thousands = "." if decimal == "," else ","
    made = db.call_value(session, "currency_text", text, decimal, thousands, "|Kč")
    is_negative = any(sign in shape for sign in "-(\u2212")
    assert Decimal(made) == (-amount if is_negative else amount), text


@settings(max_examples=300, deadline=None)
@given(text=mixed("$", "5", "1,234", ".5", "-", "(", ")", " ", "USD", "Kč", "%", "\u2212", "e3"))
def test_a_currency_gives_a_number_or_nothing(session: db.Connection, text: str) -> None:
    """What as_currency() takes is a number with one sign at most, and what it refuses is the refused text."""
    made = db.call_value(session, "currency_text", text, ".", ",", "")
    assert made == "\x1a" or re.fullmatch(r"-?([0-9]+(\.[0-9]+)?|\.[0-9]+)", made), (text, made)
    if made != "\x1a":
        assert re.sub(r"[^0-9.]", "", made) == re.sub(r"[^0-9.]", "", text)
