"""Whether one look at a page finds all that `json` takes and `jsonb` does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.config import Stream, StreamSettings
from syncline.records import BadRecordError, RecordReader

READER = RecordReader(Stream("s", "t", ("id",), StreamSettings(key="id"), {}, Path("sources.yml")))


@pytest.mark.parametrize(
    "value", ["1e200000", "-1.5E+200000", "[1e-20000]", "\n1e00131072", f"{'9' * 200}e200000", '"\\u0000"', '"\\ud800"']
)
def test_what_jsonb_cannot_hold_is_seen(value: str) -> None:
    """A page with such a value is not taken for clean, and its record is refused."""
    record = f'{{"id":1,"a":{value}}}'.encode()
    assert not READER.is_clean([b'{"id":2}', record])
    if "e00131072" not in value:
        with pytest.raises(BadRecordError):
            READER.check(record)


@pytest.mark.parametrize("value", ['"5e12345678"', '"d41d8cd98f00b204e9800998ecf8427e"', "1e5", "123456789.123456e12"])
def test_hashes_and_small_exponents_are_clean(value: str) -> None:
    """Hexadecimal texts look like exponents to a quick search; they are none, and cost their page nothing."""
    assert READER.is_clean([f'{{"id":1,"a":{value}}}'.encode()])


@given(
    st.from_regex(r"-?[0-9]{1,3}(\.[0-9]{1,3})?[eE][+-]?[0-9]{5,7}", fullmatch=True),
    st.sampled_from(["", " ", "\t", "\n"]),
)
def test_no_large_exponent_is_overlooked(number: str, blank: str) -> None:
    """However a number with an exponent of five digits is written, its page is looked at closely."""
    assert not READER.is_clean([f'{{"id":1,"a":{blank}{number}}}'.encode()])


def reader(always_without: tuple[str, ...], **settings: Any) -> RecordReader:
    common = msgspec.convert({"key": "id", **settings}, StreamSettings)
    keys = [common.key] if isinstance(common.key, str) else common.key or []
    return RecordReader(Stream("s", "t", tuple(keys), common, {}, Path("sources.yml")), always_without)


@pytest.mark.parametrize(
    ("settings", "one", "other"),
    [
        ({"key": "_sdc_line"}, b'{"_sdc_line":1,"a":1}', b'{"_sdc_line":2,"a":1}'),
        ({"key": "$.meta.id", "hash_without": ["meta"]}, b'{"meta":{"id":1}}', b'{"meta":{"id":2}}'),
        (
            {"deleted": {"path": "_sdc_deleted_at"}},
            b'{"id":1,"_sdc_deleted_at":null}',
            b'{"id":1,"_sdc_deleted_at":"x"}',
        ),
    ],
)
def test_what_tells_records_apart_counts(settings: dict[str, Any], one: bytes, other: bytes) -> None:
    """Whatever is left out of the comparison, another key and another tombstone make another hash."""
    found = reader(("_sdc_*",), **settings)
    assert found.digest(one) != found.digest(other)


def test_what_is_left_out_does_not_count() -> None:
    """Fields that are named, and those of a pattern, may change without a change."""
    found = reader(("_sdc_*",), hash_without=["seen.at"])
    assert found.digest(b'{"id":1,"_sdc_x":1,"seen":{"at":1}}') == found.digest(b'{"seen":{"at":2},"id":1,"_sdc_y":2}')
    assert found.digest(b'{"id":1,"a":1}') != found.digest(b'{"id":1,"a":2}')
