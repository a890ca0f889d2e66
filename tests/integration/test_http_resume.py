"""Loads over HTTP that are cut off, that find nothing new, or that ask for a range: through the loader, on Postgres."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncline.errors import SourceError, SourceUnavailableError
from tests.http_api import SECRET, Api, Reply, Request
from tests.shop import Shop

TOTAL, SIZE = 40, 4
INCREMENTAL = {"cursor_path": "at", "start_param": "since"}


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


@pytest.fixture
def shop(api: Api, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr("syncline.load.CHECKPOINT_SECONDS", 0.0)
    return Shop(api, database, tmp_path)


def orders(first: int, last: int) -> list[dict[str, Any]]:
    return [{"id": n, "at": f"2026-01-01T00:00:{n:02}Z"} for n in range(first + 1, min(last, TOTAL) + 1)]


def answer_page(request: Request) -> Reply:
    """Serve a page however it is asked for, with all that any paginator goes by."""
    query = request.query
    first = int(query["offset"]) if "offset" in query else int(query.get("page", query.get("cursor", "0"))) * SIZE
    following = first // SIZE + 1 if first + SIZE < TOTAL else None
    key = f"&key={query['key']}" if "key" in query else ""
    link = f"/orders?page={following}&since={query.get('since', '')}&secret={query.get('secret', '')}{key}"
    body = {"data": orders(first, first + SIZE), "total": TOTAL, "pages": -(-TOTAL // SIZE), "page": 0}
    body |= {"next_cursor": following, "next": link if following else None}
    return Reply(body, headers={"Link": f'<{link}>; rel="next"'} if following else {})


PAGINATORS: dict[str, Any] = {
    "page_number": {"type": "page_number", "total_path": "pages"},
    "offset": {"type": "offset", "limit": SIZE},
    "cursor": {"type": "cursor", "cursor_path": "next_cursor"},
    "json_link": "json_link",
    "header_link": "header_link",
    "auto": "auto",
}


@pytest.mark.parametrize("paginator", PAGINATORS)
def test_an_increment_that_is_cut_off_goes_on(shop: Shop, paginator: str) -> None:
    """The second run asks for what the first did not get and no more, stores no secret, and ends with the cursor."""
    auth = {"type": "api_key", "name": "key", "api_key": SECRET, "location": "query"}
    source = {"auth": auth, "params": {"secret": SECRET}, "concurrency": 1}
    shop.configure(source, orders={"paginator": PAGINATORS[paginator], "incremental": INCREMENTAL})
    shop.api.answer = lambda request: Reply(status=503) if len(shop.api.requests) == 7 else answer_page(request)
    with pytest.raises(SourceUnavailableError, match="503"):
        shop.load()
    assert shop.ids == []
    left = json.dumps(shop.state["unfinished"])
    assert left != "null"
    assert SECRET not in left
    shop.api.requests.clear()
    load = shop.load()
    pages = TOTAL // SIZE + (paginator == "offset")
    assert len(shop.api.requests) == pages - 6
    assert {request.query["key"] for request in shop.api.requests} == {SECRET}
    assert {request.query["secret"] for request in shop.api.requests} == {SECRET}
    assert (shop.ids, load["records_read"]) == (list(range(1, TOTAL + 1)), TOTAL)
    assert shop.state == {"cursor": {"value": f"2026-01-01T00:00:{TOTAL}Z"}, "unfinished": None}


def test_what_was_cut_off_before_a_lower_value_keeps_the_highest(shop: Shop) -> None:
    """The greatest value may be on a page before the cut: it is the cursor in the end."""
    shop.configure({"concurrency": 1}, orders={"paginator": PAGINATORS["page_number"], "incremental": INCREMENTAL})

    def backwards(request: Request) -> Reply:
        page = TOTAL // SIZE - 1 - int(request.query["page"])
        return Reply({"data": orders(page * SIZE, page * SIZE + SIZE), "pages": TOTAL // SIZE})

    shop.api.answer = lambda request: Reply(status=503) if len(shop.api.requests) == 4 else backwards(request)
    with pytest.raises(SourceUnavailableError):
        shop.load()
    shop.load()
    assert shop.state["cursor"] == {"value": f"2026-01-01T00:00:{TOTAL}Z"}
    assert shop.ids == list(range(1, TOTAL + 1))


def test_a_total_that_shrinks_begins_anew(shop: Shop) -> None:
    """Records that were deleted between the two runs may have moved others to pages that were read: all come anew."""
    shop.configure({"concurrency": 1}, orders={"paginator": PAGINATORS["page_number"], "incremental": INCREMENTAL})
    shop.api.answer = lambda request: Reply(status=503) if len(shop.api.requests) == 4 else answer_page(request)
    with pytest.raises(SourceUnavailableError):
        shop.load()

    def shorter(request: Request) -> Reply:
        page = int(request.query["page"])
        return Reply({"data": orders(page * SIZE + 2, page * SIZE + 6), "pages": TOTAL // SIZE - 1})

    shop.api.answer = shorter
    with pytest.raises(SourceError, match="total went from 10 to 9"):
        shop.load()
    shop.load()
    assert shop.ids == list(range(3, TOTAL - 1))


# Nothing new


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_an_answer_that_was_not_modified_costs_one_request(shop: Shop, header: str) -> None:
    """The API is asked whether it has something else; if not, the load is saved without changes."""
    shop.configure({}, orders={})
    asked = {"ETag": "if-none-match", "Last-Modified": "if-modified-since"}[header]
    tag, found = '"1"' if header == "ETag" else "Wed, 21 Oct 2020 07:28:00 GMT", orders(0, 5)

    def answer(request: Request) -> Reply:
        if request.headers.get(asked) == tag:
            return Reply(status=304)
        return Reply(found, headers={header: tag})

    shop.api.answer = answer
    assert shop.load()["records_new"] == 5
    load = shop.load()
    assert (load["records_new"], load["records_changed"], load["live_records"]) == (0, 0, 5)
    assert len(shop.api.requests) == 2
    tag, found = tag.replace("1", "2"), orders(0, 6)
    assert shop.load()["records_new"] == 1
    shop.load(is_refresh=True)
    assert asked not in shop.api.requests[-1].headers


def test_a_change_within_the_same_second(shop: Shop) -> None:
    """An answer that was modified in the second that it was given in may have changed since: it is asked for whole."""
    shop.configure({}, orders={})
    now = "Wed, 21 Oct 2020 07:28:00 GMT"
    shop.api.answer = lambda request: Reply(orders(0, 5), headers={"Last-Modified": now, "Date": now})
    shop.load()
    shop.load()
    assert "if-modified-since" not in shop.api.requests[-1].headers


def test_another_question_gets_a_whole_answer(shop: Shop) -> None:
    """Where params or selector are others than at the last load, the answer of then is none to this question."""
    shop.api.answer = lambda request: (
        Reply(status=304) if "if-none-match" in request.headers else Reply(orders(0, 5), headers={"ETag": "1"})
    )
    shop.configure({}, orders={"params": {"state": "open"}})
    shop.load()
    shop.configure({}, orders={"params": {"state": "all"}})
    assert shop.load()["records_read"] == 5
    assert SECRET not in json.dumps(shop.state["cursor"])
    assert shop.load()["records_read"] == 0


def test_a_second_page_is_read_though_the_first_was_not_modified(shop: Shop) -> None:
    """A 304 that names a next page is no end."""
    shop.configure({}, orders={})
    first = Reply(orders(0, 5), headers={"ETag": "1"})
    shop.api.answer = lambda request: first
    shop.load()

    def answer(request: Request) -> Reply:
        link = {"Link": '</orders?page=2>; rel="next"'}
        if "if-none-match" in request.headers:
            return Reply(status=304, headers=link)
        return Reply(orders(5, 7)) if "page" in request.query else Reply(orders(0, 5), headers=link)

    shop.api.answer = answer
    shop.load()
    assert shop.ids == list(range(1, 8))


# Ranges


@pytest.mark.parametrize("end_param", [None, "until"])
def test_a_backfill(shop: Shop, end_param: str | None) -> None:
    """A range is asked for with both its ends, records after it are dropped where the API cannot be told its end."""
    incremental = INCREMENTAL | ({"end_param": end_param} if end_param else {})
    shop.configure({}, orders={"incremental": incremental, "paginator": "single_page"})

    def answer(request: Request) -> Reply:
        found = [order for order in orders(0, TOTAL) if order["at"] >= request.query.get("since", "")]
        return Reply([order for order in found if order["at"] <= request.query.get("until", "9")])

    shop.api.answer = answer
    shop.load(
        since="2026-01-01T00:00:05Z", until="2026-01-01T01:00:09+01:00" if not end_param else orders(0, 9)[-1]["at"]
    )
    assert shop.ids == [5, 6, 7, 8, 9]
    assert shop.state["cursor"] is None
    assert shop.api.requests[0].query["since"] == "2026-01-01T00:00:05Z"
