"""Imports point one way: interfaces over the pipeline over the steps over what they stand on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[2] / "runner" / "syncline"

LAYERS = [
    ["errors"],
    ["paths", "dbt_errors", "trigger", "masking", "telemetry", "notices", "values"],
    ["config"],
    ["db", "watcher"],
    ["connectors"],
    ["records", "staging", "logs", "run_options"],
    ["control", "migrate", "embedded", "scaffold", "dbt", "dbt_process", "live", "tally", "tokens", "schedules"],
    ["interruption", "alerts", "preview", "row_errors"],
    ["check", "load", "selection"],
    ["load_step", "replay", "build_step", "publish", "downstream"],
    ["pipeline"],
    ["supervisor", "worker"],
    ["discovery", "doctor", "report"],
    ["adopt"],
    ["api"],
    ["production", "setup"],
    ["cli"],
    ["__main__"],
]
"""From the bottom to the top. A module may import what is below it; those beside each other do not know each other."""

RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(RUNNER.rglob("*.py"))


def part_of(file: Path) -> str:
    """The part of the runner that a file belongs to: a module, or a package as a whole."""
    return file.relative_to(RUNNER).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """The parts that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("syncline.")}


def test_every_part_has_its_place() -> None:
    """Each module and package of the runner stands in one layer."""
    parts = {part_of(file) for file in FILES} - {"__init__"}
    assert sorted(parts - set(RANKS)) == []
    assert sorted(set(RANKS) - parts) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(RUNNER).as_posix())
def test_imports_point_down(file: Path) -> None:
    """A module imports only from layers below its own."""
    part = part_of(file)
    if part == "__init__":
        return
    others = imported(file) & set(RANKS) - {part}
    assert sorted(name for name in others if RANKS[name] >= RANKS[part]) == []
