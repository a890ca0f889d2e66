"""Reads what the models of a project say of streams, from their own texts: no dbt, no database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from syncline.config import Project, model_folders, read_model_yaml

_SOURCE = re.compile(r"""source\(\s*['"](\w+)['"]\s*,\s*['"](\w+)['"]\s*\)""")
_TYPED = re.compile(
    r"""typed\(\s*(['"])(?P<path>.+?)\1\s*,\s*(['"])(?P<type>.+?)\3(?P<rest>(?:[^}]|\}(?!\}))*)\)\s*\}\}(?:\s*as\s+"?(?P<name>\w+))?"""
)
_LIST = re.compile(r"""'(?:strict |lax )?\$((?:\.(?:\w+|"[^"]+"))+)\[\*\]'""")
_COMMENT = re.compile(r"\{#.*?#\}|--[^\n]*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mapped:
    """A column that typed() makes: the path it reads, its type, and whether it reads the record or an element of it."""

    path: str
    type: str
    name: str | None
    is_of_record: bool
    has_format: bool


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its text: the streams it reads, the columns typed() makes, and the lists that it unnests."""

    name: str
    streams: frozenset[tuple[str, str]]
    columns: tuple[Mapped, ...]
    lists: frozenset[str]


def model_folder(project: Project) -> Path:
    """Return the first folder of the project's models."""
    return model_folders(project.root)[0]


def read_models(project: Project) -> dict[str, Model]:
    """Return the project's models by name."""
    files = [file for folder in model_folders(project.root) for file in sorted(folder.rglob("*.sql"))]
    return {file.stem: parse_model(file.stem, file.read_text(encoding="utf-8")) for file in files}


def parse_model(name: str, text: str) -> Model:
    """Return the model that a text describes."""
    text = _COMMENT.sub(" ", text)
    columns = tuple(
        Mapped(
            found["path"],
            found["type"],
            found["name"],
            not re.search(r"""record\s*=\s*['"](?!payload['"])""", found["rest"]),
            "format" in found["rest"] or "transform" in found["rest"],
        )
        for found in _TYPED.finditer(text)
    )
    lists = frozenset(path.replace('"', "")[1:] for path in _LIST.findall(text))
    return Model(name, frozenset(_SOURCE.findall(text)), columns, lists)


def described_models(project: Project) -> set[str]:
    """Return the models that some YAML file of the project describes."""
    models = [model for _, content in read_model_yaml(project.root) for model in content.get("models") or []]
    return {str(model.get("name")) for model in models if isinstance(model, dict)}
