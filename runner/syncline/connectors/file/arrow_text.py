"""Writes Arrow columns as JSON texts, whole columns at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_encode = msgspec.json.Encoder().encode
_encode_text = msgspec.json.Encoder(enc_hook=str).encode
_SPECIAL = r'["\\\x00-\x1f]'
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CONTROL = r"[\x00-\x1f]"


def write_records(names: Sequence[str], columns: Sequence[Any]) -> list[bytes]:
    r"""Return one JSON object a row; its fields are `names`, its values those of the arrays `columns`.

    Decimals and integers are numbers as they are, to the last digit; what is no number in JSON (NaN, infinities) is a
    string; dates and times are ISO 8601, UTC where the column has a zone; binary is hexadecimal, `\x...`.
    """
    texts: list[bytes] = _write_objects(names, columns).cast(pa.large_binary()).to_pylist()
    return texts


def _write_objects(names: Sequence[str], columns: Sequence[Any]) -> Any:
    parts: list[Any] = []
    lead = "{"
    for name, column in zip(names, columns, strict=True):
        parts += [pa.scalar(f"{lead}{_encode(name).decode()}:", pa.large_string()), _write(column)]
        lead = ","
    return pc.binary_join_element_wise(*parts, pa.scalar("}", pa.large_string()), pa.scalar("", pa.large_string()))


def _write(column: Any) -> Any:
    """Return the JSON text of each value, `null` for null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return _write(column.storage)
    if pa.types.is_null(kind):
        return pa.array(["null"] * len(column), pa.large_string())
    return pc.fill_null(_write_values(column, kind).cast(pa.large_string()), "null")


def _write_values(column: Any, kind: Any) -> Any:
    return next(write for is_one, write in _WRITERS if is_one(kind))(column)


def _write_plain(column: Any) -> Any:
    return column.cast(pa.string())


def _write_dates(column: Any) -> Any:
    return _quoted((column.cast(pa.date32()) if pa.types.is_date(column.type) else column).cast(pa.string()))


def _write_binary(column: Any) -> Any:
    texts = [None if value is None else f'"\\\\x{value.hex()}"' for value in column.to_pylist()]
    return pa.array(texts, pa.large_string())


def _write_durations(column: Any) -> Any:
    return column.cast(pa.int64()).cast(pa.string())


def _write_structs(column: Any) -> Any:
    fields = [column.type.field(place).name for place in range(column.type.num_fields)]
    written = _write_objects(fields, column.flatten()) if fields else pa.array(["{}"] * len(column), pa.large_string())
    return pc.if_else(column.is_valid(), written, pa.scalar(None, pa.large_string()))


def _write_floats(column: Any) -> Any:
    texts = (column.cast(pa.float32()) if pa.types.is_float16(column.type) else column).cast(pa.string())
    if pc.all(pc.is_finite(column), min_count=0).as_py():
        return texts
    for arrow, name in (("nan", '"NaN"'), ("-inf", '"-Infinity"'), ("inf", '"Infinity"')):
        texts = pc.if_else(pc.equal(texts, arrow), name, texts)
    return texts


def _write_timestamps(column: Any) -> Any:
    kind = column.type
    # What is stored is UTC; a cast that knows of the zone takes eight times as long.
    texts = column.cast(pa.timestamp(kind.unit)).cast(pa.string())
    texts = pc.replace_substring(texts, " ", "T", max_replacements=1)
    # Zeros that only the unit brings: a second is written the same whatever the unit.
    if kind.unit != "s":
        zeros = {"ms": "000", "us": "000000", "ns": "000000000"}[kind.unit]
        texts = pc.replace_substring(texts, f".{zeros}", "", max_replacements=1)
    return _quoted(texts, "" if kind.tz is None else "Z")


def _write_lists(column: Any) -> Any:
    if not pa.types.is_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    return _joined(_regrouped(column, _write(column.flatten())), "[", "]")


def _write_maps(column: Any) -> Any:
    keys = column.keys
    names = _write(keys)
    if not (pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type)):
        names = _quoted(pc.replace_substring(names, '"', ""))
    first, last = column.offsets[0].as_py(), column.offsets[len(column)].as_py()
    names, items = names.slice(first, last - first), _write(column.items.slice(first, last - first))
    pairs = pc.binary_join_element_wise(names, items, pa.scalar(":", pa.large_string()))
    lists = pa.ListArray.from_arrays(pc.subtract(column.offsets, first), pairs.cast(pa.string()), mask=column.is_null())
    return _joined(lists, "{", "}")


def _regrouped(column: Any, texts: Any) -> Any:
    """Return a list array whose lists are as long as those of `column`, with `texts` for their values."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    ends = pc.cumulative_sum(lengths).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.ListArray.from_arrays(offsets, texts.cast(pa.string()), mask=column.is_null())


def _joined(lists: Any, opening: str, closing: str) -> Any:
    inner = pc.binary_join(lists, ",").cast(pa.large_string())
    ends = [pa.scalar(text, pa.large_string()) for text in (opening, closing, "")]
    return pc.binary_join_element_wise(ends[0], inner, ends[1], ends[2])


def _quote_text(column: Any) -> Any:
    column = column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column
    if pc.any(pc.match_substring_regex(column, _SPECIAL), min_count=0).as_py():
        for text, escaped in _ESCAPES.items():
            column = pc.replace_substring(column, text, escaped)
        if pc.any(pc.match_substring_regex(column, _CONTROL), min_count=0).as_py():
            for code in range(0x20):
                column = pc.replace_substring(column, chr(code), f"\\u{code:04x}")
    return _quoted(column)


def _quoted(texts: Any, suffix: str = "") -> Any:
    ends = [pa.scalar(text, pa.large_string()) for text in ('"', f'{suffix}"', "")]
    return pc.binary_join_element_wise(ends[0], texts.cast(pa.large_string()), ends[1], ends[2])


def _write_others(column: Any) -> Any:
    return pa.array([_encode_text(value).decode() for value in column.to_pylist()], pa.large_string())


_WRITERS: list[tuple[Callable[[Any], bool], Callable[[Any], Any]]] = [
    (pa.types.is_boolean, _write_plain),
    (pa.types.is_integer, _write_plain),
    (pa.types.is_decimal, _write_plain),
    (pa.types.is_floating, _write_floats),
    (pa.types.is_string, _quote_text),
    (pa.types.is_large_string, _quote_text),
    (pa.types.is_string_view, _quote_text),
    (pa.types.is_timestamp, _write_timestamps),
    (pa.types.is_date, _write_dates),
    (pa.types.is_time, _write_dates),
    (pa.types.is_struct, _write_structs),
    (pa.types.is_map, _write_maps),
    (pa.types.is_list, _write_lists),
    (pa.types.is_large_list, _write_lists),
    (pa.types.is_fixed_size_list, _write_lists),
    (pa.types.is_duration, _write_durations),
    (pa.types.is_binary, _write_binary),
    (pa.types.is_large_binary, _write_binary),
    (pa.types.is_fixed_size_binary, _write_binary),
    (pa.types.is_binary_view, _write_binary),
    (lambda _: True, _write_others),
]
