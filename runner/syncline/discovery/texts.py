"""Writes what discover found as a project has it: streams in YAML, models in SQL, their descriptions and tests."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from syncline.discovery.infer import Column, Nested, Shape
from syncline.discovery.names import singular, unique_name


def stream_text(source: str, name: str, settings: Mapping[str, Any], shape: Shape | None) -> str:
    """Return a stream as an item of its source's `tables`, the likely cursor as a comment."""
    lines = [
        f"- name: {_inline(name)}",
        f"  description: {_quoted(f'The records of {name}, as {source} has them.')}",
        "  config:",
        "    meta:",
        f"      syncline: {_inline(settings)}",
    ]
    if shape is not None and shape.cursor and "incremental" not in settings:
        lines.append(f"      # {shape.cursor} probably says when a record changed: `incremental` could follow it.")
    return "\n".join(lines)


def source_text(name: str, settings: Mapping[str, Any]) -> str:
    """Return a source without streams as an item of `sources`."""
    lines = [f"- name: {_inline(name)}", f"  schema: raw_{name}", "  config:", "    meta:", "      syncline:"]
    lines += [f"        {key}: {_inline(value)}" for key, value in settings.items()]
    return "\n".join(lines)


def model_text(source: str, stream: str, shape: Shape) -> str:
    """Return the SQL of the entity with one row for each record."""
    unique = [column.name for path in shape.key if (column := shape.column(path))]
    lines = ["_key"] + [_typed(column, is_required=column.path in shape.key) for column in shape.columns]
    return _select(source, stream, unique or ["_key"], lines)


def nested_text(source: str, stream: str, shape: Shape, nested: Nested) -> str:
    """Return the SQL of the entity with one row for each element of a list in the records."""
    own, columns, place = nested_columns(stream, shape, nested)
    lines = ["_key"] + [_typed(column, is_required=True) for column in own]
    lines += [] if nested.key else [f"unnested.{place} as {place}"]
    lines += [_typed(column, is_required=column.path in nested.key, record="item") for column in columns]
    unique = [column.name for column in own] or ["_key"]
    unique += [column.name for column in columns if column.path in nested.key] or [place]
    steps = [step if re.fullmatch(r"[A-Za-z_]\w*", step) else f'"{step}"' for step in nested.path.split(".")]
    # Strict and silent: a field that is no list gives nothing.
    unnested = f"jsonb_path_query(payload, 'strict $.{'.'.join(steps)}[*]', '{{}}', true)"
    unnested += " as unnested (item)" if nested.key else f" with ordinality as unnested (item, {place})"
    return _select(source, stream, unique, lines) + f"cross join lateral {unnested}\n"


def nested_columns(stream: str, shape: Shape, nested: Nested) -> tuple[list[Column], list[Column], str]:
    """Return an unnested entity's columns: those of the record's key, those of the element, the name of its place."""
    taken = {"_key"}
    own, columns = [], []
    one = singular(stream)
    for path in shape.key:
        if column := shape.column(path):
            wanted = column.name if column.name.startswith(one) else f"{one}_{column.name}"
            own.append(Column(path, unique_name(wanted[:50], taken), column.type))
            taken.add(own[-1].name)
    place = unique_name("place", taken)
    if not nested.key:
        taken.add(place)
    for column in nested.columns:
        columns.append(Column(column.path, unique_name(column.name, taken), column.type))
        taken.add(columns[-1].name)
    return own, columns, place


def description_text(
    entity: str, about: str, columns: Mapping[str, str], keys: list[str], related: Mapping[str, tuple[str, str]]
) -> str:
    """Return an entity as an item of `models`: columns with descriptions, and tests.

    `keys` are tested not to be null, and to be unique where there is one. `related` is, by column, the entity and the
    column that its values are in; such a test only warns, for it was concluded from a sample.
    """
    lines = [f"- name: {_inline(entity)}", f"  description: {_quoted(about)}", "  columns:"]
    lines.append("    - {name: _key, description: The key of the raw record that the row came from.}")
    for name, about_column in columns.items():
        tests = ["not_null"] if name in keys else []
        tests += ["unique"] if [name] == keys else []
        lines += [f"    - name: {_inline(name)}", f"      description: {_quoted(about_column)}"]
        if name in related:
            to, column = related[name]
            arguments = f"{{to: ref('{to}'), field: {_inline(column)}}}"
            lines.append("      data_tests:")
            lines += [f"        - {test}" for test in tests]
            lines.append(f"        - relationships: {{arguments: {arguments}, config: {{severity: warn}}}}")
        elif tests:
            lines.append(f"      data_tests: [{', '.join(tests)}]")
    return "\n".join(lines)


def _typed(column: Column, *, is_required: bool, record: str | None = None) -> str:
    given = (", required=true" if is_required else "") + (f", record='{record}'" if record else "")
    return f"{{{{ typed('{column.path}', '{column.type}'{given}) }}}} as {column.name}"


def _select(source: str, stream: str, unique: list[str], lines: list[str]) -> str:
    key = f"'{unique[0]}'" if len(unique) == 1 else f"[{', '.join(map(repr, unique))}]"
    listed = ",\n".join(f"    {line}" for line in lines)
    return (
        f"{{{{ config(materialized='versioned', unique_key={key}) }}}}\n\nselect\n{listed}\n"
        f"from {{{{ source('{source}', '{stream}') }}}}\n"
    )


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.strip().removesuffix("\n...").strip()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
