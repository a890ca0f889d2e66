"""Says, page by page, what to ask an API for next; names and meanings are those of dlt's REST API source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from syncline.connectors.http.answer import Answer, AnswerPath, Position
from syncline.connectors.json_text import JsonPath
from syncline.errors import SourceError


@dataclass(frozen=True, slots=True)
class Step:
    """What the next request has of its own: query parameters, values by their path in the body, or a whole address."""

    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    link: Position | None = None


class Pages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A way through the pages: without state, so that a reading goes on from any position."""

    def start(self) -> Position:
        return {}

    def step(self, at: Position) -> Step:
        """Return what to ask for to get the page at this position."""
        return Step()

    def after(self, at: Position, answer: Answer) -> Position | None:
        """Return the position after this page, None where it is the last; raises SourceError where that is untold."""
        return None

    def ahead(self, at: Position, answer: Answer) -> Iterator[Position]:
        """Yield `at`, which follows this answer, and the positions that will most likely follow it."""
        yield at


class SinglePage(Pages, frozen=True, kw_only=True, tag="single_page"):
    """One request has it all."""


class PageNumber(Pages, frozen=True, kw_only=True, tag="page_number"):
    """Pages are counted from `base_page`, up to the number of pages at `total_path`, or to the first empty one.

    The first one read is `page`. As in dlt, page numbers stay below `maximum_page`.
    """

    base_page: int = 0
    page: int | None = None
    page_param: str | None = None
    page_body_path: JsonPath | None = None
    total_path: JsonPath | None = None
    has_more_path: JsonPath | None = None
    maximum_page: int | None = None
    stop_after_empty_page: bool = True

    def __post_init__(self) -> None:
        _check_one("page", self.page_param, self.page_body_path)
        _check_end(self.stop_after_empty_page, self.total_path, self.has_more_path, self.maximum_page)

    def start(self) -> Position:
        return {"page": self.base_page if self.page is None else self.page}

    def step(self, at: Position) -> Step:
        return _placed(at["page"], self.page_param or "page", self.page_body_path)

    def after(self, at: Position, answer: Answer) -> Position | None:
        page = at["page"]
        total = _total(answer, self.total_path, at)
        has_more = answer.has_more(self.has_more_path) if self.has_more_path else None
        if not answer.records and self.stop_after_empty_page:
            # An API may count one page where there is no record at all.
            if total is not None and total > 1 and page < self.base_page + total:
                raise _short(answer, f"page {page} is empty, and there should be {total} pages")
            if has_more:
                raise _short(answer, f"page {page} is empty, and there should be more")
            return None
        if has_more is False or (total is not None and page + 1 >= self.base_page + total):
            return None
        if self.maximum_page is not None and page + 1 >= self.maximum_page:
            return None
        return _with_total({"page": page + 1}, total)

    def ahead(self, at: Position, answer: Answer) -> Iterator[Position]:
        yield at
        if "total" in at:
            end = min(self.base_page + at["total"], self.maximum_page or self.base_page + at["total"])
            yield from ({**at, "page": page} for page in range(at["page"] + 1, end))


class Offset(Pages, frozen=True, kw_only=True, tag="offset"):
    """Records are counted, up to the number of records at `total_path`, or to the first empty page.

    The offset grows by the records that came, so an API that caps `limit` loses none. As in dlt, offsets stay below
    `maximum_offset`.
    """

    limit: int
    offset: int = 0
    offset_param: str | None = None
    offset_body_path: JsonPath | None = None
    limit_param: str | None = None
    limit_body_path: JsonPath | None = None
    total_path: JsonPath | None = None
    has_more_path: JsonPath | None = None
    maximum_offset: int | None = None
    stop_after_empty_page: bool = True

    def __post_init__(self) -> None:
        _check_one("offset", self.offset_param, self.offset_body_path)
        _check_one("limit", self.limit_param, self.limit_body_path)
        _check_end(self.stop_after_empty_page, self.total_path, self.has_more_path, self.maximum_offset)
        if self.limit < 1:
            raise ValueError("limit is a number of records, at least 1")

    def start(self) -> Position:
        return {"offset": self.offset}

    def step(self, at: Position) -> Step:
        offset = _placed(at["offset"], self.offset_param or "offset", self.offset_body_path)
        limit = _placed(self.limit, self.limit_param or "limit", self.limit_body_path)
        return Step({**offset.params, **limit.params}, {**offset.body, **limit.body})

    def after(self, at: Position, answer: Answer) -> Position | None:
        count = len(answer.records)
        offset = at["offset"] + (count or (0 if self.stop_after_empty_page else self.limit))
        total = _total(answer, self.total_path, at)
        has_more = answer.has_more(self.has_more_path) if self.has_more_path else None
        if total is not None and offset >= total:
            return None
        if not count and self.stop_after_empty_page:
            if total is not None:
                raise _short(answer, f"{offset} records came, and there should be {total}")
            if has_more:
                raise _short(answer, f"the page at offset {offset} is empty, and there should be more")
            return None
        if has_more is False or (self.maximum_offset is not None and offset >= self.maximum_offset):
            return None
        return _with_total({"offset": offset}, total)

    def ahead(self, at: Position, answer: Answer) -> Iterator[Position]:
        yield at
        size = len(answer.records)
        if size and "total" in at:
            end = min(at["total"], self.maximum_offset or at["total"])
            yield from ({**at, "offset": offset} for offset in range(at["offset"] + size, end, size))


class Cursor(Pages, frozen=True, kw_only=True, tag="cursor"):
    """Each answer has, at `cursor_path`, what to ask the next one with; the last has none."""

    cursor_path: AnswerPath = "cursors.next"
    cursor_param: str | None = None
    cursor_body_path: JsonPath | None = None
    has_more_path: JsonPath | None = None
    stop_after_empty_page: bool = False

    def __post_init__(self) -> None:
        _check_one("cursor", self.cursor_param, self.cursor_body_path)

    def step(self, at: Position) -> Step:
        if "cursor" not in at:
            return Step()
        return _placed(at["cursor"], self.cursor_param or "cursor", self.cursor_body_path)

    def after(self, at: Position, answer: Answer) -> Position | None:
        cursor = answer.value(self.cursor_path)
        has_more = answer.has_more(self.has_more_path) if self.has_more_path else None
        if has_more is False or (self.stop_after_empty_page and not answer.records):
            return None
        if not cursor:
            if has_more:
                raise _short(answer, f"there should be more, and cursor_path {self.cursor_path!r} leads to nothing")
            return None
        if not isinstance(cursor, str | int) or isinstance(cursor, bool):
            raise SourceError(f"{answer.place}: cursor_path {self.cursor_path!r} leads to no string or number")
        return {"cursor": cursor}


class HeaderCursor(Pages, frozen=True, kw_only=True, tag="header_cursor"):
    """Each answer has, in the header `cursor_key`, what to ask the next one with; the last has none."""

    cursor_key: str = "next"
    cursor_param: str = "cursor"

    def step(self, at: Position) -> Step:
        return Step({self.cursor_param: at["cursor"]} if "cursor" in at else {})

    def after(self, at: Position, answer: Answer) -> Position | None:
        cursor = answer.headers.get(self.cursor_key)
        return {"cursor": cursor} if cursor else None


class JsonLink(Pages, frozen=True, kw_only=True, tag="json_link"):
    """Each answer has the address of the next one at `next_url_path`; the last has none."""

    next_url_path: AnswerPath = "next"

    def step(self, at: Position) -> Step:
        return Step(link=at or None)

    def after(self, at: Position, answer: Answer) -> Position | None:
        link = answer.value(self.next_url_path)
        if not link:
            return None
        if not isinstance(link, str):
            raise SourceError(f"{answer.place}: next_url_path {self.next_url_path!r} leads to no address")
        return answer.follow(link)


class HeaderLink(Pages, frozen=True, kw_only=True, tag="header_link"):
    """Each answer has the address of the next one in its header `Link`, as rel=next; the last has none."""

    links_next_key: str = "next"

    def step(self, at: Position) -> Step:
        return Step(link=at or None)

    def after(self, at: Position, answer: Answer) -> Position | None:
        link = answer.links.get(self.links_next_key, {}).get("url")
        return answer.follow(link) if link else None


Known = SinglePage | PageNumber | Offset | Cursor | HeaderCursor | JsonLink | HeaderLink


def settings_of(paginator: Pages) -> dict[str, Any]:
    """Return what a sources file says for this paginator: what is not as usual."""
    usual = {item.encode_name: item.default for item in msgspec.structs.fields(type(paginator))}
    settings = msgspec.to_builtins(paginator)
    return {name: value for name, value in settings.items() if name == "type" or value != usual[name]}


def _check_one(name: str, param: str | None, body_path: str | None) -> None:
    if param is not None and body_path is not None:
        raise ValueError(f"{name}_param and {name}_body_path are both set: the {name} goes to one place")


def _check_end(stop_after_empty_page: bool, *others: Any) -> None:
    if not stop_after_empty_page and all(other is None for other in others):
        raise ValueError("nothing ends the pages: set total_path, has_more_path, a maximum, or stop_after_empty_page")


def _placed(value: Any, param: str, body_path: str | None) -> Step:
    return Step({param: value}) if body_path is None else Step(body={body_path: value})


def _total(answer: Answer, path: str | None, at: Position) -> int | None:
    """Return the total that the answer tells; raises SourceError where it shrank, since records moved up unread."""
    if path is None:
        return None
    total = answer.total(path)
    if total < at.get("total", 0):
        raise SourceError(
            f"{answer.place}: the total went from {at['total']} to {total} while it was read",
            "Records that moved to an earlier page may be missing: run it again, or page by a cursor.",
        )
    return total


def _with_total(at: Position, total: int | None) -> Position:
    return at if total is None else {**at, "total": total}


def _short(answer: Answer, what: str) -> SourceError:
    return SourceError(
        f"{answer.place}: the answer is not whole: {what}",
        "Run it again; if the API counts wrongly, leave out total_path or has_more_path.",
    )
