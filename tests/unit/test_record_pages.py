"""Whether one look at a page finds all that `json` takes and `jsonb` does not."""

from __future__ import annotations

from pathlib import Path

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
