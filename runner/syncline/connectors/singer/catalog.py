"""Reads a tap's catalog, selects one stream in it, and tells what it says of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from syncline.errors import ConfigurationError, SourceError

Method = Literal["FULL_TABLE", "INCREMENTAL", "LOG_BASED"]
Entry = dict[str, Any]
Names = frozenset[str]

_FORMATS = {"date-time": "timestamptz", "date": "date", "time": "time", "uuid": "uuid", "singer.decimal": "numeric"}
_TYPES = {"integer": "bigint", "number": "numeric", "boolean": "boolean", "string": "text"}


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How a tap is to read one of its streams, in Singer's words."""

    tap_stream: str
    method: Method = "FULL_TABLE"
    replication_key: str | None = None
    select: list[str] = []


@dataclass(frozen=True, slots=True)
class Selection:
    """A catalog with one stream selected, and the parents it needs: by which names the records of each come.

    `others` are the names of all streams that were not selected.
    """

    catalog: Mapping[str, Any]
    names: Names
    parents: Names
    others: Names


class Catalog:
    """The streams that a tap can read, from the JSON text that `--discover` writes."""

    def __init__(self, text: bytes, place: str) -> None:
        """Take the text in; raises SourceError where it is no catalog."""
        self._text = text
        self._place = place
        self.streams = self._read()

    def select(self, reading: Reading, place: str) -> Selection:
        """Return a catalog in which nothing but what is to be read is selected.

        Raises ConfigurationError where there is no such stream or property, or no replication key.
        """
        entries = self._read()
        by_id = {entry["tap_stream_id"]: entry for entry in entries}
        wanted = by_id.get(reading.tap_stream)
        if wanted is None:
            known = ", ".join(sorted(by_id)[:30]) or "none"
            raise ConfigurationError(
                f"{place}: the tap has no stream {reading.tap_stream!r}",
                f"Set `tap_stream` to one of its own: {known}.",
            )
        parents = list(_parents(wanted, by_id))
        for entry in entries:
            _mark(entry, is_selected=entry is wanted or any(entry is parent for parent in parents))
        _set_method(wanted, reading, place)
        _select_properties(wanted, reading.select, place)
        for parent in parents:
            _select_properties(parent, [], place)
        names = _names([wanted])
        parent_names = _names(parents) - names
        return Selection({"streams": entries}, names, parent_names, _names(entries) - names - parent_names)

    def _read(self) -> list[Entry]:
        try:
            found = msgspec.json.decode(self._text, type=dict[str, Any])
            entries = [_checked(entry) for entry in found["streams"]]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
            raise SourceError(
                f"{self._place}: the catalog is no Singer catalog",
                "`--discover` of the tap writes one: run it by hand to see.",
            ) from None
        return entries


def key_of(entry: Entry) -> list[str]:
    """Return the properties that tell the stream's records apart, as the tap says; none where it does not."""
    keys = _metadata(entry).get("table-key-properties") or entry.get("key_properties") or []
    return [str(key) for key in keys]


def reading_of(entry: Entry) -> Reading:
    """Return how the tap would have the stream read: by a replication key where it names one."""
    facts = _metadata(entry)
    method = entry.get("replication_method") or facts.get("forced-replication-method")
    keys = _replication_keys(entry)
    if keys and method in {None, "INCREMENTAL"}:
        return Reading(tap_stream=entry["tap_stream_id"], method="INCREMENTAL", replication_key=keys[0])
    return Reading(tap_stream=entry["tap_stream_id"])


def columns_of(entry: Entry) -> dict[str, str]:
    """Return the Postgres types of the stream's properties by path, in order, those of nested objects too."""
    properties = entry["schema"].get("properties") or {}
    read = {name: shape for name, shape in properties.items() if not _is_unsupported(entry, name)}
    return dict(_columns({"properties": read}, ""))


def _is_unsupported(entry: Entry, name: str) -> bool:
    return bool(_metadata(entry, "properties", name).get("inclusion") == "unsupported")


def _columns(schema: Any, prefix: str) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, shape in (properties or {}).items():
        # A dot parts the names of a path, and _sdc_ is what taps and targets tell each other.
        if "." in name or name.startswith("_sdc_"):
            continue
        nested = list(_columns(shape, f"{prefix}{name}."))
        yield from nested or [(prefix + name, _type_of(shape))]


def _type_of(shape: Any) -> str:
    """Return the one type that takes all values of a JSON schema."""
    if not isinstance(shape, dict):
        return "jsonb"
    branches = [branch for word in ("anyOf", "oneOf") for branch in shape.get(word) or [] if branch != {"type": "null"}]
    if branches:
        found = {_type_of(branch) for branch in branches}
        return found.pop() if len(found) == 1 else "text" if "jsonb" not in found else "jsonb"
    types = shape.get("type")
    names = [name for name in ([types] if isinstance(types, str) else types or []) if name != "null"]
    if set(names) == {"integer", "number"}:
        return "numeric"
    if {"array", "object"} & set(names):
        return "jsonb"
    if "string" in names:
        return _FORMATS.get(str(shape.get("format")), "text")
    return _TYPES.get(names[0], "jsonb") if len(names) == 1 else "jsonb"


def _checked(entry: Any) -> Entry:
    if not isinstance(entry, dict):
        raise TypeError
    entry.setdefault("tap_stream_id", entry.get("stream"))
    entry.setdefault("metadata", None)
    entry["metadata"] = entry["metadata"] or []
    entry.setdefault("schema", {})
    is_sound = isinstance(entry["tap_stream_id"], str) and isinstance(entry["schema"], dict)
    if not is_sound or not all(isinstance(item["metadata"], dict) for item in entry["metadata"]):
        raise TypeError
    return entry


def _names(entries: list[Entry]) -> Names:
    words = ("tap_stream_id", "stream", "stream_alias")
    return frozenset(entry[word] for entry in entries for word in words if isinstance(entry.get(word), str))


def _metadata(entry: Entry, *breadcrumb: str) -> dict[str, Any]:
    """Return what the entry says of itself, or of the property at `breadcrumb`, to be read or changed."""
    for item in entry["metadata"]:
        if list(item.get("breadcrumb") or []) == list(breadcrumb):
            found: dict[str, Any] = item["metadata"]
            return found
    made: dict[str, Any] = {}
    entry["metadata"].append({"breadcrumb": list(breadcrumb), "metadata": made})
    return made


def _parents(entry: Entry, by_id: Mapping[str, Entry]) -> Iterator[Entry]:
    """Yield the streams that must be read for the tap to come to this one, where the catalog says so."""
    seen = {entry["tap_stream_id"]}
    while True:
        name = _metadata(entry).get("parent-tap-stream-id")
        if not isinstance(name, str) or name not in by_id or name in seen:
            return
        seen.add(name)
        entry = by_id[name]
        yield entry


def _mark(entry: Entry, *, is_selected: bool) -> None:
    # Taps older than the metadata read the schema's own mark.
    if not entry["metadata"]:
        entry["schema"]["selected"] = is_selected
    entry["selected"] = is_selected
    _metadata(entry)["selected"] = is_selected


def _replication_keys(entry: Entry) -> list[str]:
    facts = _metadata(entry)
    named = entry.get("replication_key") or facts.get("replication-key")
    return [str(named)] if named else [str(key) for key in facts.get("valid-replication-keys") or []]


def _set_method(entry: Entry, reading: Reading, place: str) -> None:
    facts = _metadata(entry)
    facts["replication-method"] = entry["replication_method"] = reading.method
    if reading.method == "FULL_TABLE":
        # Some taps go by the key alone.
        entry["replication_key"] = None
        facts.pop("replication-key", None)
    if reading.method != "INCREMENTAL":
        return
    keys = _replication_keys(entry)
    key = reading.replication_key or (keys[0] if len(keys) == 1 else None)
    known = entry["schema"].get("properties") or {}
    if key is None or (known and key not in known):
        what = "names no `replication_key`" if key is None else f"names the replication key {key!r}, which it has not"
        advice = f"The tap suggests {', '.join(keys)}." if keys else "Name the property that grows with each change."
        raise ConfigurationError(f"{place} {what}", advice)
    facts["replication-key"] = entry["replication_key"] = key


def _select_properties(entry: Entry, select: list[str], place: str) -> None:
    """Select the properties at the top of the stream: those named, without those named with `!`; else as it is."""
    known = list(entry["schema"].get("properties") or {})
    without = {name[1:] for name in select if name.startswith("!")}
    wanted = {name for name in select if not name.startswith("!")}
    unknown = sorted((without | wanted) - set(known))
    if unknown:
        raise ConfigurationError(
            f"{place}: `select` names {unknown[0]!r}, which the stream does not have", f"It has {', '.join(known)}."
        )
    kept = {*key_of(entry), entry.get("replication_key")}
    for name in known:
        facts = _metadata(entry, "properties", name)
        if _is_unsupported(entry, name):
            facts["selected"] = False
        elif select:
            is_named = name not in without and (name in wanted or not wanted)
            facts["selected"] = is_named or name in kept or facts.get("inclusion") == "automatic"
        else:
            facts.setdefault("selected", facts.get("selected-by-default", True))
