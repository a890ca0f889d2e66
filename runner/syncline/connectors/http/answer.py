"""One page as an API gave it: where its records are, what else it says, and whether it is an error in disguise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import httpx
import msgspec

from syncline.connectors.json_text import parse_path, split_array, split_object
from syncline.errors import SourceError

Position = dict[str, Any]
"""Where a paginator is: JSON, without secrets. Its first one says nothing or little; None is the end."""

AnswerPath = Annotated[str, msgspec.Meta(pattern=r"^[^.\[\]*]+(\[-?\d+\])*(\.[^.\[\]*]+(\[-?\d+\])*)*$")]
"""A dotted path of field names with places in arrays, counted from 0 or from the end: `data[-1].id`."""

RECORD_NAMES = frozenset(
    [
        "data",
        "items",
        "results",
        "entries",
        "records",
        "rows",
        "entities",
        "payload",
        "content",
        "objects",
        "values",
    ]  # dlt's list
)
_ERROR_NAMES = frozenset({"error", "errors", "warnings", "messages"})
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_PLACES = re.compile(r"\[(-?\d+)\]")


@dataclass(frozen=True)
class Answer:
    """`place` names stream and request in messages; `body` is a JSON array or object, or empty.

    `links` are those of its header `Link`, by their `rel`. `seal` gives the position of a page from its address.
    """

    place: str
    url: httpx.URL
    status: int
    headers: Mapping[str, str]
    links: Mapping[str | None, Mapping[str, str]]
    body: bytes
    data_selector: str | None
    seal: Callable[[httpx.URL, str], Position]

    @cached_property
    def records(self) -> list[bytes]:
        """The raw texts of the records; raises SourceError where there is no array, and no selected object, of them."""
        if not self.body:
            return []
        found = self._top if self.data_selector is None else self.find(self.data_selector)
        self._check_errors()
        if found is None:
            raise SourceError(f"{self.place}: the answer has no {self.data_selector!r}", self._known_fields())
        match first_byte(found):
            case b"[":
                return self._objects(found)
            case b"{":
                return [bytes(found)]
            case b"n":
                return []
        raise SourceError(f"{self.place}: {self.data_selector!r} is neither an array nor an object")

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The fields of an object as raw texts; an array has none."""
        return split_object(self.body, self.place) if self.body[:1] == b"{" else {}

    def find(self, path: str) -> Any:
        """Return the raw text (bytes or Raw) at `path`, None where there is none. A name may hold dots."""
        return self._find(self.body, parse_path(path))

    def value(self, path: str) -> Any:
        """Return the value at `path`, None where there is none."""
        found = self.find(path)
        if found is None:
            return None
        try:
            return msgspec.json.decode(found)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise SourceError(f"{self.place}: {path!r} in the answer is no valid JSON") from None

    def total(self, path: str) -> int:
        """Return the number at `path`; raises SourceError where there is none."""
        value = self.value(path)
        try:
            return int(value)
        except (TypeError, ValueError):
            raise SourceError(
                f"{self.place}: total_path {path!r} leads to no number in the answer",
                "Correct total_path, or leave it out.",
            ) from None

    def has_more(self, path: str) -> bool:
        """Return the truth at `path`; raises SourceError where there is none."""
        value = self.value(path)
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower())
        if not isinstance(value, bool):
            raise SourceError(
                f"{self.place}: has_more_path {path!r} leads to neither true nor false in the answer",
                "Correct has_more_path, or leave it out.",
            )
        return value

    def follow(self, link: str) -> Position:
        """Return the position of the page that `link` leads to; raises SourceError where it is not on this host."""
        try:
            url = self.url.join(link)
        except httpx.InvalidURL:
            raise SourceError(f"{self.place}: the link to the next page is no address") from None
        return self.seal(url, self.place)

    def _find(self, text: Any, names: tuple[str, ...]) -> Any:
        if not names:
            return text
        if first_byte(text) != b"{":
            return None
        members = self.fields if text is self.body else split_object(text, self.place)
        # A name like `@odata.nextLink` looks like a path of two.
        for count in range(1, len(names) + 1):
            name, *places = _PLACES.split(".".join(names[:count]))
            if name in members:
                found = self._element(members[name], [int(place) for place in places if place])
                return None if found is None else self._find(found, names[count:])
        return None

    def _element(self, text: Any, places: list[int]) -> Any:
        for place in places:
            elements = split_array(text, self.place) if first_byte(text) == b"[" else []
            if not -len(elements) <= place < len(elements):
                return None
            text = elements[place]
        return text

    @cached_property
    def _top(self) -> Any:
        """The whole where it is an array; of an object, the one field that holds an array of objects."""
        if self.body[:1] == b"[":
            return self.body
        found = {name: text for name, text in self.fields.items() if self._may_be_records(name, text)}
        if len(found) > 1:
            found = {name: text for name, text in found.items() if name in RECORD_NAMES} or found
        if len(found) == 1:
            return next(iter(found.values()))
        self._check_errors()
        raise SourceError(
            f"{self.place}: the answer has {len(found)} arrays of objects at its top", self._known_fields()
        )

    def _may_be_records(self, name: str, text: Any) -> bool:
        if first_byte(text) != b"[" or name.lower() in _ERROR_NAMES:
            return False
        inside = bytes(memoryview(text)[1:64]).lstrip()
        return inside[:1] in {b"{", b"]", b""}

    def _objects(self, text: Any) -> list[bytes]:
        records = split_array(text, self.place)
        if records and not any(record.startswith(b"{") for record in records):
            raise SourceError(
                f"{self.place}: the array in the answer holds no objects",
                "Check path and data_selector: records are objects.",
            )
        return records

    def _check_errors(self) -> None:
        """Raise SourceError where the API tells of errors in an answer that looks like a success, as GraphQL does."""
        told = self.fields.get("errors")
        if told is None or first_byte(told) != b"[" or self.data_selector == "errors":
            return
        errors = self.value("errors")
        if errors:
            raise SourceError(
                f"{self.place}: answered with errors{_error_code(errors[0])}",
                "An answer with errors is not whole. Check json and params, and what the credentials may read.",
            )

    def _known_fields(self) -> str:
        names = ", ".join(sorted(self.fields)) if self.body[:1] == b"{" else "none, it is an array"
        return f"Set data_selector to the path of the records, `$` for one object; fields at the top: {names}."


def first_byte(text: bytes | msgspec.Raw) -> bytes:
    return bytes(memoryview(text)[:1])


def _error_code(error: Any) -> str:
    """Return what names the kind of error; its words may quote records or credentials."""
    if not isinstance(error, dict):
        return ""
    extensions = error.get("extensions")
    places = [extensions if isinstance(extensions, dict) else {}, error]
    codes = [place.get(name) for place in places for name in ("code", "type")]
    return next((f" ({code})" for code in codes if isinstance(code, str) and _CODE.fullmatch(code)), "")
