"""Reads, compares and shows the addresses of APIs."""

from __future__ import annotations

import httpx

from syncline.errors import ConfigurationError


def parse_url(text: str, setting: str, hint: str) -> httpx.URL:
    """Return the address; raises ConfigurationError with the setting's name, not the address, where it is none."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(f"{setting} is no address", hint)
    return url


def is_same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return _origin(one) == _origin(other)


def display(url: httpx.URL) -> str:
    """Return the address for people: without its query and user, which may be secret."""
    return str(url.copy_with(query=None, fragment=None, userinfo=b""))


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
