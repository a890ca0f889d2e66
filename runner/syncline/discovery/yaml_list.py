"""Adds items to a list in a YAML text, and leaves every other character of it as it is."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from syncline.errors import ConfigurationError


def append_items(text: str, place: Sequence[str | int], items: Sequence[str], file: str) -> str:
    """Return the text with the items at the end of the list at `place`, which is made where it is missing.

    `place` leads from the top to the list: keys of mappings, positions in lists. Each item is YAML in block style,
    `- ` and all, not indented. Raises ConfigurationError where the text is written so that this cannot be done.
    """
    added = "\n".join(items) + "\n"
    try:
        edited = _insert(text, place, added)
        if edited is not None and yaml.safe_load(edited) == _expected(text, place, added):
            return edited
    except yaml.YAMLError:
        pass
    raise ConfigurationError(
        f"{file} is written so that {place[-1]!r} cannot be added to it without touching the rest",
        f"Write its {place[0]} as indented lines, not in braces; `--dry-run` prints what to add.",
    )


def _insert(text: str, place: Sequence[str | int], added: str) -> str | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return f"{text.rstrip()}\n\n{place[0]}:\n{textwrap.indent(added, '  ')}".lstrip() if len(place) == 1 else None
    parent = root
    for step in place[:-1]:
        parent = _child(parent, step)
    if not isinstance(parent, yaml.MappingNode) or parent.flow_style:
        return None
    found = next(((key, value) for key, value in parent.value if key.value == place[-1]), None)
    if found is None:
        column = parent.start_mark.column
        lines = f"{place[-1]}:\n{textwrap.indent(added, '  ')}"
        return _with_lines(text, _last_line(text, parent), textwrap.indent(lines, " " * column))
    key, value = found
    if isinstance(value, yaml.SequenceNode) and value.value:
        if value.flow_style:
            return None
        column = value.start_mark.column
        return _with_lines(text, _last_line(text, value), textwrap.indent(added, " " * column))
    # `tables:` and `tables: []`: what stands behind the colon goes.
    emptied = text[: key.end_mark.index] + ":" + text[max(value.end_mark.index, key.end_mark.index + 1) :]
    return _with_lines(emptied, key.start_mark.line, textwrap.indent(added, " " * (key.start_mark.column + 2)))


def _child(node: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return node.value[step]
    return next(value for key, value in node.value if key.value == step)


def _last_line(text: str, node: yaml.Node) -> int:
    """Return the number of the last line of a block: its end, as the parser has it, is where the next thing begins."""
    lines = text[: node.end_mark.index].split("\n")
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return len(lines) - 1


def _with_lines(text: str, line: int, added: str) -> str:
    lines = text.split("\n")
    before, after = lines[: line + 1], lines[line + 1 :]
    return "\n".join([*before, added.rstrip("\n"), *after]) + ("" if after else "\n")


def _expected(text: str, place: Sequence[str | int], added: str) -> Any:
    content = copy.deepcopy(yaml.safe_load(text)) or {}
    parent = content
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = [*(parent.get(place[-1]) or []), *yaml.safe_load(added)]
    return content
