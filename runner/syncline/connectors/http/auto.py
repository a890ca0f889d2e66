"""Tells from an API's first answer how to get the rest of it, and never takes a first page for the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from syncline.connectors.http.answer import Answer, Position, first_byte
from syncline.connectors.http.pagination import (
    Cursor,
    HeaderCursor,
    HeaderLink,
    JsonLink,
    Known,
    Offset,
    PageNumber,
    Pages,
    SinglePage,
    Step,
    settings_of,
)
from syncline.errors import SourceError

_DEPTH = 3
_LINK_FIELDS = ("href", "url")
_PAGES = frozenset({"totalpages", "pages", "pagecount", "lastpage", "pagetotal"})
_PAGE = frozenset({"page", "currentpage", "pagenumber", "number"})
_RECORDS = frozenset({"total", "totalcount", "totalresults", "totalitems", "totalrecords", "totalelements", "count"})
_OFFSETS = frozenset({"offset", "skip", "start", "startat"})
_LIMITS = frozenset({"limit", "take", "maxresults", "pagesize", "perpage", "size"})
# `nextReview` beside the records is no cursor.
_CURSORS = frozenset(
    {"next", "nextpage", "nextcursor", "nexttoken", "nextoffset", "nextstart", "nextmarker", "nextkey", "nextid"}
    | {"nextpagetoken", "nextpagecursor", "nextpageid", "nextpagekey", "nextpageoffset", "nextpagestart"}
    | {"nextcontinuationtoken", "nextrecordid"}
)
_MORE = frozenset({"hasmore", "hasnext", "hasnextpage", "more", "ismore"})
_LAST = frozenset({"last", "islast", "islastpage"})
# An object's other fields, such as an order's `total`, say nothing of pages.
_AROUND = frozenset(
    {"meta", "metadata", "searchmetadata", "responsemetadata", "response", "pagination", "paging", "page", "pageinfo"}
    | {"links", "cursor", "cursors"}
)


class Auto(Pages, frozen=True, kw_only=True, tag="auto"):
    """The first answer tells which paginator it is; an answer that has more, untold how, is an error."""

    def step(self, at: Position) -> Step:
        return _told(at).step(at["at"]) if at else Step()

    def after(self, at: Position, answer: Answer) -> Position | None:
        paginator = _told(at) if at else sniff(answer)
        following = paginator.after(at["at"] if at else paginator.start(), answer)
        return None if following is None else _telling(paginator, following)

    def ahead(self, at: Position, answer: Answer) -> Iterator[Position]:
        paginator = _told(at)
        return (_telling(paginator, position) for position in paginator.ahead(at["at"], answer))


Named = Literal["auto", "single_page", "page_number", "cursor", "header_cursor", "json_link", "header_link"]
Paginator = Known | Auto | Named


def paginator_of(setting: Paginator) -> Pages:
    """Return the paginator; a name alone is one with the usual settings."""
    if isinstance(setting, str):
        return msgspec.convert({"type": setting}, Known | Auto)  # type: ignore[no-any-return]
    return setting


def sniff(answer: Answer) -> Pages:
    """Return the paginator that the first answer asks for.

    Raises SourceError where the answer shows that there is more, and not how to ask for it.
    """
    if answer.data_selector is not None and first_byte(answer.find(answer.data_selector) or b"") == b"{":
        return SinglePage()
    if answer.links.get("next", {}).get("url"):
        return HeaderLink()
    if answer.headers.get("X-Next-Page"):
        return HeaderCursor(cursor_key="X-Next-Page", cursor_param="page")
    said = dict(_said(answer.fields, ()))
    return _by_next(said) or _by_pages(answer, said) or _by_records(answer, said) or _by_truth(answer, said)


def _said(fields: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the plain values of the answer around its records, by their path."""
    for name, text in fields.items():
        first = first_byte(text)
        path = (*above, name)
        if first == b"{":
            is_around = _plain(name) in _AROUND or _is_next(name)
            if len(path) < _DEPTH and is_around:
                yield from _said(_members(text), path)
        elif first != b"[":
            yield path, _decoded(text)


def _members(text: Any) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _decoded(text: Any) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _by_next(said: Mapping[tuple[str, ...], Any]) -> Pages | None:
    cursors: list[Pages] = []
    for path, value in said.items():
        if not _names_next(path) or isinstance(value, bool) or not value:
            continue
        joined = ".".join(path)
        if isinstance(value, str) and value.startswith(("http://", "https://", "/", "?")):
            return JsonLink(next_url_path=joined)
        if _plain(path[-1]) in _CURSORS:
            cursors.append(Cursor(cursor_path=joined, cursor_param=_param(path[-1])))
    return cursors[0] if cursors else None


def _by_pages(answer: Answer, said: Mapping[tuple[str, ...], Any]) -> Pages | None:
    found = _number(said, _PAGES)
    if found is None or found[1] <= 1:
        return None
    current = _number(said, _PAGE)
    if current is None or current[1] not in {0, 1}:
        raise _untold(answer, f"{found[1]} pages, and not which one is the first")
    name = current[0][-1]
    return PageNumber(
        base_page=current[1],
        page_param=name if name in {"page", "pageNumber", "page_number"} else "page",
        total_path=".".join(found[0]),
    )


def _by_records(answer: Answer, said: Mapping[tuple[str, ...], Any]) -> Pages | None:
    found = _number(said, _RECORDS)
    header = answer.headers.get("X-Total-Count", answer.headers.get("X-Total", ""))
    total = max(found[1] if found else 0, int(header) if header.isdigit() else 0)
    if total <= len(answer.records):
        return None
    offset, limit = _number(said, _OFFSETS), _number(said, _LIMITS)
    if found and offset and limit and limit[1] > 0:
        return Offset(
            limit=limit[1],
            offset=offset[1],
            offset_param=offset[0][-1],
            limit_param=limit[0][-1],
            total_path=".".join(found[0]),
        )
    raise _untold(answer, f"{total} records, and {len(answer.records)} came")


def _by_truth(answer: Answer, said: Mapping[tuple[str, ...], Any]) -> Pages:
    for path, value in said.items():
        name = _plain(path[-1])
        if (name in _MORE and value is True) or (name in _LAST and value is False):
            raise _untold(answer, f"{'.'.join(path)} is {str(value).lower()}")
    return SinglePage()


def _number(said: Mapping[tuple[str, ...], Any], names: frozenset[str]) -> tuple[tuple[str, ...], int] | None:
    for path, value in said.items():
        if _plain(path[-1]) in names and isinstance(value, int) and not isinstance(value, bool):
            return path, value
    return None


def _names_next(path: tuple[str, ...]) -> bool:
    """Whether the path leads to what comes next: `next`, `nextCursor`, `links.next.href`."""
    if _plain(path[-1]) in _LINK_FIELDS:
        return len(path) > 1 and _is_next(path[-2])
    return _is_next(path[-1])


def _is_next(name: str) -> bool:
    return _plain(name).removeprefix("@odata.").startswith("next")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _param(name: str) -> str:
    """Return the parameter that a cursor most likely goes into: `nextPageToken` into `pageToken`."""
    rest = name[len("next") :].lstrip("_-")
    return rest[0].lower() + rest[1:] if rest else "cursor"


def _told(at: Position) -> Pages:
    return msgspec.convert(at["paginator"], Known)  # type: ignore[no-any-return]


def _telling(paginator: Pages, at: Position) -> Position:
    return {"paginator": settings_of(paginator), "at": at}


def _untold(answer: Answer, what: str) -> SourceError:
    return SourceError(
        f"{answer.place}: there is more than this page ({what}), and the answer does not say how to ask for it",
        "Set the stream's `paginator`; `single_page` where this is all.",
    )
