"""Values of rows as commands print and shorten them: exactly as Postgres has them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import click
import msgspec

LONGEST = 80
"""Letters of a value that are shown: its JSON tells all."""


def print_exact(content: Any) -> None:
    """Print rows as JSON that `db.call_exact` read."""
    click.echo(msgspec.json.encode(_plain(content)).decode())


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _plain(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    return content.isoformat() if isinstance(content, date) else content


def fields_of(content: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    """Return the fields of an object; none of null."""
    return msgspec.json.decode(content, type=dict[str, msgspec.Raw]) if content is not None else {}


def value_of(content: msgspec.Raw | None) -> Any:
    return None if content is None else msgspec.json.decode(content)


def shown(content: msgspec.Raw | None, longest: int = LONGEST) -> str:
    """Return a value as people see it: JSON on one line, shortened; null where there is none."""
    return printable("null" if content is None else bytes(content).decode(), longest)


def shown_fields(content: msgspec.Raw | None, longest: int = LONGEST) -> str:
    """Return an object as people see it: its fields with their values, those that are null left out."""
    fields = fields_of(content)
    return ", ".join(
        f"{printable(name)}: {shown(value, longest)}" for name, value in fields.items() if bytes(value) != b"null"
    )


def printable(text: str, longest: int | None = 1_000) -> str:
    """Return a text on one line, shortened, without what would steer a terminal."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def moment(at: Any) -> str:
    """Return a time as people see it, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S") if at else ""
