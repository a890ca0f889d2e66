"""Takes secrets out of texts: the values of the variables that sources name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

SHORTEST = 6
"""A shorter value is no secret worth the name, and stands in too many words."""

SHORTEST_SEGMENT = 16
"""A part of an address' path of such a length may be a token; shorter ones name what is asked for."""


class Mask:
    """Replaces each secret by the name of its variable."""

    def __init__(self, names: Iterable[str], environment: Mapping[str, str]) -> None:
        found = {part: name for name in sorted(names) for part in _secret_parts(environment.get(name, ""))}
        # The longest first: one secret may be part of another.
        self._secrets = sorted(found.items(), key=lambda item: -len(item[0]))

    def __call__(self, text: str) -> str:
        for secret, name in self._secrets:
            text = text.replace(secret, f"${{{name}}}")
        return text


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
