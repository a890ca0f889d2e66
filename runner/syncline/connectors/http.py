"""Reads the records of JSON APIs over HTTP, page by page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import httpx
import msgspec
import xxhash

from syncline.config import Stream
from syncline.connectors import Connector, Context, Fetch, Page
from syncline.connectors.incremental import Incremental, Watermark
from syncline.connectors.json_text import JsonPath
from syncline.connectors.pagination import Answer, Paginator, SinglePage, Step, Steps
from syncline.connectors.transport import Auth, Limits, Transport, check_auth, check_headers, display, is_same_origin
from syncline.errors import ConfigurationError, SourceError

Scalar = str | int | float | bool
Params = dict[str, Scalar | list[Scalar]]

_LEAD = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*")


class HttpSource(msgspec.Struct, frozen=True, kw_only=True):
    """One API. `timeout`, `backoff` and `max_wait` are seconds; `retries` counts all attempts for a page."""

    base_url: str
    auth: Auth | None = None
    headers: dict[str, str] = {}
    params: Params = {}
    paginator: Paginator = SinglePage()
    data_selector: JsonPath | None = None
    timeout: float = 30
    retries: Annotated[int, msgspec.Meta(ge=1)] = 5
    backoff: float = 0.5
    max_wait: float = 60
    max_response_bytes: int = 256 << 20


class HttpStream(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. Its params and headers come on top of the source's; its paginator and selector take their place."""

    path: str
    method: Literal["GET", "POST"] = "GET"
    params: Params = {}
    headers: dict[str, str] = {}
    json: Any = None
    paginator: Paginator | None = None
    data_selector: JsonPath | None = None
    incremental: Incremental | None = None


class HttpConnector(Connector):
    """Reads an API's endpoints. Credentials go to the host of `base_url` and to no other."""

    SourceSettings = HttpSource
    StreamSettings = HttpStream

    def __init__(self, settings: HttpSource, context: Context) -> None:
        self._settings = settings
        self._base = _parse_url(settings.base_url)
        if self._base.query or self._base.fragment:
            raise ConfigurationError("base_url has a query", "Put it under `params`, or `auth` with location: query.")
        check_headers(settings.headers)
        check_auth(settings.auth)
        limits = Limits(
            timeout=settings.timeout,
            attempts=settings.retries,
            backoff=settings.backoff,
            max_wait=settings.max_wait,
            max_response_bytes=settings.max_response_bytes,
        )
        self._transport = Transport(limits, settings.auth)

    def is_increment(self, stream: Stream, settings: HttpStream) -> bool:
        return settings.incremental is not None

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the endpoint's pages.

        Raises SourceError where the API refuses, stays unreachable, gives something else than JSON records, repeats
        itself, or gives fewer records than it says there are.
        """
        stream, settings = fetch.stream, fetch.settings
        check_headers(settings.headers)
        mark = Watermark(settings.incremental, fetch.cursor, stream.label) if settings.incremental else None
        start = mark.params() if mark else {}
        steps = (settings.paginator or self._settings.paginator).steps()
        step: Step | None = next(steps)
        last = b""
        while step is not None:
            answer = self._fetch(stream, settings, step, start)
            last = _check_changed(answer, last)
            if mark:
                mark.follow(answer.records)
            step = _next_step(steps, answer)
            yield Page(answer.records, cursor=mark.cursor(is_last=step is None) if mark else None)

    def close(self) -> None:
        self._transport.close()

    def _fetch(self, stream: Stream, settings: HttpStream, step: Step, start: dict[str, Any]) -> Answer:
        request = self._request(stream, settings, step, start)
        place = f"{stream.label}: {request.method} {display(request.url)}"
        response, body = self._transport.fetch(request, place)
        selector = settings.data_selector or self._settings.data_selector
        return Answer(place, request.url, response.links, _check_json(response, body, place), selector)

    def _request(self, stream: Stream, settings: HttpStream, step: Step, start: dict[str, Any]) -> httpx.Request:
        if step.url is None:
            url = _parse_url(f"{str(self._base).rstrip('/')}/{settings.path.lstrip('/')}")
            url = url.copy_merge_params({**self._settings.params, **settings.params, **start, **step.params})
        else:
            url = httpx.URL(step.url)
        if not is_same_origin(url, self._base):
            raise SourceError(
                f"{stream.label}: the next page is on another host, {url.scheme}://{url.netloc.decode('ascii')}",
                "Credentials are not sent on to others: if it is right, make it the base_url.",
            )
        headers = {"Accept": "application/json", **self._settings.headers, **settings.headers}
        return self._transport.build_request(settings.method, url, headers, settings.json)


def _next_step(steps: Steps, answer: Answer) -> Step | None:
    try:
        return steps.send(answer)
    except StopIteration:
        return None


def _check_changed(answer: Answer, last: bytes) -> bytes:
    """Return the hash of the records, empty for none; raises SourceError where it is the page before once more."""
    if not answer.records:
        return b""
    found = xxhash.xxh3_128_digest(b"\n".join(answer.records))
    if found == last:
        raise SourceError(
            f"{answer.place}: two pages in a row have the same records",
            "Check the paginator's parameters; if the API repeats its last page, set total_path.",
        )
    return found


def _check_json(response: httpx.Response, body: bytes, place: str) -> bytes:
    """Return the body from its first bracket on, nothing for 204; raises SourceError where it has none there."""
    if response.status_code == 204:
        return b""
    match = _LEAD.match(body)
    body = body[match.end() :] if match else body
    if body[:1] in {b"[", b"{"}:
        return body
    kind = response.headers.get("Content-Type", "no content type")
    raise SourceError(
        f"{place}: answered {response.status_code} with {kind}, and no JSON array or object",
        "A login page, or the wrong path? Check base_url, path and auth.",
    )


def _parse_url(text: str) -> httpx.URL:
    """Return the address; raises ConfigurationError, without showing it, where it is none."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError("base_url and path are no address", "Write base_url as https://host/path.")
    return url
