"""Makes names of columns and entities out of the names that a source has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# What Postgres does not take as a column's name without quotes, and the names of its own columns.
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate
        collation column concurrently constraint create cross current_catalog current_date current_role
        current_schema current_time current_timestamp current_user default deferrable desc distinct do else end
        except false fetch for foreign freeze from full grant group having ilike in initially inner intersect
        into is isnull join lateral leading left like limit localtime localtimestamp natural not notnull null
        offset on only or order outer overlaps placing primary references returning right select session_user
        similar some symmetric system_user table tablesample then to trailing true union unique user using
        variadic verbose when where window with cmax cmin ctid tableoid xmax xmin
        """,
    )
)


def column_name(text: str) -> str:
    """Return a field's path as a name in snake case: letters, digits and underscores, not empty, no reserved word."""
    name = _snake(text)
    return f"{name}_" if name in _RESERVED else name


def entity_name(source: str, text: str) -> str:
    """Return the name of a stream or an entity: as a column's, with the source before it instead of a reserved word."""
    name = _snake(text)
    return _snake(f"{source}_{name}") if name in _RESERVED else name


def _snake(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain)
    name = re.sub(r"[^a-z0-9]+", "_", split.lower()).strip("_") or "field"
    return (f"_{name}" if name[0].isdigit() else name)[:50].rstrip("_")


def unique_name(wanted: str, taken: Iterable[str]) -> str:
    """Return `wanted`, with the first number that makes it differ from the names that are taken."""
    taken, name, number = set(taken), wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted[:46]}_{number}"
    return name


def singular(name: str) -> str:
    """Return an English plural in the singular, by its ending."""
    if name.endswith("ies") and len(name) > 4:
        return f"{name[:-3]}y"
    if name.endswith(("ses", "xes", "zes", "ches", "shes")):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith(("ss", "us", "is")) else name
