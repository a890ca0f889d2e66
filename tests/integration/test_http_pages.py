"""How the HTTP connector gets from page to page: bodies, cursors, what `auto` tells, and pages asked for ahead."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncline.config import convert
from syncline.connectors import Context, Fetch
from syncline.connectors.http.connector import HttpConnector, HttpSource, HttpStream
from syncline.errors import ConfigurationError
from tests.http_api import SECRET, STREAM, Api, Reply, Request, ids, rows


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


# Pages that are asked for in the body


def value_at(request: Request, path: str) -> Any:
    found = json.loads(request.body)
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


@pytest.mark.parametrize(
    ("paginator", "paths"),
    [
        ({"type": "page_number", "page_body_path": "paging.page"}, [("paging.page", [0, 1, 2])]),
        (
            {"type": "offset", "limit": 2, "offset_body_path": "from", "limit_body_path": "page.size"},
            [("from", [0, 2, 4]), ("page.size", [2, 2, 2])],
        ),
        ({"type": "cursor", "cursor_path": "next", "cursor_body_path": "v.after"}, [("v.after", [None, 1, 2])]),
    ],
    ids=["page_number", "offset", "cursor"],
)
def test_pages_by_the_body(api: Api, paginator: dict[str, Any], paths: list[tuple[str, list[Any]]]) -> None:
    """Page, offset, limit and cursor go where the path says, beside what the body has of its own."""

    def answer(request: Request) -> Reply:
        number = len(api.requests)
        return Reply(
            {"next": number if number < 3 else None, "data": rows(number * 2, number * 2 + 1) if number < 3 else []}
        )

    api.answer = answer
    stream = {"method": "POST", "json": {"state": "open", "v": {"x": 1}}, "paginator": paginator, "concurrency": 1}
    assert len(api.read(stream)) == 4
    for path, values in paths:
        assert [value_at(request, path) for request in api.requests] == values
    assert {value_at(request, "v.x") for request in api.requests} == {1}
    assert {request.path for request in api.requests} == {"/v1/talents"}
    assert all(not request.query for request in api.requests)


def test_graphql(api: Api) -> None:
    """A GraphQL list is read to the end of its connection."""

    def answer(request: Request) -> Reply:
        after = value_at(request, "variables.after") or 0
        info = {"endCursor": after + 2, "hasNextPage": after < 4}
        return Reply({"data": {"users": {"nodes": rows(after + 1, after + 2), "pageInfo": info}}})

    api.answer = answer
    paginator = {
        "type": "cursor",
        "cursor_path": "data.users.pageInfo.endCursor",
        "cursor_body_path": "variables.after",
        "has_more_path": "data.users.pageInfo.hasNextPage",
    }
    query = "query ($after: Int) { users(after: $after) { nodes { id } } }"
    stream = {"method": "POST", "json": {"query": query}, "data_selector": "data.users.nodes", "paginator": paginator}
    assert ids(api.read(stream)) == [1, 2, 3, 4, 5, 6]
    assert {value_at(request, "query") for request in api.requests} == {query}


@pytest.mark.parametrize(
    ("body", "selector", "code"),
    [
        ({"errors": [{"message": SECRET}]}, "data.users", ""),
        (
            {"errors": [{"message": SECRET, "extensions": {"code": "RATE_LIMITED"}}], "data": None},
            "data.users",
            " (RATE_LIMITED)",
        ),
        (
            {"errors": [{"message": SECRET, "type": "FORBIDDEN"}], "data": {"users": [{"id": 1}]}},
            "data.users",
            " (FORBIDDEN)",
        ),
        ({"errors": ["rate limited"]}, None, ""),
        ({"errors": [{"id": SECRET}]}, None, ""),
    ],
)
def test_errors_in_an_answer_that_looks_well(api: Api, body: Any, selector: str | None, code: str) -> None:
    """A list of errors is an error, also beside data: an answer in part never passes for a whole one."""
    api.answer = lambda request: Reply(body)
    message = api.fail({"data_selector": selector} if selector else {}).message
    assert message.endswith(f"answered with errors{code}")


@pytest.mark.parametrize(
    ("body", "selector", "message"),
    [
        ({"data": ["rate limited"]}, "data", "the array in the answer holds no objects"),
        (["rate limited"], None, "the array in the answer holds no objects"),
        ({"id": 1, "tags": ["a", "b"]}, None, "0 arrays of objects"),
        ({"id": 1}, None, "0 arrays of objects"),
        ({"people": [{"id": 1}], "places": [{"id": 1}]}, None, "2 arrays of objects"),
    ],
)
def test_what_is_no_list_of_records(api: Api, body: Any, selector: str | None, message: str) -> None:
    """Neither texts nor an object that nobody named pass for records."""
    api.answer = lambda request: Reply(body)
    assert message in api.fail({"data_selector": selector} if selector else {}).message


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"id": 1}], "included": [{"id": 9}], "warnings": []},
        {"tags": ["a"], "people": [{"id": 1}]},
        {"errors": [], "items": [{"id": 1}]},
    ],
)
def test_the_list_of_records_among_others(api: Api, body: Any) -> None:
    """Of several lists it is the only one of objects, or the one that is named as records are."""
    api.answer = lambda request: Reply(body)
    assert ids(api.read()) == [1]


# Settings of dlt's paginators


def served(total: int, size: int = 2, /, **said: Any) -> Any:
    """Answer by page, offset or cursor; `said` are functions of page and number of pages, for the answer's fields."""

    def answer(request: Request) -> Reply:
        asked = request.query.get("page") or request.query.get("cursor") or request.query.get("token")
        page = int(asked) if asked else int(request.query.get("skip", "0")) // size
        pages = -(-total // size)
        body: dict[str, Any] = {"data": rows(page * size + 1, min(page * size + size, total))}
        for name, value in said.items():
            found = value(page, pages)
            if found is not None:
                body[name] = found
        return Reply(body)

    return answer


def test_pages_from_another_than_the_first(api: Api) -> None:
    """`page` is where reading begins; the number of pages is counted from `base_page`."""
    api.answer = served(8, pages=lambda page, pages: pages)
    assert ids(api.read(paginator={"type": "page_number", "page": 2, "total_path": "pages"})) == [5, 6, 7, 8]


@pytest.mark.parametrize(
    "paginator",
    [
        {"type": "page_number", "has_more_path": "more"},
        {"type": "offset", "limit": 2, "offset_param": "skip", "has_more_path": "more"},
        {"type": "cursor", "cursor_path": "next", "has_more_path": "more"},
    ],
    ids=["page_number", "offset", "cursor"],
)
@pytest.mark.parametrize("form", [bool, str])
def test_has_more(api: Api, paginator: dict[str, Any], form: Any) -> None:
    """`has_more_path` ends the pages without an empty one; an empty page, or no truth there, is half an answer."""
    following = {"next": lambda page, pages: page + 1}
    api.answer = served(6, more=lambda page, pages: form(page + 1 < pages), **following)
    assert ids(api.read(paginator=paginator)) == [1, 2, 3, 4, 5, 6]
    assert len(api.requests) == 3
    api.answer = served(6, **following)
    assert "has_more_path 'more' leads to neither true nor false" in api.fail(paginator=paginator).message
    api.answer = served(2, more=lambda page, pages: True, next=lambda page, pages: page + 1 if page < 1 else None)
    assert "there should be more" in api.fail(paginator=paginator).message


def test_an_empty_page_that_is_no_end(api: Api) -> None:
    """With stop_after_empty_page off, the total alone ends the pages; for a cursor, on, an empty page does."""
    found = {0: rows(1, 2), 1: [], 2: rows(3, 4)}
    api.answer = lambda request: Reply({"pages": 3, "data": found[int(request.query["page"])]})
    paginator = {"type": "page_number", "total_path": "pages", "stop_after_empty_page": False}
    assert ids(api.read(paginator=paginator)) == [1, 2, 3, 4]
    api.answer = served(4, next=lambda page, pages: page + 1)
    assert ids(api.read(paginator={"type": "cursor", "cursor_path": "next", "stop_after_empty_page": True})) == [
        1,
        2,
        3,
        4,
    ]


def test_cursor_from_the_last_record(api: Api) -> None:
    """`data[-1].id` leads to the last record's id, as APIs want it that page by key."""

    def answer(request: Request) -> Reply:
        after = int(request.query.get("starting_after", "0"))
        return Reply({"data": rows(after + 1, min(after + 2, 5)), "has_more": after + 2 < 5})

    api.answer = answer
    cursor = {"type": "cursor", "cursor_path": "data[-1].id", "cursor_param": "starting_after"}
    assert ids(api.read(paginator={**cursor, "has_more_path": "has_more"})) == [1, 2, 3, 4, 5]
    assert ids(api.read(paginator=cursor)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("end", [0, "", False, None])
def test_cursor_that_is_nothing(api: Api, end: Any) -> None:
    """Zero, an empty text, false and null are no cursor."""
    api.answer = lambda request: Reply({"data": rows(1, 2), "cursors": {"next": end}})
    assert ids(api.read(paginator="cursor")) == [1, 2]


def test_header_cursor(api: Api) -> None:
    """The header's value asks for the next page."""

    def answer(request: Request) -> Reply:
        page = int(request.query.get("token", "0"))
        return Reply(rows(page, page), headers={"NextPageToken": str(page + 1)} if page < 2 else {})

    api.answer = answer
    paginator = {"type": "header_cursor", "cursor_key": "NextPageToken", "cursor_param": "token"}
    assert ids(api.read(paginator=paginator)) == [0, 1, 2]


def test_total_that_shrinks(api: Api) -> None:
    """Records that moved to a page that was read already would be missing."""
    api.answer = served(8, pages=lambda page, pages: pages if page < 2 else pages - 1)
    assert "total went from 4 to 3" in api.fail(paginator={"type": "page_number", "total_path": "pages"}).message
    api.answer = served(8, total=lambda page, pages: 8 if page < 2 else 7)
    paginator = {"type": "offset", "limit": 2, "offset_param": "skip", "total_path": "total"}
    assert "total went from 8 to 7" in api.fail(paginator=paginator).message


@pytest.mark.parametrize(
    "paginator",
    [
        {"type": "page_number", "page_param": "p", "page_body_path": "p"},
        {"type": "page_number", "stop_after_empty_page": False},
        {"type": "offset", "limit": 0},
        {"type": "cursor", "cursor_param": "c", "cursor_body_path": "c"},
        "offset",
        "link",
    ],
)
def test_wrong_paginators(paginator: Any) -> None:
    """A paginator that contradicts itself or would never end is a wrong setting."""
    with pytest.raises(ConfigurationError):
        convert({"base_url": "https://x", "paginator": paginator}, HttpSource, "source")


# What the first answer tells


def following(page: int, pages: int) -> int | None:
    return page + 1 if page + 1 < pages else None


def address(page: int, pages: int) -> str | None:
    return f"/v1/talents?page={page + 1}" if page + 1 < pages else None


TOLD: dict[str, dict[str, Any]] = {
    "next": {"next": address},
    "links.next": {"links": lambda page, pages: {"self": "/x", "next": address(page, pages)}},
    "_links.next.href": {"_links": lambda page, pages: {"next": {"href": address(page, pages)}}},
    "meta.pagination.next_url": {"meta": lambda page, pages: {"pagination": {"next_url": address(page, pages)}}},
    "@odata.nextLink": {"@odata.nextLink": address},
    "nextRecordsUrl": {"nextRecordsUrl": address},
    "next_cursor": {"next_cursor": following},
    "cursors.next": {"cursors": lambda page, pages: {"next": following(page, pages)}},
    "meta.next_page": {"meta": lambda page, pages: {"next_page": following(page, pages)}},
    "nextToken": {"nextToken": lambda page, pages: str(following(page, pages) or "")},
    "pages": {"page": lambda page, pages: page, "total_pages": lambda page, pages: pages},
    "meta.currentPage": {"meta": lambda page, pages: {"currentPage": page, "totalPages": pages}},
    "offset": {"total": lambda page, pages: 9, "skip": lambda page, pages: page * 2, "limit": lambda page, pages: 2},
    "one page": {"total": lambda page, pages: min(pages, 2), "has_more": lambda page, pages: False},
}


@pytest.mark.parametrize("told", [name for name in TOLD if name != "one page"])
def test_auto(api: Api, told: str) -> None:
    """What the first answer says beside its records leads to all of them."""
    api.answer = served(9, **TOLD[told])
    assert ids(api.read()) == list(range(1, 10))
    api.requests.clear()
    api.answer = served(2, **{name: value for name, value in TOLD[told].items() if name != "total"})
    assert ids(api.read()) == [1, 2]
    assert len(api.requests) == 1


def test_auto_by_headers(api: Api) -> None:
    """The header Link, and X-Next-Page, lead to all records."""

    def link(request: Request) -> Reply:
        page = int(request.query.get("page", "0"))
        return Reply(
            rows(page, page), headers={"Link": f'</v1/talents?page={page + 1}>; rel="next"'} if page < 2 else {}
        )

    api.answer = link
    assert ids(api.read()) == [0, 1, 2]

    def header(request: Request) -> Reply:
        page = int(request.query.get("page", "0"))
        return Reply(rows(page, page), headers={"X-Next-Page": str(page + 1) if page < 2 else ""})

    api.answer = header
    assert ids(api.read()) == [0, 1, 2]


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"id": 1}], "has_more": True},
        {"data": [{"id": 1}], "pageInfo": {"hasNextPage": True}},
        {"data": [{"id": 1}], "total": 2},
        {"results": [{"id": 1}], "count": 2, "next": None},
        {"data": [{"id": 1}], "meta": {"total_pages": 2}},
        {"data": [{"id": 1}], "meta": {"page": 5, "total_pages": 9}},
        {"content": [{"id": 1}], "last": False},
    ],
)
def test_auto_never_takes_a_first_page_for_the_whole(api: Api, body: Any) -> None:
    """An answer that has more, and does not say how to get it, is an error with what to set."""
    api.answer = lambda request: Reply(body)
    error = api.fail()
    assert "there is more than this page" in error.message
    assert "`paginator`" in (error.hint or "")
    assert api.read({"paginator": "single_page"}) == [b'{"id": 1}']


def test_auto_that_guessed_a_parameter_wrongly(api: Api) -> None:
    """A cursor that the API does not take gives its first page again, which is noticed."""
    api.answer = lambda request: Reply({"data": rows(1, 2), "next_token": f"t{len(api.requests)}"})
    assert "two pages in a row have the same records" in api.fail().message


@pytest.mark.parametrize(
    "body",
    [{"data": [{"id": 1}], "nextReview": 5, "total": 1}, [{"id": 1}], {"data": [{"id": 1}], "order": {"total": 9}}],
)
def test_auto_with_one_page(api: Api, body: Any) -> None:
    """Without a sign of more there is no second request."""
    api.answer = lambda request: Reply(body)
    assert api.read() == [b'{"id": 1}']
    assert len(api.requests) == 1


# Pages asked for ahead


@pytest.mark.parametrize(
    "paginator",
    [
        {"type": "page_number", "total_path": "pages"},
        {"type": "offset", "limit": 2, "offset_param": "skip", "total_path": "total"},
    ],
    ids=["page_number", "offset"],
)
def test_pages_ahead(api: Api, paginator: dict[str, Any]) -> None:
    """With a total, as many pages as may be are under way at once; they are taken in order."""
    together = threading.Barrier(3)
    whole = served(20, pages=lambda page, pages: pages, total=lambda page, pages: 20)

    def answer(request: Request) -> Reply:
        if request.query.get("page", request.query.get("skip")) != "0":
            together.wait(30)  # of the nine pages after the first, three at a time
        return whole(request)

    api.answer = answer
    assert ids(api.read(paginator=paginator, concurrency=3)) == list(range(1, 21))
    assert len(api.requests) == 10


def test_pages_ahead_are_few(api: Api) -> None:
    """Who takes one page has not asked for many more: memory stays flat."""
    api.answer = served(2000, pages=lambda page, pages: pages)
    settings = {
        "base_url": f"{api.url}/v1",
        "paginator": {"type": "page_number", "total_path": "pages"},
        "concurrency": 3,
    }
    connector = HttpConnector(convert(settings, HttpSource, "source"), Context(Path()))
    pages = connector.read(Fetch(stream=STREAM, settings=HttpStream(path="talents")))
    assert ids(next(pages).records) == [1, 2]
    assert ids(next(pages).records) == [3, 4]
    pages.close()  # type: ignore[attr-defined]
    connector.close()
    assert len(api.requests) <= 5


def test_a_guess_that_was_wrong(api: Api) -> None:
    """Pages asked for ahead by an offset that proves wrong are thrown away: each record comes once."""

    def answer(request: Request) -> Reply:
        skip = int(request.query["skip"])
        size = 3 if skip % 2 else 2
        return Reply({"total": 30, "data": rows(skip + 1, min(skip + size, 30))})

    api.answer = answer
    paginator = {"type": "offset", "limit": 2, "offset_param": "skip", "total_path": "total"}
    assert ids(api.read(paginator=paginator)) == list(range(1, 31))


def test_a_page_ahead_that_fails(api: Api) -> None:
    """The pages before it are there first; the error is that of the page."""
    whole = served(20, pages=lambda page, pages: pages)
    api.answer = lambda request: Reply(status=404) if request.query["page"] == "3" else whole(request)
    assert "not found" in api.fail(paginator={"type": "page_number", "total_path": "pages"}).message


# Limits


def test_length_over_the_limit(api: Api) -> None:
    """An answer that says that it has 2 GB is refused before it is read."""
    api.answer = lambda request: Reply(b"[", length=2 << 30)
    assert "longer than 268435456 bytes" in api.fail(retries=1).message


def test_answer_that_trickles(api: Api) -> None:
    """An answer that comes byte by byte is given up after the time that it may take."""
    body = json.dumps(rows(1, 100)).encode()
    api.answer = lambda request: Reply(body, trickle=0.02)
    message = api.fail(retries=1, max_response_seconds=0.1).message
    assert "the answer takes longer than 0.1 s, after 1 attempt" in message


def test_chunks_that_are_cut_off(api: Api) -> None:
    """A body in chunks without the last one is no page."""
    api.answer = lambda request: Reply(b"[1", headers={"Transfer-Encoding": "chunked"}, length=-1)
    assert "the connection was cut" in api.fail(retries=1).message
