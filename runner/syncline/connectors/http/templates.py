"""Fills the placeholders of paths, parameters and bodies: `{resources.classes.id}`, `{incremental.start_value}`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

_PLACEHOLDER = re.compile(r"\{((?:resources|incremental)\.[^{}\s]+)\}")
_PARAM = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")

Values = Mapping[str, Any]
"""What stands for a placeholder, by the words between its braces."""


def placeholders(*templates: Any) -> Iterator[str]:
    """Yield the words of all placeholders in strings, lists and mappings."""
    for template in templates:
        if isinstance(template, str):
            yield from _PLACEHOLDER.findall(template)
        elif isinstance(template, Mapping):
            yield from placeholders(*template.values())
        elif isinstance(template, list):
            yield from placeholders(*template)


def path_params(path: str) -> list[str]:
    """Return the names of the parameters that the path takes: `{id}`."""
    return _PARAM.findall(path)


def fill(template: Any, values: Values) -> Any:
    """Return the template with its placeholders filled; a string that lacks a value becomes None.

    A string that is one placeholder and nothing else takes the value's type. Other braces stay as they are.
    """
    if isinstance(template, str):
        whole = _PLACEHOLDER.fullmatch(template)
        return values.get(whole[1]) if whole else _fill_text(template, values)
    if isinstance(template, Mapping):
        return {name: fill(item, values) for name, item in template.items()}
    if isinstance(template, list):
        return [fill(item, values) for item in template]
    return template


def fill_path(path: str, values: Values) -> str | None:
    """Return the path with placeholders and parameters filled and quoted, None where a value is missing."""
    quoted = {name: quote(str(value), safe="") for name, value in values.items() if value is not None}
    filled = _PARAM.sub(lambda match: quoted.get(match[1], match[0]), path)
    return None if set(path_params(filled)) & set(values) else _fill_text(filled, quoted)


def _fill_text(text: str, values: Values) -> str | None:
    if any(values.get(name) is None for name in _PLACEHOLDER.findall(text)):
        return None
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), text)
