"""Takes secrets out of texts: the values of the variables that sources name, and Syncline's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

SHORTEST = 6
"""A shorter value is no secret worth the name, and stands in too many words."""

SHORTEST_SEGMENT = 16
"""A part of an address' path of such a length may be a token; shorter ones name what is asked for."""


OWN_SECRETS = (
    "SYNCLINE_SECRET_KEY",
    "SYNCLINE_TOKEN",
    "SYNCLINE_ALERT_URLS",
    "SYNCLINE_WEBHOOK_SECRETS",
    "QSTASH_CURRENT_SIGNING_KEY",
    "QSTASH_NEXT_SIGNING_KEY",
)
"""Variables of Syncline's own that are secret; of DATABASE_URL the password is."""

_LISTS = ("SYNCLINE_ALERT_URLS", "SYNCLINE_WEBHOOK_SECRETS")

_WEB = ("http", "https", "json", "jsons", "xml", "xmls", "form", "forms")
"""Schemes of addresses with a host and a path as usual; alerts to other services have addresses made of tokens."""

_NAMES = re.compile(r"[a-z_-]{1,15}|[a-z0-9-]{1,15}(\.[a-z0-9-]{1,15})+")
"""A word or the name of a host, which is no token and may stand in any message."""


class Mask:
    """Replaces each secret by the name of its variable."""

    def __init__(self, names: Iterable[str], environment: Mapping[str, str]) -> None:
        values = {name: environment.get(name, "") for name in (*sorted(names), *OWN_SECRETS)}
        found = {part: name for name, value in values.items() if name not in _LISTS for part in _secret_parts(value)}
        found |= dict.fromkeys(_passwords(environment.get("DATABASE_URL", "")), "DATABASE_URL")
        for name in _LISTS:
            found |= {part: name for item in re.split(r"[,\s]+", values[name]) for part in _item_parts(item)}
        # The longest first: one secret may be part of another.
        self._secrets = sorted(found.items(), key=lambda item: -len(item[0]))

    def __call__(self, text: str) -> str:
        for secret, name in self._secrets:
            text = text.replace(secret, f"${{{name}}}")
        return text


def _passwords(value: str) -> Iterator[str]:
    """Yield the password of a connection string; the other words of it stand in many messages."""
    given = dict(re.findall(r"(\w+)\s*=\s*'?([^'\s]+)", value))
    known = {given.get("user"), given.get("dbname")}
    try:
        address = urlsplit(value)
    except ValueError:
        return
    known |= {address.username, address.path.strip("/")}
    for found in {given.get("password", ""), address.password or ""} - known:
        yield from (part for part in (found, unquote(found)) if len(part) >= SHORTEST)


def _item_parts(item: str) -> Iterator[str]:
    """Yield what is secret of an item of a list: all of it, and of an address its parts."""
    yield from (part for part in (item,) if len(part) >= SHORTEST)
    yield from _secret_parts(item)
    scheme, mark, rest = item.partition("://")
    if mark and scheme.lower() not in _WEB:
        # Tokens stand where others have user, host and port: slack://TOKEN/TOKEN/TOKEN, tgram://BOT:TOKEN/CHAT.
        for part in re.split(r"[/:@#]", rest.partition("?")[0]):
            yield from (word for word in {part, unquote(part)} if len(word) >= SHORTEST and not _NAMES.fullmatch(word))


def _secret_parts(value: str) -> Iterator[str]:
    """Yield what is secret of a value; an address names its host in many messages, and rightly so."""
    parts = [value]
    if "://" in value:
        try:
            address = urlsplit(value)
            parts = [address.password or "", unquote(address.password or "")]
        except ValueError:
            return
        parts += [word for _, word in parse_qsl(address.query)]
        parts += [word for word in address.path.split("/") if len(word) >= SHORTEST_SEGMENT]
    yield from (part for part in parts if len(part) >= SHORTEST)
