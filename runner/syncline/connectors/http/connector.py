"""Reads the records of JSON APIs over HTTP, page by page."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated, Any, Literal

import httpx
import msgspec

from syncline.config import Stream
from syncline.connectors import PAGE_BYTES, Connector, Context, Fetch, Found, Page
from syncline.connectors.http.addresses import display, is_same_origin, parse_url
from syncline.connectors.http.answer import Answer
from syncline.connectors.http.auth import ApiKeyAuth, Auth, check_auth, check_headers
from syncline.connectors.http.auto import Auto, Paginator, paginator_of
from syncline.connectors.http.conditional import fetch_if_modified, validators
from syncline.connectors.http.endpoint import Endpoint
from syncline.connectors.http.incremental import Incremental, Watermark
from syncline.connectors.http.pagination import Pages, SinglePage, Step
from syncline.connectors.http.parents import Family, Resolve, parent_of, read_families
from syncline.connectors.http.reading import read_pages
from syncline.connectors.http.templates import Values, fill, fill_path, path_params, placeholders
from syncline.connectors.http.transport import Limits, RateLimit, Transport
from syncline.connectors.json_text import JsonPath
from syncline.errors import ConfigurationError

PAGE_RECORDS = 1_000
"""Children of several parents go into one page until it has so many records."""

_ADDRESS_HINT = "Write base_url as https://host/path."

Scalar = str | int | float | bool
Params = dict[str, Scalar | list[Scalar] | Resolve]


class ResponseAction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A status that is an answer without records."""

    status_code: Literal[404, 410]
    action: Literal["ignore"] = "ignore"


class HttpSource(msgspec.Struct, frozen=True, kw_only=True):
    """One API. `timeout`, `backoff`, `max_wait` and `max_response_seconds` are seconds; `retries` counts all attempts
    for a page, `concurrency` the requests under way over all streams.
    """

    base_url: str
    auth: Auth | None = None
    headers: dict[str, str] = {}
    params: dict[str, Scalar | list[Scalar]] = {}
    paginator: Paginator = Auto()
    data_selector: JsonPath | None = None
    timeout: float = 30
    retries: Annotated[int, msgspec.Meta(ge=1)] = 5
    backoff: float = 0.5
    max_wait: float = 60
    max_response_bytes: int = 256 << 20
    max_response_seconds: float = 600
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    rate_limit: RateLimit | None = None
    ca_file: str | None = None
    openapi_url: str | None = None


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
    include_from_parent: list[JsonPath] = []
    response_actions: list[ResponseAction] = []
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None


class HttpConnector(Connector):
    """Reads an API's endpoints. Credentials go to the host of `base_url` and to no other."""

    SourceSettings = HttpSource
    StreamSettings = HttpStream
    identifying = ("path",)

    def __init__(self, settings: HttpSource, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._base = parse_url(settings.base_url, "base_url", _ADDRESS_HINT)
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
            max_response_seconds=settings.max_response_seconds,
            concurrency=settings.concurrency,
        )
        ca_file = context.root / settings.ca_file if settings.ca_file else None
        self._transport = Transport(limits, settings.auth, ca_file, self._reserve)
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="http")

    def is_increment(self, stream: Stream, settings: HttpStream) -> bool:
        return settings.incremental is not None

    def parents(self, settings: HttpStream) -> tuple[str, ...]:
        parent = parent_of(_used(settings), settings.path)
        return () if parent is None else (parent,)

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the endpoint's pages, of a child stream those for each of its parent's records.

        Raises SourceError where the API refuses, stays unreachable, gives something else than JSON records, repeats
        itself, or gives fewer records than it says there are.
        """
        settings, used = fetch.settings, _used(fetch.settings)
        check_headers(settings.headers)
        mark = Watermark(settings.incremental, fetch, set(used)) if settings.incremental else None
        parent = parent_of(used, fetch.stream.label)
        if parent is None:
            yield from self._read_one(fetch, mark)
        else:
            yield from self._read_children(fetch, mark, parent, used)

    def discover(self) -> Iterator[Found]:
        """Yield what the API's OpenAPI document or root index shows, with a page of records each.

        Raises SourceError where it has neither.
        """
        from syncline.connectors.http.discovery import discover

        return discover(self._base, self._settings.openapi_url, self._ask)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._transport.close()

    def _read_one(self, fetch: Fetch, mark: Watermark | None) -> Iterator[Page]:
        endpoint = self._endpoint(fetch.stream.label, fetch.settings, mark)
        paginator = self._paginator(fetch.settings)
        at = (fetch.position or {}).get("at", paginator.start())
        first = None
        is_conditional = not fetch.position and mark is None and endpoint.method == "GET"
        if is_conditional and isinstance(paginator, SinglePage | Auto):
            first = fetch_if_modified(endpoint, paginator.step(at), fetch.cursor)
            if first is None:
                yield Page([], cursor=fetch.cursor, is_unchanged=True)
                return
        pages = read_pages(endpoint, paginator, at, self._submit, self._width(fetch.settings), first)
        for answer, following in pages:
            records = mark.follow(answer.records) if mark else answer.records
            cursor = mark.cursor(is_last=following is None) if mark else None
            if answer is first and following is None:
                cursor = validators(answer, endpoint)
            yield Page(
                records, cursor=cursor, position=None if following is None else _position({"at": following}, mark)
            )

    def _read_children(self, fetch: Fetch, mark: Watermark | None, parent: str, used: list[str]) -> Iterator[Page]:
        settings, label = fetch.settings, fetch.stream.label
        position = fetch.position or {}
        width, paginator = self._width(settings), self._paginator(settings)
        records: list[bytes] = []
        size = 0
        live = self._context.live_records(parent)
        families = read_families(live, parent, used, settings.include_from_parent, label, position)
        for family, endpoint, start, first in self._begin(families, fetch, mark, paginator, width):
            answer = first.result() if first else None
            for found, following in read_pages(endpoint, paginator, start, self._submit, width, answer):
                kept = mark.follow(found.records) if mark else found.records
                records += family.join(kept)
                size += sum(map(len, kept))
                if len(records) >= PAGE_RECORDS or size >= PAGE_BYTES:
                    place = family.after if following is None else {**family.before, "at": following}
                    yield Page(records, position=_position(place, mark))
                    records, size = [], 0
        yield Page(records, cursor=mark.cursor(is_last=True) if mark else None)

    def _begin(
        self, families: Iterator[Family], fetch: Fetch, mark: Watermark | None, paginator: Pages, width: int
    ) -> Iterator[tuple[Family, Endpoint, dict[str, Any], Future[Answer] | None]]:
        """Yield each parent with where its children begin; `width` parents' first pages are asked for at once."""
        ahead: deque[tuple[Family, Endpoint, dict[str, Any], Future[Answer] | None]] = deque()
        resumed = (fetch.position or {}).get("at")
        try:
            for family in families:
                endpoint = self._endpoint(fetch.stream.label, fetch.settings, mark, family)
                start, resumed = resumed or paginator.start(), None
                first = self._submit(endpoint, paginator.step(start)) if width > 1 else None
                ahead.append((family, endpoint, start, first))
                if len(ahead) >= width:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            for *_, future in ahead:
                if future:
                    future.cancel()

    def _endpoint(
        self, label: str, settings: HttpStream, mark: Watermark | None, family: Family | None = None
    ) -> Endpoint:
        """Return the endpoint with its placeholders filled; raises ConfigurationError where the path lacks a value."""
        values = {**(family.values if family else {}), **(mark.values() if mark else {})}
        params: dict[str, Any] = {**self._settings.params, **settings.params}
        params = {n: f"{{{v.placeholder}}}" if isinstance(v, Resolve) else v for n, v in params.items()}
        params = {name: value for name, value in fill(params, values).items() if value is not None}
        in_path = {name: params.pop(name) for name in path_params(settings.path) if name in params}
        path = fill_path(settings.path, {**values, **in_path})
        if path is None:
            raise ConfigurationError(
                f"{label}: its path needs a value that there is not yet", "Set initial_value of `incremental`."
            )
        root = str(self._base).rstrip("/")
        url = parse_url(f"{root}/{path.lstrip('/')}", "base_url with path", _ADDRESS_HINT)
        auth = self._settings.auth
        return Endpoint(
            label=label,
            transport=self._transport,
            shown=None if path == settings.path else self._shown(settings.path, family),
            method=settings.method,
            url=url.copy_merge_params({**params, **(mark.params() if mark else {})}),
            params=params,
            key_param=auth.name if isinstance(auth, ApiKeyAuth) and auth.is_in_query else None,
            headers={"Accept": "application/json", **self._settings.headers, **_fill_headers(settings.headers, values)},
            json=fill(settings.json, values),
            data_selector=self._selector(settings),
            ignored=frozenset(action.status_code for action in settings.response_actions),
        )

    def _shown(self, path: str, family: Family | None) -> str:
        """Return the address for people with its placeholders: their values are of records, which no message shows."""
        address = f"{display(self._base).rstrip('/')}/{path.lstrip('/')}"
        return f"{address} ({family.place})" if family else address

    def _selector(self, settings: HttpStream) -> str | None:
        selector = settings.data_selector or self._settings.data_selector
        return "$" if selector is None and _is_single(settings.path) else selector

    def _paginator(self, settings: HttpStream) -> Pages:
        if settings.paginator is None and _is_single(settings.path):
            return Auto()  # the source's would ask an object for its second page
        return paginator_of(settings.paginator or self._settings.paginator)

    def _width(self, settings: HttpStream) -> int:
        return min(settings.concurrency or self._settings.concurrency, self._settings.concurrency)

    def _submit(self, endpoint: Endpoint, step: Step) -> Future[Answer]:
        return self._pool.submit(endpoint.fetch, step)

    def _reserve(self, url: httpx.URL) -> float:
        limit = self._settings.rate_limit
        return self._context.reserve(url.host, limit.requests, limit.seconds) if limit else 0.0

    def _ask(self, address: str) -> Answer:
        """Return the answer at a path, or at a whole address; without the source's data_selector."""
        settings = HttpStream(path="" if "://" in address else address, data_selector="$")
        endpoint = self._endpoint("discover", settings, None)
        if "://" in address:
            endpoint = replace(
                endpoint, url=parse_url(address, "openapi_url", "Write it as https://host/path."), takes_any_text=True
            )
            if not is_same_origin(endpoint.url, self._base):
                raise ConfigurationError("openapi_url is on another host", "Credentials are not sent on to others.")
        return endpoint.fetch(Step())


def _fill_headers(headers: dict[str, str], values: Values) -> dict[str, str]:
    filled = {name: str(value) for name, value in fill(headers, values).items() if value is not None}
    check_headers(filled)
    return filled


def _used(settings: HttpStream) -> list[str]:
    """Return the words of all placeholders in the settings, in order, once each."""
    resolved = [f"{{{value.placeholder}}}" for value in settings.params.values() if isinstance(value, Resolve)]
    return list(dict.fromkeys(placeholders(settings.path, resolved, settings.params, settings.headers, settings.json)))


def _is_single(path: str) -> bool:
    """Whether the path ends with a parent's placeholder and so names one object, as dlt takes it."""
    last = path.rstrip("/").rpartition("/")[2]
    return last.endswith("}") and "{incremental." not in last


def _position(place: dict[str, Any], mark: Watermark | None) -> dict[str, Any]:
    return {**place, **mark.position()} if mark else place
