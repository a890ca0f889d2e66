"""Asks an API for a page only if it is another than at the last load."""

from __future__ import annotations

import hashlib
from email.utils import parsedate_to_datetime

import msgspec

from syncline.connectors import Cursor
from syncline.connectors.http.answer import Answer
from syncline.connectors.http.endpoint import Endpoint
from syncline.connectors.http.pagination import Step


def fetch_if_modified(endpoint: Endpoint, step: Step, cursor: Cursor | None) -> Answer | None:
    """Return the answer, None where it is the one that the last load had and saved `cursor` for."""
    known = cursor if cursor and cursor.get("request") == _fingerprint(endpoint) else {}
    conditions = {"If-None-Match": known.get("etag"), "If-Modified-Since": known.get("last_modified")}
    answer = endpoint.fetch(step, {name: value for name, value in conditions.items() if value})
    if answer.status != 304:
        return answer
    # The first page may be as it was and have got a second one.
    return endpoint.fetch(step) if answer.links.get("next") else None


def validators(answer: Answer, endpoint: Endpoint) -> Cursor | None:
    """Return what the next load asks with whether the answer is still this one, None where the API gives nothing."""
    found = {"etag": answer.headers.get("ETag"), "last_modified": _last_modified(answer)}
    known = {name: value for name, value in found.items() if value}
    return {**known, "request": _fingerprint(endpoint)} if known else None


def _last_modified(answer: Answer) -> str | None:
    """Return the time of the last change, None where another may have followed within the same second."""
    told: str | None = answer.headers.get("Last-Modified")
    try:
        is_past = parsedate_to_datetime(answer.headers["Date"]) > parsedate_to_datetime(told or "")
    except (KeyError, ValueError, TypeError):
        return None
    return told if is_past else None


def _fingerprint(endpoint: Endpoint) -> str:
    parts = [str(endpoint.url), sorted(endpoint.headers.items()), endpoint.data_selector]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
