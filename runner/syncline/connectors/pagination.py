"""Says, page by page, what to ask an API for next; names and meanings are those of dlt's REST API source."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
import msgspec

from syncline.connectors.json_text import JsonPath, parse_path, split_array, split_object
from syncline.errors import SourceError


@dataclass(frozen=True, slots=True)
class Step:
    """What the next request has of its own: parameters, or a whole address that stands for them all."""

    params: Mapping[str, Any] = field(default_factory=dict)
    url: str | None = None


@dataclass(frozen=True)
class Answer:
    """One page as the API gave it. `place` names stream and request in messages.

    `links` are those of its header `Link`, by their `rel`; `body` is a JSON array or object, or empty.
    """

    place: str
    url: httpx.URL
    links: Mapping[str | None, Mapping[str, str]]
    body: bytes
    data_selector: str | None

    @cached_property
    def records(self) -> list[bytes]:
        """The raw texts of the records; raises SourceError where there is no array, and no selected object, of them."""
        if not self.body:
            return []
        found = self._top if self.data_selector is None else self.find(self.data_selector)
        if found is None:
            raise SourceError(f"{self.place}: the answer has no {self.data_selector!r}", self._known_fields())
        match _first_byte(found):
            case b"[":
                return split_array(found, self.place)
            case b"{":
                return [bytes(found)]
            case b"n":
                return []
        raise SourceError(f"{self.place}: {self.data_selector!r} is neither an array nor an object")

    def find(self, path: str) -> Any:
        """Return the raw text (bytes or Raw) at `path`, None where there is none."""
        found: Any = self.body
        for name in parse_path(path):
            if found is None or _first_byte(found) != b"{":
                return None
            members = self._fields if found is self.body else split_object(found, self.place)
            found = members.get(name)
        return found

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

    @cached_property
    def _fields(self) -> dict[str, Any]:
        return split_object(self.body, self.place)

    @cached_property
    def _top(self) -> Any:
        """The whole where it is an array; of an object, the one field that is."""
        if self.body[:1] == b"[":
            return self.body
        arrays = [text for text in self._fields.values() if _first_byte(text) == b"["]
        if len(arrays) == 1:
            return arrays[0]
        raise SourceError(f"{self.place}: the answer has {len(arrays)} arrays at its top", self._known_fields())

    def _known_fields(self) -> str:
        names = ", ".join(sorted(self._fields)) if self.body[:1] == b"{" else "none, it is an array"
        return f"Set data_selector to the path of the records; fields at the top: {names}."


Steps = Generator[Step, Answer, None]
"""Gives a step, takes its answer, and so on; ends with the last page."""


class SinglePage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="single_page"):
    """One request has it all."""

    def steps(self) -> Steps:
        yield Step()


class PageNumber(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="page_number"):
    """Pages are counted from `base_page`, up to the number of pages at `total_path`, or to the first empty one.

    As in dlt, page numbers stay below `maximum_page`.
    """

    base_page: int = 0
    page_param: str = "page"
    total_path: JsonPath | None = None
    maximum_page: int | None = None

    def steps(self) -> Steps:
        page = self.base_page
        while True:
            answer = yield Step({self.page_param: page})
            page += 1
            total = answer.total(self.total_path) if self.total_path else None
            if not answer.records:
                # An API may count one page where there is no record at all.
                if total is not None and total > 1:
                    raise _short(answer, f"page {page - 1} is empty, and there should be {total} pages")
                return
            if total is not None and page >= self.base_page + total:
                return
            if self.maximum_page is not None and page >= self.maximum_page:
                return


class Offset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="offset"):
    """Records are counted, up to the number of records at `total_path`, or to the first empty page.

    The offset grows by the records that came, so an API that caps `limit` loses none. As in dlt, offsets stay below
    `maximum_offset`.
    """

    limit: int
    offset: int = 0
    offset_param: str = "offset"
    limit_param: str = "limit"
    total_path: JsonPath | None = None
    maximum_offset: int | None = None

    def steps(self) -> Steps:
        offset = self.offset
        while True:
            answer = yield Step({self.offset_param: offset, self.limit_param: self.limit})
            offset += len(answer.records)
            total = answer.total(self.total_path) if self.total_path else None
            if total is not None and offset >= total:
                return
            if not answer.records:
                if total is not None:
                    raise _short(answer, f"{offset} records came, and there should be {total}")
                return
            if self.maximum_offset is not None and offset >= self.maximum_offset:
                return


class Cursor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="cursor"):
    """Each answer has, at `cursor_path`, what to ask the next one with; the last has none."""

    cursor_path: JsonPath = "cursors.next"
    cursor_param: str = "cursor"

    def steps(self) -> Steps:
        seen: set[int] = set()
        params: dict[str, Any] = {}
        while True:
            answer = yield Step(params)
            cursor = answer.value(self.cursor_path)
            if cursor is None or cursor in ("", False):
                return
            if not isinstance(cursor, str | int):
                raise SourceError(f"{answer.place}: cursor_path {self.cursor_path!r} leads to no string or number")
            _check_new(str(cursor), seen, answer)
            params = {self.cursor_param: cursor}


class JsonLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="json_link"):
    """Each answer has the address of the next one at `next_url_path`; the last has none."""

    next_url_path: JsonPath = "next"

    def steps(self) -> Steps:
        seen: set[int] = set()
        answer = yield Step()
        while link := answer.value(self.next_url_path):
            if not isinstance(link, str):
                raise SourceError(f"{answer.place}: next_url_path {self.next_url_path!r} leads to no address")
            answer = yield _follow(link, seen, answer)


class HeaderLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="header_link"):
    """Each answer has the address of the next one in its header `Link`, as rel=next; the last has none."""

    links_next_key: str = "next"

    def steps(self) -> Steps:
        seen: set[int] = set()
        answer = yield Step()
        while link := answer.links.get(self.links_next_key, {}).get("url"):
            answer = yield _follow(link, seen, answer)


Paginator = SinglePage | PageNumber | Offset | Cursor | JsonLink | HeaderLink


def _first_byte(text: bytes | msgspec.Raw) -> bytes:
    return bytes(memoryview(text)[:1])


def _follow(link: str, seen: set[int], answer: Answer) -> Step:
    try:
        url = str(answer.url.join(link))
    except httpx.InvalidURL:
        raise SourceError(f"{answer.place}: the link to the next page is no address") from None
    seen.add(hash(str(answer.url)))
    _check_new(url, seen, answer)
    return Step(url=url)


def _check_new(value: str, seen: set[int], answer: Answer) -> None:
    # Hashes, since an API may have a million pages and memory stays flat.
    if hash(value) in seen:
        raise SourceError(
            f"{answer.place}: the pages go round in a circle: the next one was read already", "Check the paginator."
        )
    seen.add(hash(value))


def _short(answer: Answer, what: str) -> SourceError:
    return SourceError(
        f"{answer.place}: the answer is not whole: {what}",
        "Run it again; if the API counts wrongly, leave out total_path.",
    )
