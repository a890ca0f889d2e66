"""Paging over HTTP: whatever the total, the size of a page and the paginator, each record comes once, cut or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.config import convert
from syncline.connectors import Context, Fetch, Page
from syncline.connectors.http.connector import HttpConnector, HttpSource, HttpStream
from tests.http_api import STREAM, Api, Reply, Request, ids, rows
from tests.properties.conftest import examples

PAGINATORS: list[Any] = [
    {"type": "page_number"},
    {"type": "page_number", "base_page": 1, "page_param": "p1", "total_path": "pages"},
    {"type": "page_number", "has_more_path": "more"},
    {"type": "offset", "limit": 5},
    {"type": "offset", "limit": 3, "total_path": "total"},
    {"type": "cursor", "cursor_path": "next_cursor"},
    {"type": "cursor", "cursor_path": "data[-1].id", "cursor_param": "after", "has_more_path": "more"},
    {"type": "header_cursor", "cursor_key": "X-Cursor"},
    {"type": "json_link"},
    "header_link",
    "auto",
]
"""Every paginator, in every way that it may learn of the end."""


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


def serve(api: Api, total: int, size: int) -> None:
    """Serve `total` records, `size` a page at most, however they are asked for."""

    def answer(request: Request) -> Reply:
        query = request.query
        asked = {"page": size, "cursor": size, "after": 1, "offset": 1}
        first = next((int(query[name]) * step for name, step in asked.items() if name in query), 0)
        first = (int(query["p1"]) - 1) * size if "p1" in query else first
        last = min(first + min(size, int(query.get("limit", size))), total)
        is_last = last >= total
        following = None if is_last else first // size + 1
        link = f"/v1/talents?page={following}&x=%20%2B"
        body = {"data": rows(first + 1, last), "pages": -(-total // size), "total": total, "more": not is_last}
        body |= {"next_cursor": following, "next": None if is_last else link}
        headers = {} if is_last else {"Link": f'<{link}>; rel="next"', "X-Cursor": str(following)}
        return Reply(body, headers=headers)

    api.answer = answer


def read(api: Api, paginator: Any, concurrency: int, position: Any = None, pages: int | None = None) -> list[Page]:
    """Read from a position, so many pages and no more."""
    source = {"base_url": f"{api.url}/v1", "concurrency": concurrency, "data_selector": "data"}
    connector = HttpConnector(convert(source, HttpSource, "source"), Context(Path()))
    stream = convert({"path": "talents", "paginator": paginator}, HttpStream, "stream")
    found: list[Page] = []
    reading = connector.read(Fetch(stream=STREAM, settings=stream, position=position))
    for page in reading:
        found.append(page)
        if len(found) == pages:
            break
    reading.close()  # type: ignore[attr-defined]
    connector.close()
    return found


@given(
    total=st.integers(0, 23),
    size=st.integers(1, 7),
    paginator=st.sampled_from(PAGINATORS),
    concurrency=st.integers(1, 4),
    cut=st.integers(1, 8),
)
@settings(max_examples=examples(150))
def test_each_record_comes_once(api: Api, total: int, size: int, paginator: Any, concurrency: int, cut: int) -> None:
    """All records come, in order, once each; cut off after any page and gone on with from there, they are the same."""
    serve(api, total, size)
    whole = [record for page in read(api, paginator, concurrency) for record in page.records]
    assert ids(whole) == list(range(1, total + 1))
    before = read(api, paginator, concurrency, pages=cut)
    position = before[-1].position
    after = read(api, paginator, concurrency, json.loads(json.dumps(position))) if position is not None else []
    assert [record for page in [*before, *after] for record in page.records] == whole
