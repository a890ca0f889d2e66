"""Checks raw records one by one and reads their keys, without building them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import xxhash

from syncline.config import Stream
from syncline.connectors.json_text import parse_path

KEY_BYTES = 1000
"""Longest key: an index entry of Postgres holds a third of a page."""

NESTING = 500
"""Deepest nesting: far below what Postgres' jsonb and msgspec take before they give up."""

_QUOTE = ord('"')
_NUMERIC = frozenset(b"-0123456789")

_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_EXPONENT = re.compile(rb"[0-9][eE]([+-]?[0-9]{5,})")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{6000}")
_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)
# Digits and signs to 0, so that one plain search finds a large exponent in a whole page: 0.45 s in a million records,
# where a regular expression takes 1.7 s.
_MANTISSA = b"0123456789.+-"
_MANTISSA_BYTES = 64
_BEFORE_NUMBERS = frozenset({b"", b":", b",", b"[", b" ", b"\t", b"\n", b"\r"})
_SHAPE = bytes.maketrans(b"123456789+-E", b"00000000000e")


class BadRecordError(Exception):
    """A record that cannot be taken: `key` is its key where that can be read."""

    def __init__(self, message: str, key: bytes | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.key = key


class RecordReader:
    """Reads keys and hashes of one stream's records, and says what is wrong with those that are bad."""

    def __init__(self, stream: Stream, hash_without: Iterable[str] = ()) -> None:
        self.read_key = _key_reader(stream.key)
        self._key_paths = [_fields(path) for path in stream.key]
        self._without = [_fields(path) for path in (*stream.common.hash_without, *hash_without)]
        deleted = stream.common.deleted
        self._deleted = _fields(deleted.path) if deleted else None
        self._deleted_when = deleted.when if deleted else None
        self._counting = [*self._key_paths, *([self._deleted] if self._deleted else [])]
        self.digest: Callable[[bytes], bytes] = self._digest_without if self._without else xxhash.xxh3_128_digest

    def is_clean(self, records: list[bytes]) -> bool:
        """Return whether no record of a page can hold what `json` takes and `jsonb` does not: one look for all."""
        blob = b"".join(records)
        if (b"\\" in blob and b"\\u" in blob) or max(map(len, records), default=0) > 6000:
            return False
        if not blob.isascii():
            try:
                blob.decode()
            except UnicodeDecodeError:
                return False
        return not _may_have_large_exponent(blob)

    def check(self, record: bytes) -> bytes:
        """Return the record's key; raises BadRecordError where the record cannot be taken."""
        problem = _problem(record)
        try:
            key = self.read_key(record)
        except BadRecordError as error:
            raise BadRecordError(problem or error.message, self._read_key_leniently(record)) from None
        if problem:
            raise BadRecordError(problem, key)
        return key

    def is_tombstone(self, record: bytes) -> bool:
        """Return whether a record that can be taken says that its key is gone."""
        if self._deleted is None:
            return False
        found = _value_at(msgspec.json.decode(record), self._deleted)
        return bool(found) if self._deleted_when is True else bool(found == self._deleted_when)

    def _read_key_leniently(self, record: bytes) -> bytes | None:
        """Return the key of a record that is bad elsewhere, so that the load knows whose record it is; else None."""
        try:
            content = json.loads(record.decode("utf-8", "replace"), parse_float=str, parse_int=str)
            keys = msgspec.json.encode(_only(content, self._key_paths))
            return self.read_key(keys)
        except (ValueError, LookupError, RecursionError, BadRecordError):
            return None

    def _digest_without(self, record: bytes) -> bytes:
        try:
            content = msgspec.json.decode(record)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return xxhash.xxh3_128_digest(record)  # what is wrong with it is said where its key is read
        # What tells records apart, and what says that one is gone, counts whatever is left out.
        kept = [_value_at(content, path) for path in self._counting]
        for path in self._without:
            _remove(content, path)
        return xxhash.xxh3_128_digest(msgspec.json.encode([kept, content], order="deterministic"))


def _may_have_large_exponent(blob: bytes) -> bool:
    shape = blob.translate(_SHAPE)
    at = shape.find(b"e00000")
    while at >= 0:
        head = blob[max(at - _MANTISSA_BYTES, 0) : at]
        before = head.rstrip(_MANTISSA)
        # A number follows a bracket, a comma, a colon or white space; the digits of a hash or a UUID do not.
        if len(before) < len(head) and before[-1:] in _BEFORE_NUMBERS:
            return True
        at = shape.find(b"e00000", at + 1)
    return False


def _problem(record: bytes) -> str | None:
    try:
        record.decode()
    except UnicodeDecodeError:
        return "not valid UTF-8"
    if b"\\" in record:
        problem = _escape_problem(record)
        if problem:
            return problem
    if len(record) > 6000 and _LONG_NUMBER.search(record):
        return "a number is out of range"
    for exponent in _EXPONENT.findall(_STRING.sub(b'""', record)):
        if not -16000 < int(exponent) < 131000:
            return "a number is out of range"
    if record.count(b"[") + record.count(b"{") > NESTING and _depth(record) > NESTING:
        return f"nested deeper than {NESTING} levels"
    return None


def _escape_problem(record: bytes) -> str | None:
    high_ends_at = -1
    for match in _ESCAPE.finditer(record):
        code = int(match.group(1), 16) if match.group(1) else -1
        is_low = 0xDC00 <= code <= 0xDFFF
        if high_ends_at >= 0 and not (is_low and match.start() == high_ends_at):
            return "half of a surrogate pair"
        if high_ends_at < 0 and is_low:
            return "half of a surrogate pair"
        if code == 0:
            return "the character \\u0000, which Postgres cannot store"
        high_ends_at = match.end() if 0xD800 <= code <= 0xDBFF else -1
    return "half of a surrogate pair" if high_ends_at >= 0 else None


def _depth(record: bytes) -> int:
    depth = deepest = 0
    for match in _BRACKET.finditer(record):
        first = match.group()[0]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _only(content: Any, paths: list[list[str]]) -> dict[str, Any]:
    """Return an object with nothing but what lies on the paths; raises KeyError where one leads nowhere."""
    kept: dict[str, Any] = {}
    for *parents, last in paths:
        source, target = content, kept
        for name in parents:
            source = source.get(name) if isinstance(source, dict) else None
            target = target.setdefault(name, {})
        if not isinstance(source, dict) or not isinstance(source.get(last), str):
            raise KeyError(last)
        target[last] = source[last]
    if not paths:
        raise KeyError("the content is the key")
    return kept


def _fields(path: str) -> list[str]:
    return list(parse_path(path))


def _value_at(content: Any, path: list[str]) -> Any:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _remove(content: Any, path: list[str]) -> None:
    *parents, last = path
    for name in parents:
        content = content.get(name) if isinstance(content, dict) else None
    if not isinstance(content, dict):
        return
    if last.endswith("*"):
        for name in [name for name in content if name.startswith(last[:-1])]:
            del content[name]
    else:
        content.pop(last, None)


def _key_reader(fields: tuple[str, ...]) -> Callable[[bytes], bytes]:
    """Return the function that reads a record's key as UTF-8: a string as it is, a number as written.

    Several fields give a JSON array. Without fields the content is the key. The function raises BadRecordError.
    """
    if not fields:
        return _guarded(_content_key)
    paths = [_fields(path) for path in fields]
    decode = msgspec.json.Decoder(_shape(paths)).decode
    getters = [_getter(place, len(path)) for place, path in enumerate(paths)]

    if paths == [[paths[0][0]]]:

        def simple(record: bytes) -> bytes:
            # The usual case, at full speed: a million calls take half a second.
            raw = bytes(decode(record).at0)  # type: ignore[attr-defined]
            if raw[0] in _NUMERIC:
                return raw if len(raw) <= KEY_BYTES else _checked(raw)
            if raw[0] == _QUOTE and b"\\" not in raw and 2 < len(raw) <= KEY_BYTES:
                return raw[1:-1]
            return _checked(_scalar(raw))

        return _guarded(simple)

    def several(record: bytes) -> bytes:
        found = decode(record)
        raws = [bytes(get(found)) for get in getters]
        keys = [_scalar(raw) for raw in raws]
        return _checked(keys[0] if len(keys) == 1 else b"[" + b",".join(raws) + b"]")

    return _guarded(several)


def _guarded(read: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def guarded(record: bytes) -> bytes:
        try:
            return read(record)
        except msgspec.ValidationError as error:
            missing = "missing required field" in str(error)
            raise BadRecordError("its key is missing" if missing else "not an object with a key in it") from None
        except msgspec.DecodeError:
            raise BadRecordError("not valid JSON") from None
        except UnicodeDecodeError:
            raise BadRecordError("not valid UTF-8") from None
        except RecursionError:
            raise BadRecordError(f"nested deeper than {NESTING} levels") from None

    return guarded


def _shape(paths: list[list[str]], depth: int = 0, places: list[int] | None = None) -> type[msgspec.Struct]:
    """Return a struct that decodes only what lies on the paths, each value raw."""
    places = list(range(len(paths))) if places is None else places
    fields: list[tuple[str, type]] = []
    names: dict[str, str] = {}
    for name in dict.fromkeys(paths[place][depth] for place in places):
        below = [place for place in places if paths[place][depth] == name]
        attribute = f"at{below[0]}"
        names[attribute] = name
        is_leaf = any(len(paths[place]) == depth + 1 for place in below)
        fields.append((attribute, msgspec.Raw if is_leaf else _shape(paths, depth + 1, below)))
    return msgspec.defstruct("Key", fields, rename=names, gc=False)


def _getter(place: int, depth: int) -> Callable[[Any], msgspec.Raw]:
    name = f"at{place}"

    def get(found: Any) -> msgspec.Raw:
        for _ in range(depth):
            found = getattr(found, name)
        return found  # type: ignore[no-any-return]

    return get


def _scalar(raw: bytes) -> bytes:
    first = raw[:1]
    if first == b'"':
        return raw[1:-1] if b"\\" not in raw else _decoded(raw)
    if first in b"-0123456789":
        return raw
    raise BadRecordError("its key is null" if raw == b"null" else "its key is neither a string nor a number")


def _decoded(raw: bytes) -> bytes:
    try:
        return msgspec.json.decode(raw, type=str).encode()
    except (msgspec.DecodeError, UnicodeError):
        raise BadRecordError("its key is not valid text") from None


def _checked(key: bytes) -> bytes:
    if not key:
        raise BadRecordError("its key is empty")
    if len(key) > KEY_BYTES:
        raise BadRecordError(f"its key is longer than {KEY_BYTES} bytes")
    if b"\0" in key:
        raise BadRecordError("its key holds \\u0000, which Postgres cannot store")
    return key


def _content_key(record: bytes) -> bytes:
    msgspec.json.decode(record, type=dict[str, msgspec.Raw])
    return xxhash.xxh3_128_hexdigest(record).encode()
