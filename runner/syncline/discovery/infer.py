"""Infers columns, key and nested lists of a stream from a sample of its records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import msgspec

from syncline.discovery.names import column_name, singular, unique_name

PATH_PARTS = 3
"""How deep objects are flattened into columns; what is deeper stays jsonb."""

# Fields that name a record, the likeliest first; `{one}` and `{all}` are the stream's name, singular and as it is.
_KEYS = ("id", "{one}_id", "{all}_id", "uuid", "key", "code", "slug", "email")
_CURSORS: tuple[str, ...] = ("updated_at", "modified_at", "last_modified", "last_updated", "modified", "updated")
_CURSORS += ("changed_at", "last_modified_at", "date_modified", "date_updated", "update_time", "modification_date")
# A sum that is whole in every record of a sample need not be whole in the next one.
_AMOUNT = re.compile(
    r"(^|_)(amount|price|total|subtotal|cost|fee|rate|balance|tax|vat|salary|wage|revenue|discount|budget)(_|$)"
)

# A field of this shape can be named in a dotted path, in a JSON path and in a template without any quoting.
_PLAIN = re.compile(r"(?! )[\w $@:#&€£§°()+=<>!?;~^|-]+(?<! )")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?")

# Types as the source's catalog has them, where another is the better column.
_PORTABLE = {
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "character varying": "text",
    "character": "text",  # without its length it would be one character
    "bit": "bit varying",
    '"char"': "text",
    "name": "text",
    "json": "jsonb",
    **dict.fromkeys(("xml", "point", "line", "lseg", "box", "path", "polygon", "circle"), "text"),  # none has equality
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an entity: the JSON path that it is read from and its Postgres type."""

    path: str
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Nested:
    """A list of objects in each record: an entity of its own. `key` are paths within an element, () for its place."""

    path: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    elements: tuple[Any, ...] = field(repr=False, default=())


@dataclass(frozen=True, slots=True)
class Shape:
    """What a stream's records look like. `key` are JSON paths, () where only the content tells records apart.

    `cursor` is the path that probably says when a record changed. `skipped` are fields that no path can name.
    `records` is the sample, decoded.
    """

    key: tuple[str, ...]
    columns: tuple[Column, ...]
    nested: tuple[Nested, ...]
    cursor: str | None
    skipped: tuple[str, ...]
    records: tuple[Any, ...] = field(repr=False)

    def column(self, path: str) -> Column | None:
        return next((column for column in self.columns if column.path == path), None)


def infer_shape(
    name: str, records: Iterable[bytes], key: Sequence[str] | None = None, columns: Mapping[str, str] | None = None
) -> Shape:
    """Return the shape of the stream `name` by a sample of its records, raw JSON; what is no object is left out.

    `key` is the declared one (empty: the content), None where it is to be inferred. `columns` are the types that the
    source itself tells, by path: they win over what the sample shows.
    """
    decoded = [record for record in map(_decode, records) if isinstance(record, dict)]
    reading = _Reading(columns or {}, key or ())
    reading.read_declared()
    reading.read_objects(decoded, ())
    found = tuple(reading.columns.values())
    if key is None:
        key = _find_key(name, found, [decoded])
    nested = tuple(_infer_nested(path, lists) for path, lists in reading.lists.items())
    cursor = next((c.path for wanted in _CURSORS for c in found if c.name == wanted and c.type in _TIMES), None)
    return Shape(tuple(key), found, nested, cursor, tuple(reading.skipped), tuple(decoded))


def portable(kind: str) -> str:
    """Return the type of a column that holds what a column of this type in a source's own catalog does."""
    element = kind.removesuffix("[]")
    found = _PORTABLE.get(element, element)
    return found if element == kind or found == "jsonb" else f"{found}[]"


def value_at(record: Any, path: str) -> Any:
    """Return what a dotted path leads to in a decoded record, None where it leads nowhere."""
    for part in path.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def fits(value: Any, kind: str) -> bool:
    """Return whether typed() would take a decoded value as of this Postgres type; True for types not known here."""
    if value is None or kind in ("text", "jsonb", "json") or kind.endswith("[]"):
        return True
    text = str(value).lower() if isinstance(value, bool) else str(value)
    family = family_of(kind)
    if family == "number":
        is_whole = kind in ("smallint", "integer", "int", "bigint")
        return bool(re.fullmatch(r"\s*[+-]?\d+\s*" if is_whole else _DECIMAL, text, re.I))
    if family == "boolean":
        return text.lower() in ("true", "false", "t", "f", "yes", "no", "y", "n", "on", "off", "1", "0")
    if family == "time":
        return isinstance(value, str) and _string_type(value) in _TIMES
    return family != "uuid" or bool(_UUID.fullmatch(text))


def family_of(kind: str) -> str:
    """Return what a Postgres type holds: number, boolean, time, uuid, text, or the type itself where it is another."""
    plain = kind.split("(", maxsplit=1)[0].strip()
    families = {"number": _NUMBERS, "time": _TIMES, "text": ("text", "varchar", "char"), "jsonb": ("jsonb", "json")}
    return next((family for family, kinds in families.items() if plain in kinds), plain)


_DECIMAL = r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)\s*"
_NUMBERS = ("smallint", "integer", "int", "bigint", "numeric", "decimal", "real", "double precision")
_TIMES = ("date", "timestamp", "timestamptz")


class _Reading:
    """Collects columns by path while objects are flattened."""

    def __init__(self, declared: Mapping[str, str], key: Sequence[str]) -> None:
        self._declared = declared
        self._key = set(key)
        self.columns: dict[str, Column] = {}
        self.lists: dict[str, list[list[Any]]] = {}
        self.skipped: dict[str, None] = {}

    def read_declared(self) -> None:
        for path, kind in self._declared.items():
            if _PLAIN.fullmatch(path):
                self._add(path, portable(kind))
            else:
                self.skipped[path] = None

    def read_objects(self, objects: Sequence[Any], parents: tuple[str, ...]) -> None:
        """Take the fields of objects, in the order in which they first appear."""
        fields: dict[str, list[Any]] = {}
        for item in objects:
            for name, value in item.items():
                fields.setdefault(name, []).append(value)
        for name, values in fields.items():
            path = ".".join([*parents, name])
            if path in self._declared:
                continue
            if not _PLAIN.fullmatch(name) or name.upper() == "NULL":
                self.skipped[path] = None
            else:
                self._read_field(path, [value for value in values if value is not None], (*parents, name))

    def _read_field(self, path: str, values: list[Any], parts: tuple[str, ...]) -> None:
        if values and all(isinstance(value, dict) for value in values):
            if len(parts) < PATH_PARTS and any(values) and not _is_map(values):
                self.read_objects(values, parts)
            else:
                self._add(path, "jsonb")
        elif values and all(isinstance(value, list) for value in values):
            elements = [element for value in values for element in value]
            if any(elements) and all(isinstance(element, dict) for element in elements) and path not in self._key:
                self.lists[path] = values
            else:
                is_text = any(elements) and all(isinstance(element, str | None) for element in elements)
                self._add(path, "text[]" if is_text else "jsonb")
        else:
            self._add(path, _scalar_type(path, values))

    def _add(self, path: str, kind: str) -> None:
        taken = {column.name for column in self.columns.values()} | {"_key"}
        self.columns[path] = Column(path, unique_name(column_name(path), taken), kind)


def _decode(record: bytes) -> Any:
    try:
        return msgspec.json.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _is_map(objects: list[dict[str, Any]]) -> bool:
    """Return whether the objects' names are data, such as numbers of orders: many, and few of them in each."""
    names = {name for item in objects for name in item}
    return len(names) > 20 and sum(map(len, objects)) < len(names) * len(objects) / 2


def _infer_nested(path: str, lists: list[list[Any]]) -> Nested:
    reading = _Reading({}, ())
    elements = [element for one in lists for element in one]
    reading.read_objects(elements, ())
    columns = list(reading.columns.values())
    columns += [
        Column(inner, unique_name(column_name(inner), [column.name for column in columns]), "jsonb")
        for inner in reading.lists
    ]
    # An element's place tells it apart in any case; its key does so even when the list is put in another order.
    key = _find_key(path.rsplit(".", maxsplit=1)[-1], columns, lists)
    if not key and any(len(one) > 1 for one in lists):
        references = [column for column in columns if column.name.endswith("_id")]
        key = next(((c.path,) for c in references if _is_key(c, lists)), ())
    return Nested(path, tuple(columns), key, tuple(elements))


def _find_key(name: str, columns: Sequence[Column], groups: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """Return the path of the field that tells the records of each group apart, by its name and by the sample; or ()."""
    if not any(groups):
        return ()
    plain = column_name(name)
    for wanted in _KEYS:
        for column in columns:
            if column.name == wanted.format(one=singular(plain), all=plain) and _is_key(column, groups):
                return (column.path,)
    return ()


def _is_key(column: Column, groups: Sequence[Sequence[Any]]) -> bool:
    for group in groups:
        values = [value_at(record, column.path) for record in group]
        if not all(isinstance(value, str | int) and not isinstance(value, bool) and value != "" for value in values):
            return False
        if len({str(value) for value in values}) < len(values):
            return False
    return True


def _scalar_type(path: str, values: list[Any]) -> str:
    """Return the type of a field by its values that are not null; of one without any, text, which takes all."""
    kinds = {type(value) for value in values}
    if kinds & {dict, list}:
        return "jsonb"
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        is_small = all(-(2**63) <= value < 2**63 for value in values)
        return "bigint" if is_small and not _AMOUNT.search(column_name(path)) else "numeric"
    if kinds and kinds <= {int, float}:
        return "numeric"
    if kinds == {str}:
        types = {_string_type(value) for value in values}
        return types.pop() if len(types) == 1 else "text"
    return "text"


def _string_type(value: str) -> str:
    if _UUID.fullmatch(value):
        return "uuid"
    try:
        if _DATE.fullmatch(value):
            date.fromisoformat(value)
            return "date"
        if match := _TIME.fullmatch(value):
            datetime.fromisoformat(value[:10] + value[10:16].replace("T", " "))
            return "timestamptz" if match.group(3) else "timestamp"
    except ValueError:
        pass
    return "text"
