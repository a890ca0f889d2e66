"""One endpoint of an API with all its settings filled in: turns a step of its paginator into an answer."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import httpx

from syncline.connectors.http.addresses import display, is_same_origin
from syncline.connectors.http.answer import Answer, Position
from syncline.connectors.http.pagination import Step
from syncline.connectors.http.transport import Transport
from syncline.connectors.json_text import parse_path
from syncline.errors import ConfigurationError, SourceError

_LEAD = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where and how to ask. `url` has all params but those of auth, whose name in a query is `key_param`.

    `shown` is the address for people where that in `url` holds values of records, None where it holds none.
    `params` are those of the settings, which may be secret. A status in `ignored` is an answer without records.
    `takes_any_text` is for what is no page: a document.
    """

    label: str
    transport: Transport
    method: str
    url: httpx.URL
    params: Mapping[str, Any]
    key_param: str | None
    headers: Mapping[str, str]
    json: Any
    data_selector: str | None
    ignored: Set[int] = frozenset()
    takes_any_text: bool = False
    shown: str | None = None

    def fetch(self, step: Step, conditions: Mapping[str, str] | None = None) -> Answer:
        """Return the page; with `conditions` (headers), also one that says that nothing was modified.

        Raises SourceError where the API refuses, stays unreachable, or answers with something else than JSON.
        """
        url = self.url.copy_merge_params(step.params) if step.params else self.url
        if step.link is not None:
            url = self._open(step.link)
        request = self.transport.build_request(
            self.method, url, {**self.headers, **(conditions or {})}, _with_values(self.json, step.body)
        )
        place = f"{self.label}: {self.method} {self.shown or display(url)}"
        accepted = {*self.ignored, 304} if conditions else self.ignored
        response, body = self.transport.fetch(request, place, accepted)
        if not response.is_success:
            body = b""
        elif not self.takes_any_text:
            body = _check_json(response, body, place)
        return Answer(
            place=place,
            url=url,
            status=response.status_code,
            headers=response.headers,
            links=response.links,
            body=body,
            data_selector=self.data_selector,
            seal=self.seal,
        )

    def seal(self, url: httpx.URL, place: str) -> Position:
        """Return the position of the page at this address, without what may be secret in it.

        Of the settings' own params it holds the names, and of the credentials nothing. Raises SourceError where the
        address is on another host: credentials would go with it.
        """
        if not is_same_origin(url, self.url):
            raise SourceError(
                f"{place}: the next page is on another host, {url.scheme}://{url.netloc.decode('ascii')}",
                "Credentials are not sent on to others: if it is right, make it the base_url.",
            )
        own = [name for name, value in self.params.items() if url.params.get_list(name) == _texts(value)]
        left = httpx.QueryParams(
            [(name, value) for name, value in url.params.multi_items() if name not in {*own, self.key_param}]
        )
        sealed = {"path": url.copy_with(query=None).raw_path.decode("ascii"), "query": str(left)}
        return {**sealed, "params": own} if own else sealed

    def _open(self, link: Position) -> httpx.URL:
        raw_path = link["path"] + (f"?{link['query']}" if link["query"] else "")
        url = self.url.copy_with(raw_path=raw_path.encode("ascii"), fragment=None)
        for name in link.get("params", ()):
            for text in _texts(self.params.get(name, [])):
                url = url.copy_add_param(name, text)
        return url


def _texts(value: Any) -> list[str]:
    return httpx.QueryParams({"value": value}).get_list("value")


def _with_values(body: Any, values: Mapping[str, Any]) -> Any:
    """Return the body with the values set at their paths."""
    if not values:
        return body
    body = {} if body is None else copy.deepcopy(body)
    for path, value in values.items():
        *above, name = parse_path(path)
        place = body
        for step in above:
            place = place.setdefault(step, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigurationError(f"{path!r} leads into something that is no object in `json`", "Correct the path.")
        place[name] = value
    return body


def _check_json(response: httpx.Response, body: bytes, place: str) -> bytes:
    """Return the body from its first bracket on, nothing for 204; raises SourceError where it has none there."""
    if response.status_code == 204:
        return b""
    match = _LEAD.match(body)
    body = body[match.end() :] if match and match.end() else body
    if body[:1] in {b"[", b"{"}:
        return body
    kind = response.headers.get("Content-Type", "no content type")
    raise SourceError(
        f"{place}: answered {response.status_code} with {kind}, and no JSON array or object",
        "A login page, or the wrong path? Check base_url, path and auth.",
    )
