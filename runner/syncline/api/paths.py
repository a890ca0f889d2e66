"""Keys of rows in paths: any text, with slashes and line breaks as well."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from starlette.convertors import StringConvertor, register_url_convertor


class _AnyText(StringConvertor):
    # Starlette's own `path` ends at a line break.
    regex = r"[\s\S]+"


register_url_convertor("any", _AnyText())

ROW = "/entities/{entity}/rows/{key:any}"
"""Where a row is found. What follows names one thing, without a slash."""

Entity = Annotated[str, Path(max_length=200, pattern=r"^[^\x00]+$")]
Key = Annotated[
    str, Path(max_length=4000, pattern=r"^[^\x00]+$", description="The row's `_key`, or its unique key if one column.")
]
Column = Annotated[str, Path(max_length=200, pattern=r"^[^\x00]+$", description="The field's column.")]


def routed(path: str) -> str:
    """Return a path of the document as its route has it."""
    return path.replace("{key}", "{key:any}")
