"""Finds the streams that a live API could have: from its OpenAPI document, else from the links at its root."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from syncline.connectors import Found
from syncline.connectors.http.answer import RECORD_NAMES, Answer, first_byte
from syncline.connectors.http.auto import sniff
from syncline.connectors.http.openapi import USUAL_PLACES, Listed, list_endpoints, parse_document
from syncline.connectors.http.pagination import SinglePage, settings_of
from syncline.connectors.json_text import split_object
from syncline.errors import SourceError, SourceUnavailableError

Ask = Callable[[str], Answer]
"""Fetches what is at a path below the API's address, or at a whole address of its host."""

_DEPTH = 3


def discover(base: httpx.URL, openapi_url: str | None, ask: Ask) -> Iterator[Found]:
    """Yield a stream for each endpoint that lists objects, with its first page of records.

    Those that cannot be read come last and say why, without knowing that they list objects.
    Raises SourceError where there is nothing to go by.
    """
    listed = _from_document(base, openapi_url, ask)
    if listed is None:
        listed = _from_root(base, ask)
    names: set[str] = set()
    unread: list[tuple[str, str]] = []
    # The endpoint that lies least deep gets the short name.
    for endpoint in sorted(listed, key=lambda endpoint: endpoint.path.count("/")):
        try:
            found = _sample(endpoint, ask(endpoint.path), names)
        except SourceUnavailableError:
            raise
        except SourceError as error:
            unread.append((endpoint.path, error.message))
            continue
        if found is not None:
            names.add(found.name)
            yield found
    for path, problem in unread:
        name = _name(path, names)
        names.add(name)
        yield Found(name=name, settings={"path": path}, records=[], problem=problem)


def _from_document(base: httpx.URL, openapi_url: str | None, ask: Ask) -> list[Listed] | None:
    host = str(base.copy_with(raw_path=b"/")).rstrip("/")
    below = str(base).rstrip("/")
    tried = (
        [openapi_url]
        if openapi_url
        else [f"{root}/{place}" for root in dict.fromkeys((below, host)) for place in USUAL_PLACES]
    )
    for address in tried:
        try:
            answer = ask(address)
        except SourceUnavailableError:
            raise
        except SourceError:
            if openapi_url:
                raise
            continue
        document = parse_document(answer.body)
        if document is not None:
            return list(dict.fromkeys(list_endpoints(document, base.path)))
        if openapi_url:
            raise SourceError(
                f"{answer.place}: no OpenAPI or Swagger document", "Correct openapi_url, or leave it out."
            )
    return None


def _from_root(base: httpx.URL, ask: Ask) -> list[Listed]:
    """Return the endpoints that the API's root links to: `{"users": "https://host/users"}`, or HAL's `_links`."""
    found, said = [], ""
    try:
        found = [Listed(path, None) for path in _links(base, ask(""))]
    except SourceUnavailableError:
        raise
    except SourceError as refused:
        said = f"; {refused.message}"
    if not found:
        raise SourceError(
            f"the API has neither an OpenAPI document at a usual place nor links at its root{said}",
            "Set openapi_url, or write the streams by hand: each is a `path` and a `key`.",
        )
    return found


def _links(base: httpx.URL, answer: Answer) -> Iterator[str]:
    fields = dict(answer.fields)
    for around in ("_links", "links", "resources", "endpoints"):
        if first_byte(fields.get(around, b"")) == b"{":
            fields |= split_object(fields[around], answer.place)
    for name, text in fields.items():
        value = msgspec.json.decode(text)
        link = value.get("href") if isinstance(value, dict) else value
        if name == "self" or not isinstance(link, str) or "{" in link or not link.startswith(("/", "http")):
            continue
        url = answer.url.join(link)
        root = base.path.rstrip("/")
        if url.host == base.host and url.path.startswith(f"{root}/") and url.path != f"{root}/":
            yield url.path[len(root) :]


def _sample(endpoint: Listed, answer: Answer, names: set[str]) -> Found | None:
    """Return the stream, None where the answer holds no list of objects."""
    selector = _find_list(answer.body, (), answer.place)
    if selector is None:
        return None
    answer = replace(answer, data_selector=selector)
    settings: dict[str, Any] = {"path": endpoint.path}
    if selector != "$":
        settings["data_selector"] = selector
    try:
        paginator = sniff(answer)
    except SourceError:
        paginator = None  # the load will say so, with what to set
    if paginator is not None and not isinstance(paginator, SinglePage):
        settings["paginator"] = settings_of(paginator)
    if endpoint.key is not None:
        settings["key"] = endpoint.key
    return Found(name=_name(endpoint.path, names), settings=settings, records=answer.records)


def _find_list(text: Any, above: tuple[str, ...], place: str) -> str | None:
    """Return the path of the list of objects that lies least deep, of several there the one named as records are."""
    if first_byte(text) == b"[":
        return ".".join(above) or "$"
    fields = split_object(text, place) if first_byte(text) == b"{" else {}
    lists = [name for name, value in fields.items() if bytes(memoryview(value)[:2]) in {b"[{", b"[]"} or _opens(value)]
    wanted = [name for name in lists if name in RECORD_NAMES] or lists
    if wanted:
        return ".".join((*above, wanted[0]))
    if len(above) + 1 >= _DEPTH:
        return None
    inner = (_find_list(value, (*above, name), place) for name, value in fields.items() if first_byte(value) == b"{")
    return next((path for path in inner if path), None)


def _opens(text: Any) -> bool:
    head = bytes(memoryview(text)[:64])
    return head[:1] == b"[" and head[1:].lstrip()[:1] in {b"{", b"]"}


def _name(path: str, names: set[str]) -> str:
    """Return a stream's name for the path: its last part, with those before where it is taken."""
    parts = [re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_") for part in urlsplit(path).path.split("/")]
    parts = [part for part in parts if part] or ["records"]
    for count in range(1, len(parts) + 1):
        name = "_".join(parts[-count:])[:50].strip("_")
        name = name if name[0].isalpha() else f"n_{name}"[:50]
        if name not in names:
            return name
    return f"{name[:46]}_{len(names)}"
