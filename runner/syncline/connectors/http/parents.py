"""Reads an endpoint once for each record of a parent stream; names and meanings are those of dlt's REST API source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import xxhash

from syncline.connectors.http.answer import Position, first_byte
from syncline.connectors.http.templates import Values
from syncline.connectors.json_text import parse_path
from syncline.errors import ConfigurationError, SourceError

_PREFIX = "resources."


class Resolve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resolve"):
    """A parameter whose value is a field of a parent's record."""

    resource: str
    field: str

    @property
    def placeholder(self) -> str:
        return f"{_PREFIX}{self.resource}.{self.field}"


@dataclass(frozen=True, slots=True)
class Family:
    """One record of the parent stream: `values` for the placeholders, `prefix` to go into each of its children.

    `before` and `after` are positions: at the beginning of this parent's children, and behind their end. `place` says
    which record it is without a value of it.
    """

    values: Values
    prefix: bytes
    before: Position
    after: Position
    place: str

    def join(self, records: list[bytes]) -> list[bytes]:
        """Return the children with what they take over from their parent."""
        if not self.prefix:
            return records
        return [_join(self.prefix, record) if record.startswith(b"{") else record for record in records]


def parent_of(used: Sequence[str], label: str) -> str | None:
    """Return the stream that the placeholders are about; raises ConfigurationError where there are several."""
    names = {name.removeprefix(_PREFIX).partition(".")[0] for name in used if name.startswith(_PREFIX)}
    if len(names) > 1:
        raise ConfigurationError(
            f"{label} has several parents: {', '.join(sorted(names))}",
            "A stream has one parent; make it several streams.",
        )
    return next(iter(names), None)


def read_families(
    records: Iterator[bytes], parent: str, used: Sequence[str], included: Sequence[str], label: str, at: Position
) -> Iterator[Family]:
    """Yield the parent's records, from the one on that the position `at` leads to.

    Raises SourceError where a record lacks a field, or where the records before `at` are others than they were.
    """
    fields = [name.removeprefix(f"{_PREFIX}{parent}.") for name in used if name.startswith(_PREFIX)]
    skipped, count = at.get("parents", 0), 0
    digest = xxhash.xxh3_64()
    before: Position = {"parents": 0, "digest": digest.hexdigest()}
    for record in records:
        if count == skipped:
            _check_same(at, before, parent, label)
        values = {f"{_PREFIX}{parent}.{field}": _scalar(record, field, parent, label) for field in fields}
        digest.update(msgspec.json.encode(list(values.values())))
        count += 1
        after: Position = {"parents": count, "digest": digest.hexdigest()}
        if count > skipped:
            yield Family(
                values, _prefix(record, parent, included), before, after, f"record {count} of {parent}, by _key"
            )
        before = after
    if count <= skipped:
        _check_same(at, before, parent, label)


def _check_same(at: Position, found: Position, parent: str, label: str) -> None:
    if at and {name: at.get(name) for name in found} != found:
        raise SourceError(
            f"{label}: the records of {parent} are others than when its fetch was cut off",
            "Run it again: it begins anew.",
        )


def _find(record: bytes, path: str) -> Any:
    found: Any = record
    for name in parse_path(path):
        if first_byte(found) != b"{":
            return None
        found = msgspec.json.decode(found, type=dict[str, msgspec.Raw]).get(name, b"")
    return found or None


def _scalar(record: bytes, path: str, parent: str, label: str) -> Any:
    found = _find(record, path)
    value = None if found is None else msgspec.json.decode(found)
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return value
    if isinstance(value, float):
        return bytes(found).decode()
    raise SourceError(
        f"{label}: a record of {parent} has no string or number at {path!r}",
        "Choose a field that each record of the parent has.",
    )


def _prefix(record: bytes, parent: str, included: Sequence[str]) -> bytes:
    """Return the beginning of an object with the fields taken over: `{"_classes_id":7`."""
    parts = []
    for path in included:
        name = msgspec.json.encode(f"_{parent}_{path.replace('.', '_')}")
        parts.append(name + b":" + bytes(_find(record, path) or b"null"))
    return b"{" + b",".join(parts) if parts else b""


def _join(prefix: bytes, record: bytes) -> bytes:
    rest = record[1:].lstrip()
    return prefix + (b"" if rest.startswith(b"}") else b",") + rest
