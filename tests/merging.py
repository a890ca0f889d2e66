"""What the macro merged() compiles to, rendered by dbt's own Jinja without a project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dbt.clients.jinja import MacroGenerator
from dbt_common.exceptions import CompilationError

MACROS = Path(__file__).parents[1] / "dbt_project" / "macros"


class _Staging:
    """What ref() gives for an ephemeral model."""

    def __init__(self, name: str) -> None:
        self.identifier = name

    def __str__(self) -> str:
        return f"__dbt__cte__{self.identifier}"


def _refuse(message: str) -> None:
    raise CompilationError(message)


def merged_sql(staging: Mapping[str, str], fields: Mapping[str, Any], off: frozenset[str] = frozenset()) -> str:
    """The compiled SQL of a merged model: `staging` gives the SQL of each source, in the order of their priority.

    Raises CompilationError where merged() refuses the settings.
    """
    context: dict[str, Any] = {
        "adapter": SimpleNamespace(quote=lambda name: f'"{name}"'),
        "exceptions": SimpleNamespace(raise_compiler_error=_refuse),
        "model": SimpleNamespace(name="thing"),
    }
    for file in ("merged.sql", "typed.sql"):
        blocks = re.findall(r"\{%- macro .*?\{%- endmacro -%\}", (MACROS / file).read_text(), re.S)
        for block in blocks:
            name = re.findall(r"macro (\w+)\(", block)[0]
            node = SimpleNamespace(
                macro_sql=block, name=name, unique_id=f"macro.syncline.{name}", original_file_path=file
            )
            context[name] = MacroGenerator(node, context)
    from dbt.context.base import BaseContext

    context["tojson"] = BaseContext.tojson
    context["return"] = BaseContext._return
    sources = {name: {"model": _Staging(name), "active": False} if name in off else _Staging(name) for name in staging}
    main = context["merged"](sources, fields)
    front = ", ".join(f"__dbt__cte__{name} as (\n{sql}\n)" for name, sql in staging.items())
    return f"with {front} {main}"
